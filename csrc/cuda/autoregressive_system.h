#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cuda/network.h"
#include "cuda/weights.h"

namespace fastgen::cuda {

// A network to be solved feature by feature: each is a univariate map's value (conditionals.h) of its noise and of what the
// network puts out for it, which depends on the features before it.
template <class T, class W>
struct AutoregressiveSystem {
  using Value = T;
  using Weight = W;
  Network<T, W> network;
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

// For the current device.
template <class Call>
Tiling tiling_of(const Call& a);

// On a stream (a cudaStream_t) of the current device; at least one row. Throws std::runtime_error where a launch fails.
template <class Call>
void run(const Call& a, const Tiling& tiling, typename Call::Value* scratch, void* stream);

#define FASTGEN_INSTANTIATE_CALL(...)                 \
  template Tiling tiling_of(const __VA_ARGS__& call); \
  template void run(const __VA_ARGS__& call, const Tiling& tiling, __VA_ARGS__::Value* scratch, void* stream);

// With every type of value and of weights.
#define FASTGEN_INSTANTIATE_CALLS(Call)           \
  FASTGEN_INSTANTIATE_CALL(Call<float>)           \
  FASTGEN_INSTANTIATE_CALL(Call<float, Tf32>)     \
  FASTGEN_INSTANTIATE_CALL(Call<float, Bfloat16>) \
  FASTGEN_INSTANTIATE_CALL(Call<double>)

}  // namespace fastgen::cuda
