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
template <class T, class U, int V>
class TileSolver {
 public:
  // Values the state of a tile takes: the noise, the solution, what the network reads of it, every layer's sums and, where
  // these must outlive their activation, its outputs.
  static int64_t size(const MaskedNetwork<T>& net, int64_t features) {
    const Staircase& inputs = net.layers[0].stair;
    int64_t units = U::numbers * features + (U::one_hot ? features : 0) + inputs.in + inputs.out;
    for (int l = 0; l < net.count; ++l) units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    return units * R;
  }

  TileSolver(const AutoregressiveSystem<T>& a, const U& map, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
             T* state)
      : a_(a), net_(a.network), map_(map), walk_(walk), sorted_(sorted), sums_(blocks), outputs_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * R;
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
    double totals[R] = {};
    for (int64_t i = a_.known; i < walk_.features(); i += kWalkBlock) block(i, least(i + kWalkBlock, walk_.features()), totals);
    store_tile<T, V>(v_, first, rows, walk_.features(), Columns<T>{a_.v, walk_.features(), walk_.order()});
    if constexpr (U::has_log_derivative)
      if (a_.log_det)
        for (int64_t r = 0; r < rows; ++r) {
          const T total = static_cast<T>(totals[r]);
          a_.log_det[first + r] = a_.log_det_in ? a_.log_det_in[(first + r) * a_.log_det_step] + total : total;
        }
  }

 private:
  static constexpr int R = kTile<T, V>;

  // Everything up to the first feature that is to be found.
  void begin(int64_t first, int64_t rows) {
    load_noise(first, rows);
    for (int64_t i = 0; i < a_.known; ++i) {
      load(a_.given, walk_.feature(i), first, rows, v_ + i * R);
      read(i);
    }
    const Staircase& inputs = net_.layers[0].stair;
    if (a_.context_terms)
      load_tile<T, V>(Columns<const T>{a_.context_terms, a_.ld_context, inputs.out_order}, first, rows, inputs.out, context_);
    for (int l = 0; l < net_.count - 1; ++l) {
      const int64_t ready = walk_.ready(l, a_.known - 1);
      start(l, 0, ready, INT64_MAX);
      finish(l, 0, ready);
    }
  }

  void load_noise(int64_t first, int64_t rows) {
    const int64_t columns = walk_.features() * U::numbers;
    if (a_.noise.column == 1 && (!walk_.order() || U::numbers == 1))
      return load_tile<T, V>(Columns<const T>{a_.noise.data, a_.noise.row, walk_.order()}, first, rows, columns, noise_);
    for (int64_t c = 0; c < columns; ++c)
      load(a_.noise, walk_.feature(c / U::numbers) * U::numbers + c % U::numbers, first, rows, noise_ + c * R);
  }

  static void load(const Strided<T>& from, int64_t column, int64_t first, int64_t rows, T* to) {
    const T* const data = from.data + first * from.row + column * from.column;
    for (int64_t r = 0; r < R; ++r) to[r] = r < rows ? data[r * from.row] : T(0);
  }

  // What the network reads of feature i.
  void read(int64_t i) {
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
    for (int l = 0; l < last; ++l) start(l, walk_.ready(l, first - 1), walk_.ready(l, end - 1), before(l, first));
    start(last, outputs * first, outputs * end, before(last, first));
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

  // What units [begin, end) of layer l owe to their biases, the context and the inputs below `to`.
  void start(int l, int64_t begin, int64_t end, int64_t to) {
    fill_biases<T, V>(net_.layers[l], begin, end, sums_[l]);
    if (l == 0 && a_.context_terms)
      for (int64_t i = begin * R; i < end * R; ++i) sums_[0][i] += context_[i];
    add(l, begin, end, 0, to);
  }
  void add(int l, int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums<V>(net_.layers[l].stair, sorted_.weight(l), input(l), begin, end, from, to, sums_[l]);
  }
  void add_direct(int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums<V>(net_.direct->stair, sorted_.weight(net_.count), columns_, begin, end, from, to, sums_[net_.count - 1]);
  }

  // The outputs of units [begin, end) of layer l, whose sums lack their residual part only.
  void finish(int l, int64_t begin, int64_t end) {
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

// Solves rows [first, first + rows), at most those of the widest tile, in a tile as narrow as takes them.
template <class T, class U, int V = 1>
void solve_tile(const AutoregressiveSystem<T>& a, const U& map, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
                T* state, int64_t first, int64_t rows) {
  if constexpr (V < kWidest)
    if (rows > kTile<T, V>) return solve_tile<T, U, 2 * V>(a, map, walk, sorted, blocks, state, first, rows);
  TileSolver<T, U, V>(a, map, walk, sorted, blocks, state).solve(first, rows);
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
