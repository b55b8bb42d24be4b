#pragma once

#include <cstdint>

#include "cpu/masked_mlp.h"
#include "cpu/strided.h"

namespace fastgen::cpu {

// A network to be solved feature by feature: each is a univariate map's value (conditionals.h) of its noise and of what the
// network puts out for it, which depends on the features before it.
template <class T>
struct AutoregressiveSystem {
  MaskedNetwork<T> network;
  Strided<T> noise;        // (rows, features x numbers)
  const T* context_terms;  // may be null
  int64_t ld_context;
  Strided<T> given;  // (rows, features): the solution's first `known` features in the order of degrees; null where none are
  int64_t known;
  int64_t rows;
  T* v;                 // (rows, features)
  const T* log_det_in;  // may be null
  int64_t log_det_step;
  T* log_det;  // (rows): where the univariate map has a log-derivative
};

}  // namespace fastgen::cpu
