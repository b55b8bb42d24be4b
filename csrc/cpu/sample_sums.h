#pragma once

#include <cstdint>

#include "cpu/gaussian_rsample_kl.h"
#include "cpu/row_blocks.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// The gradients of one block, summed over samples: a few in T, runs of them in double; those of one sample where they are
// wanted.
template <class T>
class Sums {
 public:
  Sums(int n, int64_t samples, const PosteriorGradients<T>& grads, int64_t offset)
      : n_(n), samples_(samples), grads_{grads.mean, grads.log_var, grads.prior_mean, grads.prior_log_var} {
    for (int g = 0; g < 4; ++g) {
      if (grads_[g]) grads_[g] += offset;
      sum_[g] = samples == 1 && grads_[g] ? grads_[g] : part_[g];
    }
  }
  Sums(const Sums&) = delete;
  Sums& operator=(const Sums&) = delete;

  struct Four {
    T *mean, *log_var, *prior_mean, *prior_log_var;
  };
  // Of what begins there: to be set for the first sample, and then added to.
  Four from(int begin) { return {sum_[0] + begin, sum_[1] + begin, sum_[2] + begin, sum_[3] + begin}; }

  void clear(int begin, int n) {
    for (T* sum : sum_) fill(sum + begin, n, T(0));
  }

  // To be called before a sample's gradients are added.
  void before(int64_t sample) {
    if (sample == 0 || sample % kRun != 0) return;
    for (int g = 0; g < 4; ++g) {
      if (!grads_[g]) continue;
      if (sample == kRun) fill(total_[g], n_, 0.0);
      for (int i = 0; i < n_; ++i) total_[g][i] += double(part_[g][i]);
    }
    clear(0, n_);
  }

  void write() {
    for (int g = 0; g < 4; ++g) {
      if (samples_ == 1 || !grads_[g]) continue;
      if (samples_ > kRun)
        add(n_, total_[g], part_[g], grads_[g]);
      else
        copy(part_[g], 1, n_, grads_[g]);
    }
  }

 private:
  static constexpr int kRun = 16;

  static void add(int n, const double* __restrict total, const T* __restrict part, T* __restrict to) {
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(total[i] + double(part[i]));
  }

  int n_;
  int64_t samples_;
  T *grads_[4], *sum_[4];
  alignas(64) T part_[4][kBlock];
  double total_[4][kBlock];
};

}  // namespace
}  // namespace fastgen::cpu::FASTGEN_VARIANT
