// Solves an autoregressive network for one tile of rows: every unit is evaluated once, as soon as it is final.
//
// Features are walked in blocks: what a block's units owe to units before the block is a product of matrices; only what is
// left inside it goes step by step.
#pragma once

#include "conditionals.h"
#include "cpu/autoregressive_system.h"
#include "cpu/autoregressive_walk.h"
#include "cpu/sorted_network.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Features walked as one block: more of them make larger products, and a larger part that goes step by step.
constexpr int64_t kWalkBlock = 8;

// One tile of rows on its way through the walk, its features made by the map U.
template <class T, class U>
class TileSolver {
 public:
  // Values the state of a tile takes: the noise, the solution, what the network reads of it, every layer's sums and, where
  // these must outlive their activation, its outputs.
  static int64_t size(const MaskedNetwork<T>& net, int64_t features) {
    const Staircase& inputs = net.layers[0].stair;
    int64_t units = U::numbers * features + (U::one_hot ? features : 0) + inputs.in + inputs.out;
    for (int l = 0; l < net.count; ++l) units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    return units * kTile<T>;
  }

  TileSolver(const AutoregressiveSystem<T>& a, const U& map, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
             T* state)
      : a_(a), net_(a.network), map_(map), walk_(walk), sorted_(sorted), sums_(blocks), outputs_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * kTile<T>;
      return block;
    };
    noise_ = take(U::numbers * walk.features());
    columns_ = take(net_.layers[0].stair.in);
    v_ = U::one_hot ? take(walk.features()) : columns_;
    context_ = take(net_.layers[0].stair.out);
    for (int l = 0; l < net_.count; ++l) {
      sums_[l] = take(net_.layers[l].stair.out);
      outputs_[l] = is_residual_source(net_, l) ? take(net_.layers[l].stair.out) : sums_[l];
    }
  }

  void solve(int64_t first, int64_t rows) {
    begin(first, rows);
    double totals[kTile<T>] = {};
    for (int64_t i = a_.known; i < walk_.features(); i += kWalkBlock) block(i, least(i + kWalkBlock, walk_.features()), totals);
    store_tile<T>(v_, first, rows, walk_.features(), Columns<T>{a_.v, walk_.features(), walk_.order()});
    if constexpr (U::has_log_derivative)
      if (a_.log_det)
        for (int64_t r = 0; r < rows; ++r) {
          const T total = static_cast<T>(totals[r]);
          a_.log_det[first + r] = a_.log_det_in ? a_.log_det_in[(first + r) * a_.log_det_step] + total : total;
        }
  }

 private:
  // Everything up to the first feature that is to be found.
  void begin(int64_t first, int64_t rows) {
    constexpr int R = kTile<T>;
    for (int64_t i = a_.known; i < walk_.features(); ++i)
      for (int q = 0; q < U::numbers; ++q)
        load(a_.noise, walk_.feature(i) * U::numbers + q, first, rows, noise_ + (i * U::numbers + q) * R);
    for (int64_t i = 0; i < a_.known; ++i) {
      load(a_.given, walk_.feature(i), first, rows, v_ + i * R);
      read(i);
    }
    for (int l = 0; l < net_.count; ++l) fill_biases(net_.layers[l], sums_[l]);
    const Staircase& inputs = net_.layers[0].stair;
    if (a_.context_terms) {
      load_tile(Columns<const T>{a_.context_terms, a_.ld_context, inputs.out_order}, first, rows, inputs.out, context_);
      for (int64_t i = 0; i < inputs.out * R; ++i) sums_[0][i] += context_[i];
    }
    for (int l = 0; l < net_.count - 1; ++l) {
      const int64_t ready = walk_.ready(l, a_.known - 1);
      add(l, 0, ready, 0, INT64_MAX);
      finish(l, 0, ready);
    }
  }

  static void load(const Strided<T>& from, int64_t column, int64_t first, int64_t rows, T* to) {
    const T* const data = from.data + first * from.row + column * from.column;
    for (int64_t r = 0; r < kTile<T>; ++r) to[r] = r < rows ? data[r * from.row] : T(0);
  }

  // What the network reads of feature i.
  void read(int64_t i) {
    constexpr int R = kTile<T>;
    if constexpr (U::one_hot)
      for (int64_t c = 0; c < map_.columns(); ++c)
        for (int r = 0; r < R; ++r)
          columns_[(i * map_.columns() + c) * R + r] = v_[i * R + r] == static_cast<T>(c) ? T(1) : T(0);
  }

  const T* input(int l) const { return l == 0 ? columns_ : outputs_[l - 1]; }
  // The inputs of layer l that are final where a block begins.
  int64_t before(int l, int64_t first) const { return l == 0 ? map_.columns() * first : walk_.ready(l - 1, first - 1); }

  // Features [first, end): their part from what is final before the block as products, the rest step by step.
  void block(int64_t first, int64_t end, double* totals) {
    const int last = net_.count - 1;
    const int64_t outputs = map_.outputs(), known = map_.columns() * first;
    for (int l = 0; l < last; ++l) add(l, walk_.ready(l, first - 1), walk_.ready(l, end - 1), 0, before(l, first));
    add(last, outputs * first, outputs * end, 0, before(last, first));
    if (net_.direct) add_direct(outputs * first, outputs * end, 0, known);
    for (int64_t i = first; i < end; ++i) {
      for (int l = 0; l < last; ++l) {
        const int64_t begin = walk_.ready(l, i - 1), stop = walk_.ready(l, i);
        if (begin == stop) continue;
        add(l, begin, stop, before(l, first), INT64_MAX);
        finish(l, begin, stop);
      }
      add(last, outputs * i, outputs * (i + 1), before(last, first), INT64_MAX);
      if (net_.direct) add_direct(outputs * i, outputs * (i + 1), known, INT64_MAX);
      feature(i, totals);
    }
  }

  void add(int l, int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums(net_.layers[l].stair, sorted_.weight(l), input(l), begin, end, from, to, sums_[l]);
  }
  void add_direct(int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums(net_.direct->stair, sorted_.weight(net_.count), columns_, begin, end, from, to, sums_[net_.count - 1]);
  }

  // The outputs of units [begin, end) of layer l, whose sums lack their residual part only.
  void finish(int l, int64_t begin, int64_t end) {
    constexpr int R = kTile<T>;
    const NetworkLayer<T>& layer = net_.layers[l];
    T *const sums = sums_[l] + begin * R, *const outputs = outputs_[l] + begin * R;
    const int64_t n = (end - begin) * R;
    if (layer.residual >= 0)
      for (int64_t i = 0; i < n; ++i) sums[i] += sums_[layer.residual][begin * R + i];
    if (outputs != sums)
      for (int64_t i = 0; i < n; ++i) outputs[i] = sums[i];
    activate_row(layer.activation, outputs, n);
  }

  void feature(int64_t i, double* totals) {
    constexpr int R = kTile<T>;
    const int last = net_.count - 1;
    const int64_t at = map_.outputs() * i * R, values = map_.outputs() * R;
    T* const outputs = sums_[last] + at;
    if (const int source = net_.layers[last].residual; source >= 0)
      for (int64_t k = 0; k < values; ++k) outputs[k] += sums_[source][at + k];
    T log_derivative[R];
    map_.template apply<R>(outputs, noise_ + U::numbers * i * R, R, v_ + i * R, log_derivative);
    read(i);
    if constexpr (U::has_log_derivative)
      for (int r = 0; r < R; ++r) totals[r] += log_derivative[r];
  }

  const AutoregressiveSystem<T>& a_;
  const MaskedNetwork<T>& net_;
  const U& map_;
  const Walk& walk_;
  const SortedNetwork<T>& sorted_;
  T *noise_, *v_, *columns_, *context_;
  T **sums_, **outputs_;
};

}  // namespace fastgen::cpu::FASTGEN_VARIANT
