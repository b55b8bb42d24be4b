// What the walk of a tile of rows is made of, forward and backward: products of blocks of weights with the state of the tile,
// made by single warps, and the small triangle of weights inside a block of features, which stays in shared memory.
//
// The state is unit-major: R rows side by side for every unit.
#pragma once

#include "cuda/network.h"
#include "cuda/tile_product.h"

namespace fastgen::cuda {

// The triangle of one layer inside a block of features.
struct Link {
  int at;          // where it begins among the staged weights
  int step;        // from one unit's weights to the next one's
  int unit, seen;  // the first output of the layer, and the first input, inside the block
  int units, inputs;
  int values_at;  // backward: where the staged values of the layer's units begin
};

// Weights that the staged triangle of a block has room for, and units whose values are staged; a block with more is walked by
// all threads together, from global memory.
constexpr int kTriangle = 7168;
constexpr int kStagedUnits = 160;

// Four weights are read at once: rows a multiple of four apart, and an odd one, so that eight of them lie in different banks.
FASTGEN_DEVICE int padded(int n) {
  const int fours = (n + 3) / 4;
  return 4 * (fours | 1);
}

// Call: what is computed; its univariate map's outputs and columns count here.
template <class Block, int R, class Call>
class TileWalk {
 public:
  // Values of shared memory beside the state.
  static constexpr int kShared = kWarps * kStageSize + kTriangle;

 protected:
  using T = typename Call::Value;
  using W = typename Call::Weight;
  using Sums = SumsOf<T, W, R>;

  // Lanes that a row has in the triangle, where a warp owns its rows.
  static constexpr int kLanes = kThreads / R;
  static_assert(kLanes <= kWarp);

  FASTGEN_DEVICE TileWalk(Block& block, const Call& a, T* state, T* shared, Link* links)
      : block_(block),
        a_(a),
        net_(a.network),
        state_(state),
        stage_(shared + block.thread() / kWarp * kStageSize),
        triangle_(shared + kWarps * kStageSize),
        links_(links),
        warp_(block.thread() / kWarp),
        lane_(block.thread() % kWarp),
        last_(a.network.count - 1) {}

  FASTGEN_DEVICE T& state(int unit, int row) const { return state_[unit * R + row]; }

  // What the first `n` features have of the network's outputs, and of its inputs.
  FASTGEN_DEVICE int outputs_of(int n) const { return static_cast<int>(a_.map.outputs()) * n; }
  FASTGEN_DEVICE int columns_of(int n) const { return static_cast<int>(a_.map.columns()) * n; }

  // The units of layer l that belong to the first `n` features: their outputs, or the hidden units that wait for no later one.
  FASTGEN_DEVICE int units_of(int l, int n) const { return l == last_ ? outputs_of(n) : net_.ready(l, n - 1); }
  // The inputs of layer l that belong to them.
  FASTGEN_DEVICE int inputs_of(int l, int n) const { return l == 0 ? columns_of(n) : net_.ready(l - 1, n - 1); }

  // Calls f(unit, row) once for every unit below `units` and every row; eight units side by side are a sector of row-major
  // memory.
  template <class F>
  FASTGEN_DEVICE void spread(int units, const F& f) const {
    const int eights = (units + 7) / 8;
    for (int t = warp_; t < eights * (R / 4); t += kWarps) {
      const int unit = t % eights * 8 + lane_ % 8, row = t / eights * 4 + lane_ / 8;
      if (unit < units) f(unit, row);
    }
  }

  // Calls f(begin, end) for the units [begin, end) in tiles of a product, each in one warp, in turn with those before.
  template <class F>
  FASTGEN_DEVICE void each_tile(int begin, int end, int& turn, const F& f) const {
    for (int u = begin; u < end; u += kTileUnits)
      if (turn++ % kWarps == warp_) f(u, u + kTileUnits < end ? u + kTileUnits : end);
  }

  // Calls f(unit, row, sum) for what this lane holds of a tile's sums.
  template <class F>
  FASTGEN_DEVICE void each_sum(int begin, int end, const Sums& sums, const F& f) const {
    FASTGEN_UNROLL
    for (int i = 0; i < Sums::kCount; ++i) {
      const int unit = begin + Sums::unit(lane_, i);
      if (unit < end) f(unit, Sums::row(lane_, i), sums.at[i]);
    }
  }

