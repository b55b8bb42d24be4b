#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"
#include "scale_map.h"

namespace fastgen::cpu {

template <class T>
struct AffineAutoregressiveForward {
  Strided<T> x, shift, log_scale;
  const T* log_det_in;  // may be null
  int64_t log_det_step;
  int64_t rows, features;
  bool inverse;
  ScaleMap map;
  T* z;
  T* log_det;
};

template <class T>
struct AffineAutoregressiveBackward {
  Strided<T> grad_z;      // null: nothing flows from z
  const T* grad_log_det;  // null: nothing flows from log_det
  int64_t grad_log_det_step;
  Strided<T> x, shift, log_scale;
  int64_t rows, features;
  bool inverse;
  ScaleMap map;
  T* grad_x;  // each may be null: not wanted
  T* grad_shift;
  T* grad_log_scale;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(affine_autoregressive_forward, AffineAutoregressiveForward)
FASTGEN_DECLARE_KERNEL(affine_autoregressive_backward, AffineAutoregressiveBackward)
