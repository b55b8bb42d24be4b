#include "cpu/masked_linear.h"

#include "cpu/masked_gemm.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
void masked_linear_forward(const MaskedLinearForward<T>& a) {
  const Columns<const T> x{a.x, a.ldx, a.stair.in_order};
  const ForwardOutput<T> out{a.y, a.stair.out, a.activation};
  forward_product(x, a.weight, a.bias, a.stair, a.rows, out);
}

// grad * act'(y)
template <class T>
void sum_gradient(const MaskedLinearBackward<T>& a, T* out) {
  const int64_t n = a.stair.out;
#pragma omp parallel for if (a.rows * n > kSerialWork / 4)
  for (int64_t b = 0; b < a.rows; ++b) {
    for (int64_t j = 0; j < n; ++j) out[b * n + j] = a.grad[b * a.ld_grad + j];
    multiply_by_derivative(a.activation, a.y + b * n, out + b * n, n);
  }
}

template <class T>
void masked_linear_backward(const MaskedLinearBackward<T>& a) {
  static thread_local Scratch scratch;
  const Staircase& s = a.stair;
  Columns<const T> g{a.grad, a.ld_grad, s.out_order};
  if (a.activation != Activation::identity) {
    T* const sums = scratch.get<T>(a.rows * s.out);
    sum_gradient(a, sums);
    g.data = sums, g.ld = s.out;
  }
  if (a.grad_bias) bias_gradient(g, a.rows, s.out, a.grad_bias);
  if (a.grad_weight) weight_gradient(g, Columns<const T>{a.x, a.ldx, s.in_order}, s, a.rows, a.grad_weight);
  if (a.grad_x) input_gradient(g, a.weight, s, a.rows, GradientOutput<T>{a.grad_x, s.in});
  scratch.trim();
}

FASTGEN_INSTANTIATE_KERNEL(masked_linear_forward, MaskedLinearForward)
FASTGEN_INSTANTIATE_KERNEL(masked_linear_backward, MaskedLinearBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
