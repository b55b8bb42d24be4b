// Tiles of rows in whole vectors.
#pragma once

#include "cpu/simd.h"
#include "cpu/strided.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// A whole number of vectors.
template <class T>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Rows of features: in place where vectors can be loaded from them, else a copy in whole vectors, zeros beyond.
template <class T>
struct RowTile {
  const T* data;
  int64_t ld;
};

template <class T>
RowTile<T> read_tile(const Strided<T>& m, int64_t row, int64_t rows, int64_t tile, int64_t features, T* copy) {
  const int64_t width = padded<T>(features);
  const T* from = m.data + row * m.row;
  if (m.data && rows == tile && (m.column == 1 || features == 1) && width == features) return {from, m.row};
  for (int64_t r = 0; r < tile; ++r) {
    const int64_t n = m.data && r < rows ? features : 0;
    T* const to = copy + r * width;
    if (m.column == 1)
      for (int64_t d = 0; d < n; ++d) to[d] = from[r * m.row + d];
    else
      for (int64_t d = 0; d < n; ++d) to[d] = from[r * m.row + d * m.column];
    for (int64_t d = n; d < width; ++d) to[d] = T(0);
  }
  return {copy, width};
}

template <class T>
void write_tile(const T* from, int64_t rows, int64_t features, T* to) {
  const int64_t width = padded<T>(features);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < features; ++d) to[r * features + d] = from[r * width + d];
}

template <class T>
void clear(T* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = T(0);
}

// Adds `from` to `to` and clears it.
template <class T>
void move_sums(T* __restrict from, int64_t n, T* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i], from[i] = T(0);
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