  // Calls f(unit, row) for the same ones: once in the code, for what is long.
  template <class F>
  FASTGEN_DEVICE void each_place(int begin, int end, const F& f) const {
    FASTGEN_ONE_BY_ONE
    for (int i = 0; i < Sums::kCount; ++i) {
      const int unit = begin + Sums::unit(lane_, i);
      if (unit < end) f(unit, Sums::row(lane_, i));
    }
  }

  // Links the layers of a block of features; false where they do not fit. `transposed`: rows of the triangle are inputs.
  FASTGEN_DEVICE bool link(int first, int end, bool transposed) const {
    int at = 0, values_at = 0;
    for (int l = 0; l < net_.count + net_.direct; ++l) {
      const bool direct = l == net_.count;
      const int from = direct ? 0 : l, to = direct ? last_ : l;
      Link link;
      link.at = at;
      link.unit = units_of(to, first);
      link.units = units_of(to, end) - link.unit;
      link.seen = inputs_of(from, first);
      link.inputs = inputs_of(from, end) - link.seen;
      link.step = padded(transposed ? link.units : link.inputs);
      link.values_at = values_at;
      at += link.step * (transposed ? link.inputs : link.units);
      if (l < last_) values_at += link.units;
      if (at > kTriangle || values_at > kStagedUnits) return false;
      if (block_.thread() == 0) links_[l] = link;
    }
    return true;
  }

  // Copies the weights of a block's triangle, zeros where the mask has them. For all threads, once `link` is seen by them.
  FASTGEN_DEVICE void stage_triangle(bool transposed) const {
    for (int l = 0; l < net_.count + net_.direct; ++l) {
      const Link link = links_[l];
      const Layer<T, W>& layer = net_.layers[l];
      for (int i = block_.thread(); i < link.units * link.inputs; i += kThreads) {
        const int u = i / link.inputs, k = i % link.inputs, unit = link.unit + u, seen = link.seen + k;
        const bool sees = seen < read(layer.prefix + unit);
        const T weight = sees ? read(layer.weight + int64_t(layer.unit(unit)) * layer.in + layer.input(seen)) : T(0);
        triangle_[link.at + (transposed ? k * link.step + u : u * link.step + k)] = weight;
      }
    }
  }

  // Where a warp owns its rows: this lane's row, and its number among the row's lanes.
  FASTGEN_DEVICE int own_row() const { return block_.thread() / kLanes; }
  FASTGEN_DEVICE int own_share() const { return block_.thread() % kLanes; }

  // Calls f(m, sum_k weights[m * step + k] x[k * R], k in [from, to)) for m below n, in one lane of the row each; a row's lanes
  // are shared out among the units, those of a unit among its weights. All lanes of a warp call it.
  template <class F>
  FASTGEN_DEVICE void dots(const T* weights, int step, int n, const T* x, int from, int to, const F& f) const {
    int split = 1;
    while (2 * split * n <= kLanes) split *= 2;
    const int share = own_share() % split;
    for (int begin = 0; begin < n; begin += kLanes / split) {
      const int m = begin + own_share() / split;
      T sum = m < n ? dot(weights + m * step, x, from, to, share, split) : T(0);
      sum = block_.sum(sum, split);
      if (m < n && share == 0) f(m, sum);
    }
  }

  Block& block_;
  const Call& a_;
  const Network<T, W>& net_;
  T *const state_, *const stage_, *const triangle_;
  Link* const links_;
  const int warp_, lane_, last_;

 private:
  FASTGEN_DEVICE static T dot(const T* weights, const T* x, int from, int to, int share, int split) {
    T sum = T(0);
    for (int k = from / 4 * 4 + 4 * share; k < to; k += 4 * split) {
      if (k >= from && k + 4 <= to) {
        const Vec<T, 4> w = load<T, 4>(weights + k);
        FASTGEN_UNROLL
        for (int j = 0; j < 4; ++j) sum += w.at[j] * x[(k + j) * R];
      } else {
        for (int j = k < from ? from : k; j < k + 4 && j < to; ++j) sum += weights[j] * x[j * R];
      }
    }
    return sum;
  }
};

}  // namespace fastgen::cuda
