// Products of matrices of which one side is thin: nothing is packed, the operands lie in the first cache.
#pragma once

#include "cpu/simd.h"
#include "cpu/tile.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// out[m][:] = init[m][:] + sum_k a[m * row_step + k * k_step] * b[k * ldb + :]
template <class T>
struct ThinProduct {
  int64_t depth;
  const T* a;
  int64_t row_step, k_step;
  const T* b;
  int64_t ldb;
  const T* init;  // null: 0
  int64_t ld_init;
  T* out;  // may be init
  int64_t ld_out;
};

// Longer sums are made of partial sums, for accuracy: about as many as each has terms.
constexpr int64_t thin_depth(int64_t depth) { return depth <= 512 ? 16 : 64; }

template <class T, int M, int V>
FASTGEN_INLINE void multiply_thin_block(const ThinProduct<T>& p, int64_t m0, int64_t column) {
  constexpr int L = kLanes<T>;
  const T* init = p.init ? p.init + m0 * p.ld_init + column : nullptr;
  int64_t ld_init = p.ld_init;
  T* const out = p.out + m0 * p.ld_out + column;
  const int64_t part = thin_depth(p.depth);
  for (int64_t begin = 0; begin < p.depth; begin += part) {
    Vec<T> acc[M][V];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) acc[m][v] = Vec<T>{};
    const T* a = p.a + m0 * p.row_step + begin * p.k_step;
    const T* b = p.b + begin * p.ldb + column;
    const int64_t steps = least(part, p.depth - begin);
#pragma GCC unroll 1
    for (int64_t k = 0; k < steps; ++k) {
      Vec<T> x[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) x[v] = load(b + v * L);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[m][v] += a[m * p.row_step] * x[v];
      a += p.k_step;
      b += p.ldb;
    }
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        store(out + m * p.ld_out + v * L, init ? load(init + m * ld_init + v * L) + acc[m][v] : acc[m][v]);
    init = out;
    ld_init = p.ld_out;
  }
}

template <class T, int M>
void multiply_thin_rows(const ThinProduct<T>& p, int64_t m, int64_t columns) {
  constexpr int L = kLanes<T>;
  int64_t c = 0;
  for (; c + 2 * L <= columns; c += 2 * L) multiply_thin_block<T, M, 2>(p, m, c);
  if (c < columns) multiply_thin_block<T, M, 1>(p, m, c);
}

// `columns`: whole vectors.
template <class T>
void multiply_thin(int64_t rows, int64_t columns, const ThinProduct<T>& p) {
  int64_t m = 0;
  for (; m + kTileRows <= rows; m += kTileRows) multiply_thin_rows<T, kTileRows>(p, m, columns);
  for (; m + 4 <= rows; m += 4) multiply_thin_rows<T, 4>(p, m, columns);
  for (; m < rows; ++m) multiply_thin_rows<T, 1>(p, m, columns);
}

// to[c][r] = from[r][c]; both sizes whole vectors.
template <class T>
void transpose_thin(const T* from, int64_t ld_from, int64_t rows, int64_t columns, T* to, int64_t ld_to) {
  constexpr int L = kLanes<T>;
  for (int64_t r = 0; r < rows; r += L)
    for (int64_t c = 0; c < columns; c += L) {
      Vec<T> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load(from + (r + i) * ld_from + c);
      transpose<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(to + (c + i) * ld_to + r, square[i]);
    }
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
