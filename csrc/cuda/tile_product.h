// One warp's product of a tile of weights with the state of R rows. The weights come in coalesced pieces through a stage in
// shared memory that is the warp's own; the next piece is on its way while one is multiplied.
#pragma once

#include "cuda/matrix_sums.h"

namespace fastgen::cuda {

// The weights of units [begin, end), at most kTileUnits, over the inputs they see.
template <class T, class W>
class UnitTile {
 public:
  FASTGEN_DEVICE UnitTile(const Layer<T, W>& layer, int begin, int end, int lane) : layer_(layer), lane_(lane) {
    FASTGEN_UNROLL
    for (int j = 0; j < kTileUnits; ++j) {
      const int u = begin + j < end ? begin + j : end - 1;
      rows_[j] = layer.weight + int64_t(layer.unit(u)) * layer.in;
      seen_[j] = begin + j < end ? read(layer.prefix + u) : 0;
    }
    limit_ = read(layer.prefix + end - 1);
  }

  // No unit sees more.
  FASTGEN_DEVICE int limit() const { return limit_; }

  FASTGEN_DEVICE void load(T (&next)[kPieces], int from, int to) const {
    const int k = from + lane_;
    const int column = k < to ? layer_.input(k) : 0;
    FASTGEN_UNROLL
    for (int j = 0; j < kPieces; ++j) next[j] = k < to && k < seen_[j] ? read(rows_[j] + column) : T(0);
  }

  FASTGEN_DEVICE int slot(int piece) const { return piece * kStageStep + lane_; }

 private:
  static_assert(kPieces == kTileUnits && kTileSteps == kWarp);
  const Layer<T, W>& layer_;
  const int lane_;
  int limit_;
  const W* rows_[kTileUnits];
  int seen_[kTileUnits];
};

// The weights of inputs [begin, end), at most kTileUnits, over the units that see them.
template <class T, class W>
class InputTile {
 public:
  FASTGEN_DEVICE InputTile(const Layer<T, W>& layer, int begin, int end, int lane) : layer_(layer), lane_(lane) {
    const int own = begin + lane % kTileUnits;
    seen_by_ = own < end ? read(layer.suffix + own) : layer.out;
    weight_ = layer.weight + (own < end ? layer.input(own) : 0);
    start_ = read(layer.suffix + begin);
  }

  // No unit before it sees any of them.
  FASTGEN_DEVICE int start() const { return start_; }

  FASTGEN_DEVICE void load(T (&next)[kPieces], int from, int to) const {
    FASTGEN_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int u = from + step(i);
      next[i] = u < to && u >= seen_by_ ? read(weight_ + int64_t(layer_.unit(u)) * layer_.in) : T(0);
    }
  }

  FASTGEN_DEVICE int slot(int piece) const { return lane_ % kTileUnits * kStageStep + step(piece); }

 private:
  FASTGEN_DEVICE int step(int piece) const { return piece * (kWarp / kTileUnits) + lane_ / kTileUnits; }

  const Layer<T, W>& layer_;
  const int lane_;
  int seen_by_, start_;
  const W* weight_;
};

// Adds sum_k W[m][k] in[k][row], k in [from, to), for this lane's rows and units. All lanes of the warp call it.
template <class Block, class T, class Tile, class Sums>
FASTGEN_DEVICE void multiply(Block& block, const Tile& tile, const T* in, int from, int to, T* stage, Sums& sums) {
  if (from >= to) return;
  const int lane = block.thread() % kWarp;
  T next[kPieces];
  tile.load(next, from, to);
  for (int k = from; k < to; k += kTileSteps) {
    block.sync_warp();  // the piece before has been read
    FASTGEN_UNROLL
    for (int i = 0; i < kPieces; ++i) stage[tile.slot(i)] = next[i];
    block.sync_warp();
    tile.load(next, k + kTileSteps, to);
    sums.add(block, lane, stage, in + k * Sums::kRows, to - k < kTileSteps ? to - k : kTileSteps);
  }
}

}  // namespace fastgen::cuda
