#include "cpu/masked_linear.h"

#include "cpu/masked_gemm.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
void masked_linear_forward(const MaskedLinearForward<T>& a) {
  const Columns<const T> x{a.x, a.ldx, a.stair.in_order};
  const ForwardOutput<T> out{a.y, a.stair.out, a.activation};
  forward_product(x, a.weight, a.bias, a.stair, a.rows, out);
}

// grad * act'(y) with its columns in sorted order.
template <class T>
void sum_gradient(const MaskedLinearBackward<T>& a, T* out) {
  constexpr int64_t kBlock = 256;
  const int64_t n = a.stair.out;
  const Columns<const T> grad{a.grad, a.ld_grad, a.stair.out_order}, y{a.y, n, a.stair.out_order};
#pragma omp parallel for if (a.rows * n > kSerialWork / 4)
  for (int64_t b = 0; b < a.rows; ++b)
    for (int64_t first = 0; first < n; first += kBlock) {
      T saved[kBlock];
      T* g = out + b * n + first;
      const int width = static_cast<int>(least(kBlock, n - first));
      grad.read(b, first, width, g);
      y.read(b, first, width, saved);
      multiply_by_derivative(a.activation, saved, g, width);
    }
}

template <class T>
void masked_linear_backward(const MaskedLinearBackward<T>& a) {
  static thread_local Scratch scratch;
  const Staircase& s = a.stair;
  const T* g = a.grad;
  int64_t ldg = a.ld_grad;
  if (s.out_order || a.activation != Activation::identity) {
    T* sums = scratch.get<T>(a.rows * s.out);
    sum_gradient(a, sums);
    g = sums, ldg = s.out;
  }
  if (a.grad_bias) bias_gradient(g, ldg, s.out_order, a.rows, s.out, a.grad_bias);
  if (a.grad_weight) weight_gradient(g, ldg, Columns<const T>{a.x, a.ldx, s.in_order}, s, a.rows, a.grad_weight);
  if (a.grad_x) input_gradient(g, ldg, a.weight, s, a.rows, GradientOutput<T>{a.grad_x, s.in});
  scratch.trim();
}

FASTGEN_INSTANTIATE_KERNEL(masked_linear_forward, MaskedLinearForward)
FASTGEN_INSTANTIATE_KERNEL(masked_linear_backward, MaskedLinearBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
