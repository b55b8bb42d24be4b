#include "cpu/masked_autoregressive.h"

#include "conditionals.h"
#include "cpu/affine_map.h"
#include "cpu/parameter_gradients.h"
#include "cpu/row_blocks.h"
#include "cpu/unit_major.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
int64_t features(const MaskedNetwork<T>& net) {
  return net.layers[0].stair.in;
}

// The total of a row: what its features gave, the constant, and what came in.
template <class T>
void finish_row(const MaskedAutoregressiveForward<T>& a, int64_t row, double sum) {
  if (!a.z) sum -= math::half_log_two_pi * static_cast<double>(features(a.pass.network));
  const T total = static_cast<T>(sum);
  a.total[row] = a.log_det_in ? a.log_det_in[row * a.log_det_step] + total : total;
}

// What ends a tile of rows of the network: neither shift nor log-scale leaves the first cache.
template <class T>
struct MapTile {
  const MaskedAutoregressiveForward<T>& a;

  // z takes the place of x.
  template <int V>
  void tile(int64_t first, int64_t rows, T* x, T* outputs) const {
    constexpr int R = kTile<T, V>;
    const Staircase& s = a.pass.network.layers[0].stair;
    const Affine<T> map{a.map, !a.divide};
    if (a.pass.y) {
      const Staircase& last = a.pass.network.layers[a.pass.network.count - 1].stair;
      store_tile<T, V>(outputs, first, rows, last.out, Columns<T>{a.pass.y, last.out, last.out_order});
    }
    double sums[R] = {};
    for (int64_t i = 0; i < s.in; ++i, outputs += map.outputs() * R) {
      T z[R], terms[R];
      map.template apply<R>(outputs, x + i * R, R, z, terms);
      if (a.z)
        for (int r = 0; r < R; ++r) x[i * R + r] = z[r];
      else
        for (int r = 0; r < R; ++r) terms[r] -= T(0.5) * z[r] * z[r];
      for (int r = 0; r < R; ++r) sums[r] += terms[r];
    }
    if (a.z) store_tile<T, V>(x, first, rows, s.in, Columns<T>{a.z, s.in, s.in_order});
    for (int64_t r = 0; r < rows; ++r) finish_row(a, first + r, sums[r]);
  }
};

// The outputs of a block of rows, as flat arrays.
template <class T>
struct Outputs {
  Outputs(const T* y, int64_t features, const Block& b)
      : shift(Strided<T>{y, 2 * features, 2}, b), raw(Strided<T>{y + 1, 2 * features, 2}, b) {}
  Flat<T> shift, raw;
};

template <class T>
void map_rows(const MaskedAutoregressiveForward<T>& a) {
  const int64_t columns = features(a.pass.network);
  for_row_groups(a.pass.rows, columns, [&](int64_t row, int rows) {
    double sums[kBlock] = {};
    for_blocks(row, rows, columns, [&](const Block& b) {
      const Flat<T> x(Strided<T>{a.pass.x, a.pass.ldx, 1}, b);
      const Outputs<T> y(a.pass.y, columns, b);
      const int n = b.size();
      T s[kBlock], own[kBlock];
      T* const z = a.z ? a.z + b.row * columns + b.column : own;
      map_log_scale<T>(a.map, n, y.raw, s);
      transform<T>(a.divide, n, x, y.shift, s, z);
      for (int i = 0; i < n; ++i) s[i] = (a.divide ? s[i] : -s[i]) - (a.z ? T(0) : T(0.5) * z[i] * z[i]);
      add_row_sums(s, b, sums);
    });
    for (int r = 0; r < rows; ++r) finish_row(a, row + r, sums[r]);
  });
}

// Layer by layer, the outputs going to `pass.y`.
template <class T>
void evaluate_rows(const MaskedAutoregressiveForward<T>& a) {
  FASTGEN_VARIANT::masked_mlp_forward(a.pass);
  map_rows(a);
}

template <class T>
void masked_autoregressive_forward(const MaskedAutoregressiveForward<T>& a) {
  static thread_local Scratch scratch;
  if (evaluate_unit_major(a.pass, MapTile<T>{a})) return;
  if (a.pass.saved) return evaluate_rows(a);
  MaskedAutoregressiveForward<T> by_rows = a;
  const int64_t rows = a.pass.rows, hidden = hidden_units(a.pass.network);
  by_rows.pass.saved = scratch.get<T>(rows * (hidden + 2 * features(a.pass.network)));
  by_rows.pass.y = by_rows.pass.saved + rows * hidden;
  evaluate_rows(by_rows);
  scratch.trim();
}

// The gradients of the network's outputs, into `grad`, and of x but for what reaches it through the network.
template <class T>
void map_gradient(const MaskedAutoregressiveBackward<T>& a, T* grad) {
  const int64_t columns = features(a.pass.network);
  const T sign = a.divide ? T(1) : T(-1);
  for_row_groups(a.pass.rows, columns, [&](int64_t row, int rows) {
    for_blocks(row, rows, columns, [&](const Block& b) {
      const Flat<T> x(Strided<T>{a.pass.x, a.pass.ldx, 1}, b);
      const Outputs<T> y(a.y, columns, b);
      const int n = b.size();
      T s[kBlock], derivative[kBlock], grad_z[kBlock], grad_s[kBlock], grad_shift[kBlock], unwanted[kBlock];
      T* const grad_x = a.pass.grad_x ? a.pass.grad_x + b.row * columns + b.column : unwanted;
      map_log_scale<T>(a.map, n, y.raw, s, derivative);
      repeat(a.grad_total, a.grad_total_step, b, sign, grad_s);
      if (a.log_prob) {
        transform<T>(a.divide, n, x, y.shift, s, grad_z);
        for (int i = 0; i < n; ++i) grad_z[i] *= -sign * grad_s[i];
      } else {
        const Flat<T> given(a.grad_z, b);
        for (int i = 0; i < n; ++i) grad_z[i] = given[i];
      }
      // Where nothing flows from z its zeros must not meet an infinite scale.
      if (a.log_prob || a.grad_z.data) {
        pull_scale<T>(a.divide, n, grad_z, s, grad_x);
        add_pull_s<T>(a.divide, n, grad_x, x, y.shift, grad_s);
      } else {
        fill(grad_x, n, T(0));
      }
      pull_shift<T>(a.divide, n, grad_z, grad_x, grad_shift);
      T* const to = grad + 2 * (b.row * columns + b.column);
      for (int i = 0; i < n; ++i) to[2 * i] = grad_shift[i], to[2 * i + 1] = grad_s[i] * derivative[i];
    });
  });
}

template <class T>
void masked_autoregressive_backward(const MaskedAutoregressiveBackward<T>& a) {
  static thread_local Scratch scratch;
  const int64_t outputs = 2 * features(a.pass.network);
  T* const grad = scratch.get<T>(a.pass.rows * outputs);
  map_gradient(a, grad);
  MaskedMlpBackward<T> pass = a.pass;
  pass.grad = grad;
  pass.ld_grad = outputs;
  pass.add_to_grad_x = true;
  FASTGEN_VARIANT::masked_mlp_backward(pass);
  scratch.trim();
}

FASTGEN_INSTANTIATE_KERNEL(masked_autoregressive_forward, MaskedAutoregressiveForward)
FASTGEN_INSTANTIATE_KERNEL(masked_autoregressive_backward, MaskedAutoregressiveBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
