#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"
#include "scale_map.h"

namespace fastgen::cpu {

template <class T>
struct GaussianLogProbForward {
  Strided<T> x, mean, log_scale;  // a null mean or log_scale is 0
  int64_t rows, features;
  ScaleMap map;
  T* log_prob;
};

template <class T>
struct GaussianLogProbBackward {
  const T* grad;
  int64_t grad_step;
  Strided<T> x, mean, log_scale;
  int64_t rows, features;
  ScaleMap map;
  T* grad_x;  // each may be null: not wanted
  T* grad_mean;
  T* grad_log_scale;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(gaussian_log_prob_forward, GaussianLogProbForward)
FASTGEN_DECLARE_KERNEL(gaussian_log_prob_backward, GaussianLogProbBackward)
