// Solves an autoregressive network for a tile of rows: every unit is evaluated once, as soon as it is final.
//
// Features are walked in blocks. What a block's units owe to units before it is a product of matrices, made by all warps at
// once; what is left inside the block goes feature by feature, in warps that own their rows and wait for no other.
#pragma once

#include "cuda/autoregressive_inverse.h"
#include "cuda/functions.h"
#include "cuda/tile_walk.h"

namespace fastgen::cuda {

template <class Block, class T, int R>
class TileSolver : TileWalk<Block, T, R> {
  using Walk = TileWalk<Block, T, R>;
  using Walk::block_, Walk::net_, Walk::state_, Walk::stage_, Walk::triangle_, Walk::links_, Walk::lane_, Walk::last_;
  using Walk::state, Walk::units_of, Walk::inputs_of, Walk::each_tile, Walk::each_sum, Walk::each_place, Walk::spread,
      Walk::dots;

 public:
  // Values of shared memory beside the state.
  static constexpr int kShared = Walk::kShared + (1 + kOutputs) * kWalkBlock * R + R * sizeof(double) / sizeof(T);

  FASTGEN_DEVICE TileSolver(Block& block, const AutoregressiveInverseForward<T>& a, T* state, T* shared, Link* links)
      : Walk(block, a.network, state, shared, links),
        a_(a),
        w_(shared + Walk::kShared),
        outputs_(w_ + kWalkBlock * R),
        totals_(reinterpret_cast<double*>(outputs_ + kOutputs * kWalkBlock * R)) {}

  FASTGEN_DEVICE void solve(int64_t first_row, int rows) {
    first_row_ = first_row;
    rows_ = rows;
    if (block_.thread() < R) totals_[block_.thread()] = 0;
    for (int b = 0, first = 0; b < net_.blocks; ++b) {
      const int end = read(net_.ends + b);
      walk(first, end);
      first = end;
    }
    store();
  }

 private:
  FASTGEN_DEVICE void walk(int first, int end) {
    first_ = first;
    const bool linked = Walk::link(first, end, false);
    block_.sync();
    if (linked) Walk::stage_triangle(false);
    load_noise(end - first);
    int turn = 0;
    // The longest products first.
    for (int l = last_; l >= 0; --l)
      each_tile(units_of(l, first), units_of(l, end), turn, [&](int begin, int stop) { start(l, begin, stop); });
    block_.sync();
    for (int i = first; i < end; ++i)
      if (linked)
        own_step(i);
      else
        common_step(i);
    block_.sync();
  }

  FASTGEN_DEVICE void load_noise(int n) const {
    spread(n, [&](int i, int row) {
      const int64_t column = net_.layers[0].input(first_ + i);
      w_[i * R + row] = row < rows_ ? read(a_.w.data + (first_row_ + row) * a_.w.row + column * a_.w.column) : T(0);
    });
  }

  // The sums of units [begin, end) of layer l, over what is final before the block.
  FASTGEN_DEVICE void start(int l, int begin, int end) const {
    TileSums<T, R> sums;
    add(l, begin, end, 0, inputs_of(l, first_), sums);
    if (l == last_ && net_.direct) add(net_.count, begin, end, 0, first_, sums);
    const Layer<T>& layer = net_.layers[l];
    each_sum(begin, end, sums, [&](int u, int row, T sum) {
      const int unit = layer.unit(u);
      if (layer.bias) sum += read(layer.bias + unit);
      if (l == 0 && a_.context_terms && row < rows_) sum += read(a_.context_terms + (first_row_ + row) * a_.ld_context + unit);
      partial(l, u, row) = sum;
    });
  }

  // Adds what units [begin, end) of a layer see among its inputs [from, to).
  FASTGEN_DEVICE void add(int l, int begin, int end, int from, int to, TileSums<T, R>& sums) const {
    const UnitTile<T> tile(net_.layers[l], begin, end, lane_);
    multiply(block_, tile, inputs(l), from, tile.limit() < to ? tile.limit() : to, stage_, sums);
  }

  // The features lie first in the state.
  FASTGEN_DEVICE const T* inputs(int l) const {
    return l == 0 || l == net_.count ? state_ : state_ + net_.layers[l - 1].at * R;
  }

  // Where the sum of a unit grows: those of outputs are kept for the block only.
  FASTGEN_DEVICE T& partial(int l, int u, int row) const {
    return l == last_ ? outputs_[(u - kOutputs * first_) * R + row] : state(net_.layers[l].sums_at + u, row);
  }

