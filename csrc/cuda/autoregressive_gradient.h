// The gradient of an autoregressive solution for a tile of rows: the walk of the solver backwards. At the step of a feature the
// gradients of all sums that read it are known, and with it become known those of its outputs and of the units they read.
#pragma once

#include "cuda/autoregressive_inverse.h"
#include "cuda/functions.h"
#include "cuda/tile_walk.h"

namespace fastgen::cuda {

template <class Block, int R, class Call>
class TileGradient : TileWalk<Block, R, Call> {
  using Walk = TileWalk<Block, R, Call>;
  using typename Walk::T, typename Walk::W, typename Walk::Sums;
  using Walk::block_, Walk::a_, Walk::net_, Walk::state_, Walk::stage_, Walk::triangle_, Walk::links_, Walk::lane_, Walk::last_;
  using Walk::state, Walk::units_of, Walk::each_tile, Walk::each_sum, Walk::each_place, Walk::spread, Walk::dots;

 public:
  // Values of shared memory beside the state.
  static constexpr int kShared = Walk::kShared + (kStagedUnits + 4 * kWalkBlock + 1) * R;

  FASTGEN_DEVICE TileGradient(Block& block, const Call& a, T* state, T* shared, Link* links)
      : Walk(block, a, state, shared, links),
        values_(shared + Walk::kShared),
        w_(values_ + kStagedUnits * R),
        v_(w_ + kWalkBlock * R),
        raw_(v_ + kWalkBlock * R),
        grad_(raw_ + kWalkBlock * R),
        grad_log_det_(grad_ + kWalkBlock * R) {}

  FASTGEN_DEVICE void solve(int64_t first_row, int rows) {
    first_row_ = first_row;
    rows_ = rows;
    block_.sync();  // the tile before has been stored
    begin();
    for (int b = net_.blocks - 1; b >= 0; --b) walk(b > 0 ? read(net_.ends + b - 1) : 0, read(net_.ends + b));
    store();
  }

 private:
  static constexpr int kOutputs = static_cast<int>(Affine<T>::outputs());

  FASTGEN_DEVICE void begin() const {
    const int row = block_.thread();
    if (row < R)
      grad_log_det_[row] =
          a_.grad_log_det && row < rows_ ? read(a_.grad_log_det + (first_row_ + row) * a_.grad_log_det_step) : T(0);
    // Units that no output reads stay without a gradient.
    for (int l = 0; l < last_; ++l) {
      const int read_units = read_of(l);
      spread(net_.layers[l].out - read_units, [&](int u, int row) { state(net_.layers[l].at + read_units + u, row) = T(0); });
    }
  }

  // The units of layer l that an output may read.
  FASTGEN_DEVICE int read_of(int l) const { return units_of(l, net_.features); }

  FASTGEN_DEVICE void walk(int first, int end) {
    first_ = first;
    end_ = end;
    linked_ = Walk::link(first, end, true);
    block_.sync();
    load_features();
    if (linked_) {
      Walk::stage_triangle(true);
      load_values();
    }
    int turn = 0;
    for (int l = last_ - 1; l >= 0; --l)
      each_tile(units_of(l, first), units_of(l, end), turn, [&](int begin, int stop) {
        Sums sums;
        pull(l + 1, begin, stop, units_of(l + 1, end), read_of(l + 1), sums);
        each_sum(begin, stop, sums, [&](int u, int row, T sum) { delta(l, u, row) = sum; });
      });
    each_tile(first, end, turn, [&](int begin, int stop) {
      Sums sums;
      pull(0, begin, stop, units_of(0, end), read_of(0), sums);
      if (net_.direct) pull(net_.count, begin, stop, kOutputs * end, kOutputs * net_.features, sums);
      each_sum(begin, stop, sums, [&](int i, int row, T sum) {
        const int64_t column = net_.layers[0].input(i);
        if (a_.grad_v.data && row < rows_)
          sum += read(a_.grad_v.data + (first_row_ + row) * a_.grad_v.row + column * a_.grad_v.column);
        grad_[(i - first_) * R + row] = sum;
      });
    });
    block_.sync();
    for (int i = end - 1; i >= first; --i)
      if (linked_)
        own_step(i);
      else
        common_step(i);
    block_.sync();
  }

  FASTGEN_DEVICE void load_features() const {
    spread(end_ - first_, [&](int i, int row) {
      const bool real = row < rows_;
      const int64_t column = net_.layers[0].input(first_ + i), at = first_row_ + row;
      const int raw = net_.layers[last_].unit(kOutputs * (first_ + i) + 1);
      w_[i * R + row] = real ? read(a_.w.data + at * a_.w.row + column * a_.w.column) : T(0);
      v_[i * R + row] = real ? read(a_.v + at * net_.features + column) : T(0);
      raw_[i * R + row] = real ? read(a_.y + at * net_.layers[last_].out + raw) : T(0);
    });
  }

  FASTGEN_DEVICE void load_values() const {
    for (int l = 0; l < last_; ++l) {
      const Link link = links_[l];
      spread(link.units, [&](int u, int row) { values_[(link.values_at + u) * R + row] = saved(l, link.unit + u, row); });
    }
  }

  FASTGEN_DEVICE T saved(int l, int u, int row) const {
    const Layer<T, W>& layer = net_.layers[l];
    return row < rows_ ? read(layer.saved + (first_row_ + row) * layer.out + layer.unit(u)) : T(0);
  }

  FASTGEN_DEVICE T& delta(int l, int u, int row) const { return state(net_.layers[l].at + u, row); }

