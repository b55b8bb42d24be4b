#include "cpu/affine_autoregressive.h"

#include "cpu/affine_map.h"
#include "cpu/row_blocks.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
template <class T>
void affine_autoregressive_forward(const AffineAutoregressiveForward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    double totals[kBlock] = {};
    for_blocks(row, rows, a.features, [&](const Block& b) {
      const Flat<T> x(a.x, b), shift(a.shift, b), log_scale(a.log_scale, b);
      T s[kBlock];
      map_log_scale<T>(a.map, b.size(), log_scale, s);
      transform<T>(a.inverse, b.size(), x, shift, s, a.z + b.row * a.features + b.column);
      add_row_sums(s, b, totals);
    });
    for (int64_t r = row; r < row + rows; ++r) {
      const T total = static_cast<T>(a.inverse ? totals[r - row] : -totals[r - row]);
      a.log_det[r] = a.log_det_in ? a.log_det_in[r * a.log_det_step] + total : total;
    }
  });
}

template <class T>
void affine_autoregressive_backward(const AffineAutoregressiveBackward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    for_blocks(row, rows, a.features, [&](const Block& b) {
      const Flat<T> grad_z(a.grad_z, b), log_scale(a.log_scale, b);
      const int n = b.size();
      const int64_t offset = b.row * a.features + b.column;
      T s[kBlock], derivative[kBlock], unwanted[kBlock];
      map_log_scale<T>(a.map, n, log_scale, s, a.grad_log_scale ? derivative : nullptr);
      T* grad_x = a.grad_x ? a.grad_x + offset : unwanted;
      // Without a gradient of z its zeros must not meet an infinite scale.
      if (a.grad_z.data)
        pull_scale<T>(a.inverse, n, grad_z, s, grad_x);
      else
        fill(grad_x, n, T(0));
      if (a.grad_shift) pull_shift<T>(a.inverse, n, grad_z, grad_x, a.grad_shift + offset);
      if (a.grad_log_scale) {
        T* grad_s = a.grad_log_scale + offset;
        repeat(a.grad_log_det, a.grad_log_det_step, b, a.inverse ? T(1) : T(-1), grad_s);
        if (a.grad_z.data) {
          const Flat<T> x(a.x, b), shift(a.shift, b);
          add_pull_s<T>(a.inverse, n, grad_x, x, shift, grad_s);
        }
        multiply_by<T>(n, derivative, grad_s);
      }
    });
  });
}

FASTGEN_INSTANTIATE_KERNEL(affine_autoregressive_forward, AffineAutoregressiveForward)
FASTGEN_INSTANTIATE_KERNEL(affine_autoregressive_backward, AffineAutoregressiveBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
