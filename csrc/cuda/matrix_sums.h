// What a lane has of a tile's sums where tensor cores make them: rows times units, eight steps at a time.
#pragma once

#include "cuda/tile_sums.h"
#include "cuda/weights.h"

namespace fastgen::cuda {

// The fragments are those of mma.m16n8k8: a lane has step lane % 4 and the one 4 after it, of row lane / 4 of every eight rows
// and of unit lane / 4; of the sums, of the same row, units 2 (lane % 4) and the one after it.
template <int R>
class MatrixSums {
  static constexpr int kGroups = R / 8;
  // The product is of two groups of eight rows; where there is but one, the other is zeros.
  static constexpr int kHeld = kGroups > 1 ? kGroups : 2;

 public:
  static constexpr int kRows = R, kCount = 2 * kGroups;
  float at[2 * kHeld] = {};

  FASTGEN_DEVICE static int unit(int lane, int i) { return lane % 4 * 2 + i % 2; }
  FASTGEN_DEVICE static int row(int lane, int i) { return i / 2 * 8 + lane / 4; }

  // Adds the products of n staged steps, of which those from n on are zeros, with the inputs of these steps.
  template <class Block>
  FASTGEN_DEVICE void add(Block& block, int lane, const float* stage, const float* x, int n) {
    const float* const weights = stage + lane / 4 * kStageStep + lane % 4;
    if (n == kTileSteps) {
      FASTGEN_UNROLL
      for (int k = 0; k < kTileSteps; k += 8) add_steps(block, lane, weights + k, x + k * R, 8);
    } else {
      FASTGEN_ONE_BY_ONE
      for (int k = 0; k < n; k += 8) add_steps(block, lane, weights + k, x + k * R, n - k);
    }
  }

 private:
  template <class Block>
  FASTGEN_DEVICE void add_steps(Block& block, int lane, const float* weights, const float* x, int n) {
    const int step = lane % 4;
    const float own[2] = {to_tf32(weights[0]), to_tf32(weights[4])};
    float first[kHeld] = {}, second[kHeld] = {};
    if (n >= 8 || step < n) load(lane, x + step * R, first);
    if (n >= 8 || step + 4 < n) load(lane, x + (step + 4) * R, second);
    FASTGEN_UNROLL
    for (int g = 0; g < kHeld; g += 2) {
      const float rows[4] = {first[g], first[g + 1], second[g], second[g + 1]};
      block.multiply_add(at + 2 * g, rows, own);
    }
  }

  // This lane's row of every eight. Four steps lie 4 R apart, in the same banks where R is 32: lanes of different steps begin
  // with different groups.
  FASTGEN_DEVICE static void load(int lane, const float* x, float* to) {
    const int turn = lane % 4 * R / 32;
    FASTGEN_UNROLL
    for (int i = 0; i < kGroups; ++i) to[i] = to_tf32(x[(i + turn) % kGroups * 8 + lane / 4]);
    FASTGEN_UNROLL
    for (int by = 1; by < kGroups; by *= 2) {
      float turned[kGroups];
      FASTGEN_UNROLL
      for (int g = 0; g < kGroups; ++g) turned[g] = turn & by ? to[(g + kGroups - by) % kGroups] : to[g];
      FASTGEN_UNROLL
      for (int g = 0; g < kGroups; ++g) to[g] = turned[g];
    }
  }
};

// The sums of products with weights of W in memory.
template <class T, class W, int R>
using SumsOf = std::conditional_t<kOnTensorCores<W>, MatrixSums<R>, TileSums<T, R>>;

}  // namespace fastgen::cuda
