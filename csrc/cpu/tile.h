// The innermost product: a tile of rows times a packed panel, held in registers.
#pragma once

#include "cpu/simd.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

// out[m][:] = max(bias[:] + sum_k a[m * row_step + k * k_step] * panel[k][:], floor), m < rows <= kTileRows, a panel being
// kPanel wide; with `accumulate`, out[m][:] takes the place of the bias.
template <class T>
struct Tile {
  const T* a;
  int64_t row_step, k_step;
  const T* panel;
  int64_t depth;
  T* out;
  int64_t ld;
  const T* bias = nullptr;  // null: 0
  bool accumulate = false;
  T floor = -__builtin_huge_val();  // a NaN stays one
};

template <class T>
void multiply_tile(int rows, const Tile<T>& t);
extern template void multiply_tile<float>(int, const Tile<float>&);
extern template void multiply_tile<double>(int, const Tile<double>&);

}  // namespace fastgen::cpu::FASTGEN_VARIANT
