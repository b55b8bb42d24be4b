#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

// The parameters of `count` planar layers. Features lie one after the other; a `row` step of 0 means that all rows share them.
template <class T>
struct PlanarParameters {
  const T *u, *w, *b;
  int64_t u_row, u_layer, w_row, w_layer, b_row, b_layer;
  int64_t count;
  bool constrain;
};

template <class T>
struct PlanarForward {
  Strided<T> z;
  PlanarParameters<T> layers;
  int64_t rows, features;
  bool inverse;
  T* out;      // (rows, features)
  T* log_det;  // (rows,)
  T* saved;    // (count, rows): what tanh is taken of; may be null: not wanted
};

template <class T>
struct PlanarBackward {
  Strided<T> grad_out;    // null: nothing flows from it
  const T* grad_log_det;  // null: nothing flows from it
  int64_t grad_log_det_step;
  Strided<T> z;  // what the first layer reads: the inverse's output
  PlanarParameters<T> layers;
  const T* saved;
  int64_t rows, features;
  bool inverse;
  T* grad_in;  // each may be null: not wanted
  T* grad_u;   // with a leading axis of rows where parameters are not shared
  T* grad_w;
  T* grad_b;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(planar_shared_forward, PlanarForward)
FASTGEN_DECLARE_KERNEL(planar_shared_backward, PlanarBackward)
FASTGEN_DECLARE_KERNEL(planar_per_row_forward, PlanarForward)
FASTGEN_DECLARE_KERNEL(planar_per_row_backward, PlanarBackward)
