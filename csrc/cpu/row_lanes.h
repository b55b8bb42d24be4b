// Tiles of rows that layers pass over one after the other: features along the lanes for what is as long as a row, rows along
// the lanes for what is one number per row.
#pragma once

#include <omp.h>

#include "cpu/row_tile.h"
#include "cpu/scratch.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

constexpr int kLaneRows = 32;
// Elements of all layers that a thread must have to be worth waking.
constexpr int64_t kLaneGrain = 1 << 15;

inline int lane_threads(int64_t rows, int64_t row_work) {
  const int64_t tiles = (rows + kLaneRows - 1) / kLaneRows, available = least<int64_t>(tiles, omp_get_max_threads());
  return static_cast<int>(available < 1 ? 1 : least(1 + rows * row_work / kLaneGrain, available));
}

// Calls f(first row, rows, room) for all tiles, each thread with `size` values of its own.
template <class T, class F>
void for_tiles(int64_t rows, int64_t row_work, Scratch& scratch, int64_t size, const F& f) {
  const int threads = lane_threads(rows, row_work);
  T* const rooms = scratch.get<T>(threads * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    T* const own = rooms + omp_get_thread_num() * size;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row += kLaneRows) f(row, least<int64_t>(kLaneRows, rows - row), own);
  }
  scratch.trim();
}

// A vector of features, or the last ones of a row with zeros beyond.
template <class T>
struct Whole {
  FASTGEN_INLINE Vec<T> get(const T* p) const { return load(p); }
  FASTGEN_INLINE void put(T* p, Vec<T> v) const { store(p, v); }
};

template <class T>
struct Part {
  int64_t n;
  FASTGEN_INLINE Vec<T> get(const T* p) const {
    T all[kLanes<T>] = {};
    for (int64_t i = 0; i < n; ++i) all[i] = p[i];
    return load(all);
  }
  FASTGEN_INLINE void put(T* p, Vec<T> v) const {
    T all[kLanes<T>];
    store(all, v);
    for (int64_t i = 0; i < n; ++i) p[i] = all[i];
  }
};

// Calls f(access, feature) for the vectors of a row.
template <class T, class F>
FASTGEN_INLINE void for_features(int64_t features, const F& f) {
  int64_t d = 0;
  for (; d + kLanes<T> <= features; d += kLanes<T>) f(Whole<T>{}, d);
  if (d < features) f(Part<T>{features - d}, d);
}

// sums[n][r] of the N vectors that f(access, row, feature, vectors) adds to.
template <int N, class T, class F>
FASTGEN_INLINE void lane_sums(int64_t rows, int64_t features, T (&sums)[N][kLaneRows], const F& f) {
  constexpr int L = kLanes<T>;
  T parts[N][kLaneRows][L];
  for (int64_t r = 0; r < kLaneRows; ++r) {
    Vec<T> acc[N] = {};
    if (r < rows) for_features<T>(features, [&](auto access, int64_t d) { f(access, r, d, acc); });
    for (int n = 0; n < N; ++n) store(parts[n][r], acc[n]);
  }
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < kLaneRows; r += L) {
      Vec<T> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load(parts[n][r + i]);
      transpose<T>(square);
#pragma GCC unroll 4
      for (int half = L / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) square[i] += square[i + half];
      store(sums[n] + r, square[0]);
    }
}

// Rows in whole vectors that may be written to.
template <class T>
void copy_tile(const Strided<T>& m, int64_t row, int64_t rows, int64_t features, T* to) {
  const int64_t width = padded<T>(features);
  const RowTile<T> tile = read_tile(m, row, rows, kLaneRows, features, to);
  if (tile.data == to) return;
  for (int64_t r = 0; r < kLaneRows; ++r)
    for (int64_t d = 0; d < width; ++d) to[r * width + d] = tile.data[r * tile.ld + d];
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
