#include "cpu/tile.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Sums longer than this are made of partial sums of this length, for accuracy.
constexpr int64_t kDepth = 512;

template <class T, int M, int V>
FASTGEN_INLINE void multiply_add(const T* a, int64_t row_step, int64_t k_step, const T* panel, int64_t depth,
                                 Vec<T> (&acc)[M][V]) {
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) b[v] = load(panel + v * kLanes<T>);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const T x = a[m * row_step];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[m][v] += x * b[v];
    }
    a += k_step;
    panel += V * kLanes<T>;
  }
}

template <class T, int M, int V>
FASTGEN_INLINE void clear(Vec<T> (&acc)[M][V]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[m][v] = Vec<T>{};
}

template <class T, int M, int V>
void multiply(const Tile<T>& t) {
  Vec<T> acc[M][V];
  clear<T, M, V>(acc);
  multiply_add<T, M, V>(t.a, t.row_step, t.k_step, t.panel, least(kDepth, t.depth), acc);
  if (t.depth > kDepth) {
    Vec<T> total[M][V];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) total[m][v] = acc[m][v];
    for (int64_t k = kDepth; k < t.depth; k += kDepth) {
      clear<T, M, V>(acc);
      multiply_add<T, M, V>(t.a + k * t.k_step, t.row_step, t.k_step, t.panel + k * V * kLanes<T>, least(kDepth, t.depth - k),
                            acc);
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) total[m][v] += acc[m][v];
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) acc[m][v] = total[m][v];
  }
  if (t.accumulate) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        T* const out = t.out + m * t.ld + v * kLanes<T>;
        store(out, load(out) + acc[m][v]);
      }
    return;
  }
  const Vec<T> floor = Vec<T>{} + t.floor;
  Vec<T> bias[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) bias[v] = t.bias ? load(t.bias + v * kLanes<T>) : Vec<T>{};
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Vec<T> sum = acc[m][v] + bias[v];
      store(t.out + m * t.ld + v * kLanes<T>, sum < floor ? floor : sum);  // a NaN compares false
    }
}

template <class T, int V, int M = kTileRowsOf<V>>
FASTGEN_INLINE void choose(int rows, const Tile<T>& t) {
  if (rows == M) return multiply<T, M, V>(t);
  if constexpr (M > 1) choose<T, V, M - 1>(rows, t);
}

template <class T, int V>
void multiply_tile(int rows, const Tile<T>& t) {
  choose<T, V>(rows, t);
}

template void multiply_tile<float, 1>(int, const Tile<float>&);
template void multiply_tile<float, 2>(int, const Tile<float>&);
template void multiply_tile<float, 4>(int, const Tile<float>&);
template void multiply_tile<double, 1>(int, const Tile<double>&);
template void multiply_tile<double, 2>(int, const Tile<double>&);
template void multiply_tile<double, 4>(int, const Tile<double>&);

}  // namespace fastgen::cpu::FASTGEN_VARIANT
