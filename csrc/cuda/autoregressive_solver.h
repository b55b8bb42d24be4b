// Solves an autoregressive network for a tile of rows: every unit is evaluated once, as soon as it is final.
//
// Features are walked in blocks. What a block's units owe to units before it is a product of matrices, made by all warps at
// once; what is left inside the block goes feature by feature, in warps that own their rows and wait for no other.
#pragma once

#include "cuda/autoregressive_system.h"
#include "cuda/functions.h"
#include "cuda/tile_walk.h"

namespace fastgen::cuda {

// Call: the system with what makes its features.
template <class Block, int R, class Call>
class TileSolver : TileWalk<Block, R, Call> {
  using Walk = TileWalk<Block, R, Call>;
  using typename Walk::T, typename Walk::W, typename Walk::Sums;
  using Map = decltype(Call::map);
  using Walk::block_, Walk::a_, Walk::net_, Walk::state_, Walk::stage_, Walk::triangle_, Walk::links_, Walk::lane_, Walk::last_;
  using Walk::state, Walk::units_of, Walk::inputs_of, Walk::outputs_of, Walk::columns_of, Walk::each_tile, Walk::each_sum,
      Walk::each_place, Walk::spread, Walk::dots;

 public:
  // Values of shared memory beside the state.
  static constexpr int kShared = Walk::kShared + (Call::kNumbers + Call::kOutputs) * kWalkBlock * R +
                                 (Map::has_log_derivative ? R * sizeof(double) / sizeof(T) : 0);

  FASTGEN_DEVICE TileSolver(Block& block, const Call& a, T* state, T* shared, Link* links)
      : Walk(block, a, state, shared, links),
        noise_(shared + Walk::kShared),
        outputs_(Call::kOutputs ? noise_ + Call::kNumbers * kWalkBlock * R : state + net_.layers[last_].sums_at * R),
        totals_(reinterpret_cast<double*>(noise_ + (Call::kNumbers + Call::kOutputs) * kWalkBlock * R)) {}

  FASTGEN_DEVICE void solve(int64_t first_row, int rows) {
    first_row_ = first_row;
    rows_ = rows;
    if constexpr (Map::has_log_derivative)
      if (block_.thread() < R) totals_[block_.thread()] = 0;
    if (a_.known() > 0) begin(a_.known());
    for (int b = 0, first = a_.known(); b < net_.blocks; ++b) {
      const int end = read(net_.ends + b);
      if (end <= first) continue;
      walk(first, end);
      first = end;
    }
    store();
  }

 private:
  // What the first `known` features, which are given, are read by alone.
  FASTGEN_DEVICE void begin(int known) {
    first_ = known;
    block_.sync();  // the tile before has been stored
    spread(known, [&](int i, int row) { put(i, row, row < rows_ ? at(a_.given, feature_of(i), row) : T(0)); });
    block_.sync();
    int turn = 0;
    for (int l = 0; l < last_; ++l) {
      each_tile(0, units_of(l, known), turn, [&](int begin, int end) {
        start(l, begin, end);
        each_place(begin, end, [&](int u, int row) { finish(l, u, row, partial(l, u, row)); });
      });
      block_.sync();
    }
  }

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
    const int numbers = a_.map.numbers;
    spread(numbers * n, [&](int k, int row) {
      const int column = numbers * feature_of(first_ + k / numbers) + k % numbers;
      noise_[k * R + row] = row < rows_ ? at(a_.noise, column, row) : T(0);
    });
  }

  // Sorted feature -> feature.
  FASTGEN_DEVICE int feature_of(int i) const { return net_.layers[0].input(columns_of(i)) / columns_of(1); }

  FASTGEN_DEVICE T at(const cpu::Strided<T>& from, int64_t column, int row) const {
    return read(from.data + (first_row_ + row) * from.row + column * from.column);
  }

  // The sums of units [begin, end) of layer l, over what is final before the block.
  FASTGEN_DEVICE void start(int l, int begin, int end) const {
    Sums sums;
    add(l, begin, end, 0, inputs_of(l, first_), sums);
    if (l == last_ && net_.direct) add(net_.count, begin, end, 0, columns_of(first_), sums);
    const Layer<T, W>& layer = net_.layers[l];
    each_sum(begin, end, sums, [&](int u, int row, T sum) {
      const int unit = layer.unit(u);
      if (layer.bias) sum += read(layer.bias + unit);
      if (l == 0 && a_.context_terms && row < rows_) sum += read(a_.context_terms + (first_row_ + row) * a_.ld_context + unit);
      partial(l, u, row) = sum;
    });
  }

