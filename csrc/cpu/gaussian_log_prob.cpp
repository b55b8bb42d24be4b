#include "cpu/gaussian_log_prob.h"

#include "cpu/row_blocks.h"
#include "elementary.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// A block's log-scale s, w = e^-s and, where `derivative` is not null, ds/dlog_scale. Without log_scale s is 0.
template <class T>
void read_scale(const Strided<T>& log_scale, const ScaleMap& map, const Block& b, T* __restrict s, T* __restrict w,
                T* derivative) {
  if (!log_scale.data) {
    fill(s, b.size(), T(0));
    fill(w, b.size(), T(1));
    return;
  }
  const Flat<T> raw(log_scale, b);
  map_log_scale<T>(map, b.size(), raw, s, derivative);
  for (int i = 0; i < b.size(); ++i) w[i] = math::exp(-s[i]);
}

template <class T>
void standardise(int n, const T* __restrict x, const T* __restrict mean, const T* __restrict w, T* __restrict z) {
  for (int i = 0; i < n; ++i) z[i] = (x[i] - mean[i]) * w[i];
}

// z^2 / 2 + s in place of s: what each element takes from the log-density, but for the constant.
template <class T>
void negative_log_density(int n, const T* __restrict x, const T* __restrict mean, const T* __restrict w, T* __restrict s) {
  for (int i = 0; i < n; ++i) {
    const T z = (x[i] - mean[i]) * w[i];
    s[i] += T(0.5) * z * z;
  }
}

}  // namespace

template <class T>
void gaussian_log_prob_forward(const GaussianLogProbForward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    double totals[kBlock] = {};
    for_blocks(row, rows, a.features, [&](const Block& b) {
      const Flat<T> x(a.x, b), mean(a.mean, b);
      T s[kBlock], w[kBlock];
      read_scale<T>(a.log_scale, a.map, b, s, w, nullptr);
      negative_log_density<T>(b.size(), x, mean, w, s);
      add_row_sums(s, b, totals);
    });
    for (int r = 0; r < rows; ++r)
      a.log_prob[row + r] = static_cast<T>(-totals[r] - math::half_log_two_pi * static_cast<double>(a.features));
  });
}

template <class T>
void gaussian_log_prob_backward(const GaussianLogProbBackward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    for_blocks(row, rows, a.features, [&](const Block& b) {
      const Flat<T> x(a.x, b), mean(a.mean, b);
      T s[kBlock], derivative[kBlock], w[kBlock], z[kBlock], grad[kBlock];
      const int n = b.size();
      const int64_t offset = b.row * a.features + b.column;
      read_scale(a.log_scale, a.map, b, s, w, a.grad_log_scale ? derivative : nullptr);
      standardise<T>(n, x, mean, w, z);
      repeat(a.grad, a.grad_step, b, T(1), grad);
      if (a.grad_x) {
        T* __restrict grad_x = a.grad_x + offset;
        for (int i = 0; i < n; ++i) grad_x[i] = -grad[i] * z[i] * w[i];
      }
      if (a.grad_mean) {
        T* __restrict grad_mean = a.grad_mean + offset;
        for (int i = 0; i < n; ++i) grad_mean[i] = grad[i] * z[i] * w[i];
      }
      if (a.grad_log_scale) {
        T* __restrict grad_log_scale = a.grad_log_scale + offset;
        for (int i = 0; i < n; ++i) grad_log_scale[i] = grad[i] * (z[i] * z[i] - T(1)) * derivative[i];
      }
    });
  });
}

FASTGEN_INSTANTIATE_KERNEL(gaussian_log_prob_forward, GaussianLogProbForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_log_prob_backward, GaussianLogProbBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
