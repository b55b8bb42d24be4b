#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

template <class T>
struct BernoulliForward {
  Strided<T> x, logits;
  int64_t rows, features;
  T* log_prob;
};

template <class T>
struct BernoulliBackward {
  const T* grad;
  int64_t grad_step;
  Strided<T> x, logits;
  int64_t rows, features;
  T* grad_x;  // each may be null: not wanted
  T* grad_logits;
};

template <class T>
struct DiscretizedLogisticForward {
  Strided<T> x, mean, log_scale;
  int64_t rows, features;
  T half;  // of the distance between two levels
  T* log_prob;
};

template <class T>
struct DiscretizedLogisticBackward {
  const T* grad;
  int64_t grad_step;
  Strided<T> x, mean, log_scale;
  int64_t rows, features;
  T half;
  T* grad_x;  // each may be null: not wanted
  T* grad_mean;
  T* grad_log_scale;
};

// Of rows x features positions, each with its logits.
template <class T>
struct CategoricalForward {
  const int64_t* x;
  int64_t x_step;
  Strided<T> logits;
  int64_t positions, categories;
  T* log_prob;  // by position; NaN where x is no category
};

template <class T>
struct CategoricalBackward {
  const T* grad;  // by row
  int64_t grad_step;
  const int64_t* x;
  int64_t x_step;
  Strided<T> logits;
  int64_t positions, categories, features;
  T* grad_logits;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(bernoulli_log_prob_forward, BernoulliForward)
FASTGEN_DECLARE_KERNEL(bernoulli_log_prob_backward, BernoulliBackward)
FASTGEN_DECLARE_KERNEL(discretized_logistic_log_prob_forward, DiscretizedLogisticForward)
FASTGEN_DECLARE_KERNEL(discretized_logistic_log_prob_backward, DiscretizedLogisticBackward)
FASTGEN_DECLARE_KERNEL(categorical_log_prob_forward, CategoricalForward)
FASTGEN_DECLARE_KERNEL(categorical_log_prob_backward, CategoricalBackward)
