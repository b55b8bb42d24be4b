#pragma once

#include <cstdint>

#include "cpu/strided.h"
#include "cuda/network.h"
#include "scale_map.h"

namespace fastgen::cuda {

// v solves v_i = w_i e^s_i + mu_i, or v_i = (w_i - mu_i) e^-s_i where `divide`, mu and s from the network of v.
template <class T>
struct AutoregressiveInverseForward {
  using Value = T;
  Network<T> network;
  int64_t units;  // in the state of a tile
  cpu::Strided<T> w;
  const T* context_terms;  // may be null
  int64_t ld_context;
  const T* log_det_in;  // may be null
  int64_t log_det_step;
  int64_t rows;
  bool divide;
  ScaleMap map;
  T* v;        // (rows, features)
  T* log_det;  // (rows)
};

// The gradients of the noise and of all sums at the solution, from what masked_mlp_forward made of v.
template <class T>
struct AutoregressiveInverseBackward {
  using Value = T;
  Network<T> network;
  int64_t units;
  cpu::Strided<T> grad_v;
  const T* grad_log_det;  // may be null, as grad_v.data: zero
  int64_t grad_log_det_step;
  cpu::Strided<T> w;
  const T* v;  // (rows, features)
  const T* y;  // (rows, outputs): what the network puts out at v
  int64_t rows;
  bool divide;
  ScaleMap map;
  T* grad_w;  // (rows, features)
};

// How rows are cut into tiles, and where the state of a tile lies.
struct Tiling {
  int rows;         // of a tile
  bool in_shared;   // the state in shared memory; else in global memory
  int64_t blocks;   // of threads
  int64_t scratch;  // values of global memory that the call needs
};

// For the current device.
Tiling tiling_of(const AutoregressiveInverseForward<float>& a);
Tiling tiling_of(const AutoregressiveInverseForward<double>& a);
Tiling tiling_of(const AutoregressiveInverseBackward<float>& a);
Tiling tiling_of(const AutoregressiveInverseBackward<double>& a);

// On a stream (a cudaStream_t) of the current device; at least one row. Throws std::runtime_error where a launch fails.
void run(const AutoregressiveInverseForward<float>& a, const Tiling& tiling, float* scratch, void* stream);
void run(const AutoregressiveInverseForward<double>& a, const Tiling& tiling, double* scratch, void* stream);
void run(const AutoregressiveInverseBackward<float>& a, const Tiling& tiling, float* scratch, void* stream);
void run(const AutoregressiveInverseBackward<double>& a, const Tiling& tiling, double* scratch, void* stream);

}  // namespace fastgen::cuda
