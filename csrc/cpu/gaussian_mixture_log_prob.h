#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

template <class T>
struct GaussianMixture {
  Strided<T> x;                  // rows x features
  Strided<T> log_weights;        // rows x components
  Strided<T> means, log_scales;  // components x features
  bool own_weights;              // of each row, and not one vector for all
  int64_t rows, components, features;
};

template <class T>
struct GaussianMixtureLogProbForward {
  GaussianMixture<T> mixture;
  T* log_prob;
  T* remainder;  // what log_prob lost when it was rounded
};

template <class T>
struct GaussianMixtureLogProbBackward {
  GaussianMixture<T> mixture;
  const T* grad;
  int64_t grad_step;
  const T* log_prob;
  const T* remainder;
  T* grad_x;            // each may be null: not wanted
  T* grad_log_weights;  // components, or rows x components where each row has its own
  T* grad_means;
  T* grad_log_scales;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(gaussian_mixture_log_prob_forward, GaussianMixtureLogProbForward)
FASTGEN_DECLARE_KERNEL(gaussian_mixture_log_prob_backward, GaussianMixtureLogProbBackward)
