// The measures of a tile of a product, and what a lane has of its sums.
#pragma once

#include "cuda/network.h"

namespace fastgen::cuda {

// Units of a tile, and the steps of its sums that are staged at once.
constexpr int kTileUnits = 8;
constexpr int kTileSteps = 32;
// From one unit's staged weights to the next one's: padded, so that eight of them lie in different banks.
constexpr int kStageStep = kTileSteps + 4;
constexpr int kStageSize = kTileUnits * kStageStep;
constexpr int kPieces = kTileUnits * kTileSteps / kWarp;

template <class T, int N>
struct alignas(N * sizeof(T)) Vec {
  T at[N];
};

template <class T, int N>
FASTGEN_DEVICE Vec<T, N> load(const T* from) {
  return *reinterpret_cast<const Vec<T, N>*>(from);
}

// Rows side by side, which are read at once, for units side by side.
template <class T, int R>
class TileSums {
  static constexpr int kLaneRows = R > 8 ? 4 : 2;
  static constexpr int kLaneUnits = kTileUnits * R / kWarp / kLaneRows;

 public:
  static constexpr int kRows = R, kCount = kLaneUnits * kLaneRows;
  T at[kCount] = {};

  FASTGEN_DEVICE static int unit(int lane, int i) { return lane * kLaneRows / R * kLaneUnits + i / kLaneRows; }
  FASTGEN_DEVICE static int row(int lane, int i) { return lane * kLaneRows % R + i % kLaneRows; }

  // Adds the products of n staged steps with the inputs of these steps.
  template <class Block>
  FASTGEN_DEVICE void add(Block&, int lane, const T* stage, const T* x, int n) {
    const T* const weights = stage + unit(lane, 0) * kStageStep;
    x += row(lane, 0);
    int k = 0;
    for (; k + 4 <= n; k += 4) add_steps<4>(weights + k, x + k * R);
    for (; k < n; ++k) add_steps<1>(weights + k, x + k * R);
  }

 private:
  template <int N>
  FASTGEN_DEVICE void add_steps(const T* weights, const T* x) {
    Vec<T, kLaneRows> in[N];
    FASTGEN_UNROLL
    for (int j = 0; j < N; ++j) in[j] = load<T, kLaneRows>(x + j * R);
    FASTGEN_UNROLL
    for (int m = 0; m < kLaneUnits; ++m) {
      const Vec<T, N> w = load<T, N>(weights + m * kStageStep);
      FASTGEN_UNROLL
      for (int j = 0; j < N; ++j) {
        FASTGEN_UNROLL
        for (int r = 0; r < kLaneRows; ++r) at[m * kLaneRows + r] += w.at[j] * in[j].at[r];
      }
    }
  }
};

}  // namespace fastgen::cuda