  // The output of a unit whose sum lacks its residual part only.
  FASTGEN_DEVICE void finish(int l, int u, int row, T sum) const {
    const Layer<T>& layer = net_.layers[l];
    if (layer.residual >= 0) sum += state(net_.layers[layer.residual].sums_at + u, row);
    if (layer.is_source) state(layer.sums_at + u, row) = sum;
    state(layer.at + u, row) = activated(layer.activation, sum);
  }

  // One feature, in warps that own their rows.
  FASTGEN_DEVICE void own_step(int i) const {
    const int row = Walk::own_row();
    for (int l = 0; l < last_; ++l) {
      const int begin = net_.ready(l, i - 1), end = net_.ready(l, i);
      if (begin == end) continue;
      own_sums(l, begin, end, l == 0 ? i : net_.ready(l - 1, i),
               [&](int u, T sum) { finish(l, u, row, partial(l, u, row) + sum); });
      block_.sync_warp();
    }
    const auto add_output = [&](int u, T sum) { partial(last_, u, row) += sum; };
    own_sums(last_, kOutputs * i, kOutputs * (i + 1), last_ == 0 ? i : net_.ready(last_ - 1, i), add_output);
    if (net_.direct) own_sums(net_.count, kOutputs * i, kOutputs * (i + 1), i, add_output);
    block_.sync_warp();
    if (Walk::own_share() == 0) feature(i, row);
    block_.sync_warp();
  }

  // Calls f(u, sum) for units [begin, end) and what they see inside the block, below `final` inputs.
  template <class F>
  FASTGEN_DEVICE void own_sums(int l, int begin, int end, int final, const F& f) const {
    const Link link = links_[l];
    dots(triangle_ + link.at + (begin - link.unit) * link.step, link.step, end - begin,
         inputs(l) + link.seen * R + Walk::own_row(), 0, final - link.seen, [&](int m, T sum) { f(begin + m, sum); });
  }

  // One feature, by all threads.
  FASTGEN_DEVICE void common_step(int i) const {
    int turn = 0;
    for (int l = 0; l < last_; ++l) {
      each_tile(net_.ready(l, i - 1), net_.ready(l, i), turn, [&](int begin, int end) {
        TileSums<T, R> sums;
        add(l, begin, end, inputs_of(l, first_), net_.layers[l].in, sums);
        each_sum(begin, end, sums, [&](int u, int row, T sum) { partial(l, u, row) += sum; });
        each_place(begin, end, [&](int u, int row) { finish(l, u, row, partial(l, u, row)); });
      });
      block_.sync();
    }
    each_tile(kOutputs * i, kOutputs * (i + 1), turn, [&](int begin, int end) {
      TileSums<T, R> sums;
      add(last_, begin, end, inputs_of(last_, first_), net_.layers[last_].in, sums);
      if (net_.direct) add(net_.count, begin, end, first_, net_.features, sums);
      each_sum(begin, end, sums, [&](int u, int row, T sum) { partial(last_, u, row) += sum; });
    });
    block_.sync();
    if (block_.thread() < R) feature(i, block_.thread());
    block_.sync();
  }

  FASTGEN_DEVICE void feature(int i, int row) const {
    T shift = partial(last_, kOutputs * i, row), raw = partial(last_, kOutputs * i + 1, row);
    if (const int source = net_.layers[last_].residual; source >= 0) {
      shift += state(net_.layers[source].sums_at + kOutputs * i, row);
      raw += state(net_.layers[source].sums_at + kOutputs * i + 1, row);
    }
    const T s = log_scale(a_.map, raw).value, w = w_[(i - first_) * R + row];
    state(i, row) = a_.divide ? (w - shift) * math::exp(-s) : w * math::exp(s) + shift;
    totals_[row] += s;
  }

  FASTGEN_DEVICE void store() const {
    spread(net_.features, [&](int i, int row) {
      if (row < rows_) a_.v[(first_row_ + row) * net_.features + net_.layers[0].input(i)] = state(i, row);
    });
    const int row = block_.thread();
    if (row >= rows_) return;
    const T total = static_cast<T>(a_.divide ? -totals_[row] : totals_[row]);
    const int64_t at = first_row_ + row;
    a_.log_det[at] = a_.log_det_in ? read(a_.log_det_in + at * a_.log_det_step) + total : total;
  }

  const AutoregressiveInverseForward<T>& a_;
  T *const w_, *const outputs_;
  double* const totals_;  // of the log-scales
  int64_t first_row_ = 0;
  int rows_ = 0, first_ = 0;
};

}  // namespace fastgen::cuda
