#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

// The parameters of `count` radial layers. Features lie one after the other; a `row` step of 0 means that all rows share them.
template <class T>
struct RadialParameters {
  const T *centre, *log_alpha, *raw_beta;
  int64_t centre_row, centre_layer, alpha_row, alpha_layer, beta_row, beta_layer;
  int64_t count;
  bool shared;
};

template <class T>
struct RadialForward {
  Strided<T> z;
  RadialParameters<T> layers;
  int64_t rows, features;
  bool inverse;
  T* out;      // (rows, features)
  T* log_det;  // (rows,)
};

template <class T>
struct RadialBackward {
  Strided<T> grad_out;    // null: nothing flows from it
  const T* grad_log_det;  // null: nothing flows from it
  int64_t grad_log_det_step;
  Strided<T> z;
  RadialParameters<T> layers;
  int64_t rows, features;
  bool inverse;
  T* grad_in;      // each may be null: not wanted
  T* grad_centre;  // with a leading axis of rows where parameters are not shared
  T* grad_log_alpha;
  T* grad_raw_beta;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(radial_forward, RadialForward)
FASTGEN_DECLARE_KERNEL(radial_backward, RadialBackward)
