#pragma once

#include <cstdint>

#include "activation.h"
#include "cpu/staircase.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

template <class T>
struct MaskedLinearForward {
  const T* x;
  int64_t ldx;
  const T* weight;
  const T* bias;  // may be null
  Staircase stair;
  int64_t rows;
  Activation activation;
  T* y;
};

template <class T>
struct MaskedLinearBackward {
  const T* grad;
  int64_t ld_grad;
  const T* x;
  int64_t ldx;
  const T* weight;
  const T* y;  // the forward result, which the activation's derivative is taken from
  Staircase stair;
  int64_t rows;
  Activation activation;
  T* grad_x;  // each may be null: not wanted
  T* grad_weight;
  T* grad_bias;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(masked_linear_forward, MaskedLinearForward)
FASTGEN_DECLARE_KERNEL(masked_linear_backward, MaskedLinearBackward)
