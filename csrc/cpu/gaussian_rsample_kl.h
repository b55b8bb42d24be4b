#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

// What samples are drawn from, and how many: z has `samples` x `rows` x `features` elements.
template <class T>
struct GaussianSamples {
  Strided<T> mean, log_var, prior_mean, prior_log_var;  // a null prior is the standard normal
  int64_t samples, rows, features;
  int64_t seed;
};

// A gradient that comes in for z; null: none does.
template <class T>
struct SampleGradient {
  Strided<T> first;  // of the first sample
  int64_t step = 0;  // from one sample to the next
};

template <class T>
struct PosteriorGradients {
  T* mean;  // each may be null: not wanted
  T* log_var;
  T* prior_mean;
  T* prior_log_var;
};

template <class T>
struct GaussianRsampleKlForward {
  GaussianSamples<T> from;
  T free_bits;
  T* z;
  T* kl;
};

template <class T>
struct GaussianRsampleKlBackward {
  GaussianSamples<T> from;
  T free_bits;
  SampleGradient<T> grad_z;
  const T* grad_kl;  // null: nothing flows from kl
  int64_t grad_kl_step;
  PosteriorGradients<T> grads;
};

template <class T>
struct GaussianRsampleLogRatioForward {
  GaussianSamples<T> from;
  T* z;
  T* log_ratio;  // samples x rows
};

template <class T>
struct GaussianRsampleLogRatioBackward {
  GaussianSamples<T> from;
  SampleGradient<T> grad_z;
  Strided<T> grad_log_ratio;  // samples x rows; null: nothing flows from it
  PosteriorGradients<T> grads;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(gaussian_rsample_kl_forward, GaussianRsampleKlForward)
FASTGEN_DECLARE_KERNEL(gaussian_rsample_kl_backward, GaussianRsampleKlBackward)
FASTGEN_DECLARE_KERNEL(gaussian_rsample_log_ratio_forward, GaussianRsampleLogRatioForward)
FASTGEN_DECLARE_KERNEL(gaussian_rsample_log_ratio_backward, GaussianRsampleLogRatioBackward)
