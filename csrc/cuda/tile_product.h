// One warp's product of a tile of weights with the state of R rows. The weights come in coalesced pieces through a stage in
// shared memory that is the warp's own; the next piece is on its way while one is multiplied.
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

// What a lane has of a tile's sums: rows side by side, which are read at once, for units side by side.
template <int R>
constexpr int kLaneRows = R > 8 ? 4 : 2;
template <int R>
constexpr int kLaneUnits = kTileUnits * R / kWarp / kLaneRows<R>;

template <class T, int N>
struct alignas(N * sizeof(T)) Vec {
  T at[N];
};

template <class T, int N>
FASTGEN_DEVICE Vec<T, N> load(const T* from) {
  return *reinterpret_cast<const Vec<T, N>*>(from);
}

template <class T, int R>
struct TileSums {
  T at[kLaneUnits<R>][kLaneRows<R>] = {};

  // This lane's first row and unit.
  FASTGEN_DEVICE static int row(int lane) { return lane * kLaneRows<R> % R; }
  FASTGEN_DEVICE static int unit(int lane) { return lane * kLaneRows<R> / R * kLaneUnits<R>; }
};

// The weights of units [begin, end), at most kTileUnits, over the inputs they see.
template <class T>
class UnitTile {
 public:
  FASTGEN_DEVICE UnitTile(const Layer<T>& layer, int begin, int end, int lane) : layer_(layer), lane_(lane) {
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
  const Layer<T>& layer_;
  const int lane_;
  int limit_;
  const T* rows_[kTileUnits];
  int seen_[kTileUnits];
};

// The weights of inputs [begin, end), at most kTileUnits, over the units that see them.
template <class T>
class InputTile {
 public:
  FASTGEN_DEVICE InputTile(const Layer<T>& layer, int begin, int end, int lane) : layer_(layer), lane_(lane) {
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

  const Layer<T>& layer_;
  const int lane_;
  int seen_by_, start_;
  const T* weight_;
};

template <int N, class T, int R>
FASTGEN_DEVICE void add_steps(const T* weights, const T* x, TileSums<T, R>& sums) {
  Vec<T, kLaneRows<R>> in[N];
  FASTGEN_UNROLL
  for (int j = 0; j < N; ++j) in[j] = load<T, kLaneRows<R>>(x + j * R);
  FASTGEN_UNROLL
  for (int m = 0; m < kLaneUnits<R>; ++m) {
    const Vec<T, N> w = load<T, N>(weights + m * kStageStep);
    FASTGEN_UNROLL
    for (int j = 0; j < N; ++j) {
      FASTGEN_UNROLL
      for (int r = 0; r < kLaneRows<R>; ++r) sums.at[m][r] += w.at[j] * in[j].at[r];
    }
  }
}

// Adds sum_k W[m][k] in[k][row], k in [from, to), for this lane's rows and units. All lanes of the warp call it.
template <class Block, class T, int R, class Tile>
FASTGEN_DEVICE void multiply(Block& block, const Tile& tile, const T* in, int from, int to, T* stage, TileSums<T, R>& sums) {
  if (from >= to) return;
  const int lane = block.thread() % kWarp;
  const T* const weights = stage + sums.unit(lane) * kStageStep;
  T next[kPieces];
  tile.load(next, from, to);
  for (int k = from; k < to; k += kTileSteps) {
    block.sync_warp();  // the piece before has been read
    FASTGEN_UNROLL
    for (int i = 0; i < kPieces; ++i) stage[tile.slot(i)] = next[i];
    block.sync_warp();
    tile.load(next, k + kTileSteps, to);
    const T* const x = in + k * R + sums.row(lane);
    const int n = to - k < kTileSteps ? to - k : kTileSteps;
    int s = 0;
    for (; s + 4 <= n; s += 4) add_steps<4>(weights + s, x + s * R, sums);
    for (; s < n; ++s) add_steps<1>(weights + s, x + s * R, sums);
  }
}

}  // namespace fastgen::cuda
