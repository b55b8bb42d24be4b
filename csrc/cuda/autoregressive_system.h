#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cuda/network.h"

namespace fastgen::cuda {

// A network to be solved feature by feature: each is a univariate map's value (conditionals.h) of its noise and of what the
// network puts out for it, which depends on the features before it.
template <class T>
struct AutoregressiveSystem {
  using Value = T;
  Network<T> network;
  int64_t units;           // in the state of a tile
  cpu::Strided<T> noise;   // (rows, features x numbers)
  const T* context_terms;  // may be null
  int64_t ld_context;
  cpu::Strided<T> given;  // (rows, features): the solution's first features in the order of degrees; null where none are
  int64_t rows;
  T* v;  // (rows, features)
};

// How rows are cut into tiles, and where the state of a tile lies.
struct Tiling {
  int rows;         // of a tile
  bool in_shared;   // the state in shared memory; else in global memory
  int64_t blocks;   // of threads
  int64_t scratch;  // values of global memory that the call needs
};

}  // namespace fastgen::cuda
