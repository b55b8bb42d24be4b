#include "cpu/tile.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Sums longer than this are made of partial sums of this length, for accuracy.
constexpr int64_t kDepth = 512;

template <class T, int M>
FASTGEN_INLINE void multiply_add(const T* a, int64_t row_step, int64_t k_step, const T* panel, int64_t depth,
                                 Vec<T> (&acc)[M][2]) {
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    const Vec<T> low = load(panel), high = load(panel + kLanes<T>);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const T x = a[m * row_step];
      acc[m][0] += x * low;
      acc[m][1] += x * high;
    }
    a += k_step;
    panel += kPanel<T>;
  }
}

template <class T, int M>
FASTGEN_INLINE void clear(Vec<T> (&acc)[M][2]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = Vec<T>{};
}

template <class T, int M>
void multiply(const Tile<T>& t) {
  Vec<T> acc[M][2];
  clear<T, M>(acc);
  multiply_add<T, M>(t.a, t.row_step, t.k_step, t.panel, least(kDepth, t.depth), acc);
  if (t.depth > kDepth) {
    Vec<T> total[M][2];
    for (int m = 0; m < M; ++m) total[m][0] = acc[m][0], total[m][1] = acc[m][1];
    for (int64_t k = kDepth; k < t.depth; k += kDepth) {
      clear<T, M>(acc);
      multiply_add<T, M>(t.a + k * t.k_step, t.row_step, t.k_step, t.panel + k * kPanel<T>, least(kDepth, t.depth - k), acc);
      for (int m = 0; m < M; ++m) total[m][0] += acc[m][0], total[m][1] += acc[m][1];
    }
    for (int m = 0; m < M; ++m) acc[m][0] = total[m][0], acc[m][1] = total[m][1];
  }
  const Vec<T> floor = Vec<T>{} + t.floor;
  const Vec<T> bias[2] = {t.bias ? load(t.bias) : Vec<T>{}, t.bias ? load(t.bias + kLanes<T>) : Vec<T>{}};
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      T* const out = t.out + m * t.ld + v * kLanes<T>;
      const Vec<T> sum = acc[m][v] + (t.accumulate ? load(out) : bias[v]);
      store(out, sum < floor ? floor : sum);  // a NaN compares false
    }
}

template <class T, int M = kTileRows>
FASTGEN_INLINE void choose(int rows, const Tile<T>& t) {
  if (rows == M) return multiply<T, M>(t);
  if constexpr (M > 1) choose<T, M - 1>(rows, t);
}

template <class T>
void multiply_tile(int rows, const Tile<T>& t) {
  choose<T>(rows, t);
}

template void multiply_tile<float>(int, const Tile<float>&);
template void multiply_tile<double>(int, const Tile<double>&);

}  // namespace fastgen::cpu::FASTGEN_VARIANT