  // The deltas of the units that layer l, or the direct one, makes.
  FASTGEN_DEVICE const T* deltas(int l) const { return state_ + net_.layers[l == net_.count ? last_ : l].at * R; }

  // Adds what inputs [begin, end) of a layer are sent by its units [from, to).
  FASTGEN_DEVICE void pull(int l, int begin, int end, int from, int to, Sums& sums) const {
    const InputTile<T, W> tile(net_.layers[l], begin, end, lane_);
    multiply(block_, tile, deltas(l), tile.start() > from ? tile.start() : from, to, stage_, sums);
  }

  // From the gradient of a unit's output to that of its sum.
  FASTGEN_DEVICE void finish(int l, int u, int row, T grad, T saved) const {
    const Layer<T, W>& layer = net_.layers[l];
    grad *= derivative(layer.activation, saved);
    if (layer.is_source)
      for (int c = l + 1; c < net_.count; ++c)
        if (net_.layers[c].residual == l) grad += delta(c, u, row);
    delta(l, u, row) = grad;
  }

  // One feature, in warps that own their rows.
  FASTGEN_DEVICE void own_step(int i) const {
    const int row = Walk::own_row();
    const auto add_grad = [&](int, T sum) { grad_[(i - first_) * R + row] += sum; };
    own_sums(0, i, i + 1, reading(0, i + 1), units_of(0, end_), add_grad);
    if (net_.direct) own_sums(net_.count, i, i + 1, kOutputs * (i + 1), kOutputs * end_, add_grad);
    // The lane that has the sums goes on.
    if (Walk::own_share() == 0) feature(i, row);
    block_.sync_warp();
    for (int l = last_ - 1; l >= 0; --l) {
      const int begin = net_.ready(l, i - 1), end = net_.ready(l, i);
      if (begin == end) continue;
      const Link link = links_[l];
      own_sums(l + 1, begin, end, reading(l + 1, i), units_of(l + 1, end_), [&](int u, T sum) {
        finish(l, u, row, delta(l, u, row) + sum, values_[(link.values_at + u - link.unit) * R + row]);
      });
      block_.sync_warp();
    }
  }

  // The first unit of layer l that may read what is final once i features are known, and not before.
  FASTGEN_DEVICE int reading(int l, int i) const { return l == last_ ? kOutputs * i : net_.ready(l, i - 1); }

  // Calls f(k, sum) for inputs [begin, end) of layer l and what its units [from, to), inside the block, send them.
  template <class F>
  FASTGEN_DEVICE void own_sums(int l, int begin, int end, int from, int to, const F& f) const {
    const Link link = links_[l];
    dots(triangle_ + link.at + (begin - link.seen) * link.step, link.step, end - begin,
         deltas(l) + link.unit * R + Walk::own_row(), from - link.unit, to - link.unit,
         [&](int m, T sum) { f(begin + m, sum); });
  }

  // One feature, by all threads.
  FASTGEN_DEVICE void common_step(int i) const {
    int turn = 0;
    each_tile(i, i + 1, turn, [&](int begin, int end) {
      Sums sums;
      pull(0, begin, end, reading(0, i + 1), units_of(0, end_), sums);
      if (net_.direct) pull(net_.count, begin, end, kOutputs * (i + 1), kOutputs * end_, sums);
      each_sum(begin, end, sums, [&](int k, int row, T sum) { grad_[(k - first_) * R + row] += sum; });
    });
    block_.sync();
    if (block_.thread() < R) feature(i, block_.thread());
    block_.sync();
    for (int l = last_ - 1; l >= 0; --l) {
      each_tile(net_.ready(l, i - 1), net_.ready(l, i), turn, [&](int begin, int end) {
        Sums sums;
        pull(l + 1, begin, end, reading(l + 1, i), units_of(l + 1, end_), sums);
        each_sum(begin, end, sums, [&](int u, int row, T sum) { delta(l, u, row) += sum; });
        each_place(begin, end, [&](int u, int row) { finish(l, u, row, delta(l, u, row), saved(l, u, row)); });
      });
      block_.sync();
    }
  }

  // The gradients of a feature's outputs and of its noise.
  FASTGEN_DEVICE void feature(int i, int row) const {
    const int at = (i - first_) * R + row;
    const auto [s, slope] = log_scale(a_.map.map, raw_[at]);
    const T sign = a_.map.divide ? T(-1) : T(1), g = grad_[at], through = g * math::exp(sign * s);
    // w e^s loses no digits, where v - shift would.
    const T pulled = a_.map.divide ? -g * v_[at] : through * w_[at];
    delta(last_, kOutputs * i, row) = a_.map.divide ? -through : g;
    delta(last_, kOutputs * i + 1, row) = (pulled + sign * grad_log_det_[row]) * slope;
    if (row < rows_) a_.grad_w[(first_row_ + row) * net_.features + net_.layers[0].input(i)] = through;
  }

  FASTGEN_DEVICE void store() const {
    for (int l = 0; l < net_.count; ++l) {
      const Layer<T, W>& layer = net_.layers[l];
      if (!layer.delta) continue;
      spread(layer.out, [&](int u, int row) {
        if (row < rows_) layer.delta[(first_row_ + row) * layer.out + layer.unit(u)] = delta(l, u, row);
      });
    }
  }

  T *const values_, *const w_, *const v_, *const raw_, *const grad_, *const grad_log_det_;
  int64_t first_row_ = 0;
  int rows_ = 0, first_ = 0, end_ = 0;
  bool linked_ = false;
};

}  // namespace fastgen::cuda