  // Adds what units [begin, end) of a layer see among its inputs [from, to).
  FASTGEN_DEVICE void add(int l, int begin, int end, int from, int to, Sums& sums) const {
    const UnitTile<T, W> tile(net_.layers[l], begin, end, lane_);
    multiply(block_, tile, inputs(l), from, tile.limit() < to ? tile.limit() : to, stage_, sums);
  }

  // The features lie first in the state.
  FASTGEN_DEVICE const T* inputs(int l) const {
    return l == 0 || l == net_.count ? state_ : state_ + net_.layers[l - 1].at * R;
  }

  // Where the sum of a unit grows: those of outputs are kept for the block only.
  FASTGEN_DEVICE T& partial(int l, int u, int row) const {
    return l == last_ ? outputs_[(u - outputs_of(first_)) * R + row] : state(net_.layers[l].sums_at + u, row);
  }

  // The output of a unit whose sum lacks its residual part only.
  FASTGEN_DEVICE void finish(int l, int u, int row, T sum) const {
    const Layer<T, W>& layer = net_.layers[l];
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
      own_sums(l, begin, end, l == 0 ? columns_of(i) : net_.ready(l - 1, i),
               [&](int u, T sum) { finish(l, u, row, partial(l, u, row) + sum); });
      block_.sync_warp();
    }
    const auto add_output = [&](int u, T sum) { partial(last_, u, row) += sum; };
    own_sums(last_, outputs_of(i), outputs_of(i + 1), last_ == 0 ? columns_of(i) : net_.ready(last_ - 1, i), add_output);
    if (net_.direct) own_sums(net_.count, outputs_of(i), outputs_of(i + 1), columns_of(i), add_output);
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
        Sums sums;
        add(l, begin, end, inputs_of(l, first_), net_.layers[l].in, sums);
        each_sum(begin, end, sums, [&](int u, int row, T sum) { partial(l, u, row) += sum; });
        each_place(begin, end, [&](int u, int row) { finish(l, u, row, partial(l, u, row)); });
      });
      block_.sync();
    }
    each_tile(outputs_of(i), outputs_of(i + 1), turn, [&](int begin, int end) {
      Sums sums;
      add(last_, begin, end, inputs_of(last_, first_), net_.layers[last_].in, sums);
      if (net_.direct) add(net_.count, begin, end, columns_of(first_), net_.layers[0].in, sums);
      each_sum(begin, end, sums, [&](int u, int row, T sum) { partial(last_, u, row) += sum; });
    });
    block_.sync();
    if (block_.thread() < R) feature(i, block_.thread());
    block_.sync();
  }

  FASTGEN_DEVICE void feature(int i, int row) const {
    const int first = outputs_of(i);
    T* const outputs = &partial(last_, first, row);
    if (const int source = net_.layers[last_].residual; source >= 0)
      for (int k = 0; k < outputs_of(1); ++k) outputs[k * R] += state(net_.layers[source].sums_at + first + k, row);
    T value, log_derivative;
    a_.map.template apply<1>(outputs, noise_ + a_.map.numbers * (i - first_) * R + row, R, &value, &log_derivative);
    put(i, row, value);
    if constexpr (Map::has_log_derivative) totals_[row] += log_derivative;
  }

  // What the network reads of feature i; the features themselves lie first in the state where that is what it reads.
  FASTGEN_DEVICE void put(int i, int row, T value) const {
    if (!a_.map.one_hot) {
      state(i, row) = value;
      return;
    }
    const int columns = columns_of(1);
    for (int c = 0; c < columns; ++c) state(columns * i + c, row) = value == T(c) ? T(1) : T(0);
    if (row < rows_) a_.v[(first_row_ + row) * net_.features + feature_of(i)] = value;
  }

  FASTGEN_DEVICE void store() const {
    if (!a_.map.one_hot)
      spread(net_.features, [&](int i, int row) {
        if (row < rows_) a_.v[(first_row_ + row) * net_.features + feature_of(i)] = state(i, row);
      });
    if constexpr (Map::has_log_derivative) {
      const int row = block_.thread();
      if (row >= rows_) return;
      const T total = static_cast<T>(totals_[row]);
      const int64_t at = first_row_ + row;
      a_.log_det[at] = a_.log_det_in ? read(a_.log_det_in + at * a_.log_det_step) + total : total;
    }
  }

  T *const noise_, *const outputs_;
  double* const totals_;  // of the log-derivatives, where there are any
  int64_t first_row_ = 0;
  int rows_ = 0, first_ = 0;
};

}  // namespace fastgen::cuda
