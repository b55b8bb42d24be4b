// The innermost product: a tile of rows times a packed panel, held in registers.
#pragma once

#include "cpu/simd.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;
// How many vectors of sums the registers hold beside their operands.
#if defined(__AVX512F__)
constexpr int kSums = 24;
#else
constexpr int kSums = 12;
#endif
// The rows of a tile V vectors wide.
template <int V>
constexpr int kTileRowsOf = kSums / V < 12 ? kSums / V : 12;
constexpr int kTileRows = kTileRowsOf<2>;

// out[m][:] = max(bias[:] + sum_k a[m * row_step + k * k_step] * panel[k][:], floor), m < rows <= kTileRowsOf<V>, a panel
// being V vectors wide; with `accumulate` the sum is added to out[m][:], without a bias or a floor.
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

template <class T, int V = 2>
void multiply_tile(int rows, const Tile<T>& t);

}  // namespace fastgen::cpu::FASTGEN_VARIANT
