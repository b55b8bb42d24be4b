// Solves an autoregressive network for one tile of rows: every unit is evaluated once, as soon as it is final.
//
// Features are walked in blocks: what a block's units owe to units before the block is a product of matrices; only what is
// left inside it goes step by step.
#pragma once

#include "cpu/autoregressive_inverse.h"
#include "cpu/autoregressive_walk.h"
#include "cpu/sorted_network.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Outputs per feature: shift and log-scale.
constexpr int kOutputs = 2;
// Features walked as one block: more of them make larger products, and a larger part that goes step by step.
constexpr int64_t kWalkBlock = 8;

// One tile of rows on its way through the walk.
template <class T>
class TileSolver {
 public:
  // Values the state of a tile takes: the noise, the solution, every layer's sums and, where these must outlive their
  // activation, its outputs.
  static int64_t size(const MaskedNetwork<T>& net, int64_t features) {
    int64_t units = features + net.layers[0].stair.in + net.layers[0].stair.out;
    for (int l = 0; l < net.count; ++l) units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    return units * kTile<T>;
  }

  TileSolver(const AutoregressiveInverseForward<T>& a, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks, T* state)
      : a_(a), net_(a.network), walk_(walk), sorted_(sorted), sums_(blocks), outputs_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * kTile<T>;
      return block;
    };
    w_ = take(walk.features());
    v_ = take(net_.layers[0].stair.in);
    context_ = take(net_.layers[0].stair.out);
    for (int l = 0; l < net_.count; ++l) {
      sums_[l] = take(net_.layers[l].stair.out);
      outputs_[l] = is_residual_source(net_, l) ? take(net_.layers[l].stair.out) : sums_[l];
    }
  }

  void solve(int64_t first, int64_t rows) {
    begin(first, rows);
    double totals[kTile<T>] = {};
    for (int64_t i = 0; i < walk_.features(); i += kWalkBlock) block(i, least(i + kWalkBlock, walk_.features()), totals);
    store_tile<T>(v_, first, rows, walk_.features(), Columns<T>{a_.v, walk_.features(), net_.layers[0].stair.in_order});
    for (int64_t r = 0; r < rows; ++r) {
      const T total = static_cast<T>(a_.divide ? -totals[r] : totals[r]);
      a_.log_det[first + r] = a_.log_det_in ? a_.log_det_in[(first + r) * a_.log_det_step] + total : total;
    }
  }

 private:
  void begin(int64_t first, int64_t rows) {
    constexpr int R = kTile<T>;
    const Staircase& inputs = net_.layers[0].stair;
    for (int64_t i = 0; i < walk_.features(); ++i) {
      const T* from = a_.w.data + first * a_.w.row + (inputs.in_order ? inputs.in_order[i] : i) * a_.w.column;
      for (int64_t r = 0; r < R; ++r) w_[i * R + r] = r < rows ? from[r * a_.w.row] : T(0);
    }
    for (int l = 0; l < net_.count; ++l) fill_biases(net_.layers[l], sums_[l]);
    if (!a_.context_terms) return;
    load_tile(Columns<const T>{a_.context_terms, a_.ld_context, inputs.out_order}, first, rows, inputs.out, context_);
    for (int64_t i = 0; i < inputs.out * R; ++i) sums_[0][i] += context_[i];
  }

  const T* input(int l) const { return l == 0 ? v_ : outputs_[l - 1]; }
  // The inputs of layer l that are final where a block begins.
  int64_t before(int l, int64_t first) const { return l == 0 ? first : walk_.ready(l - 1, first - 1); }

  // Features [first, end): their part from what is final before the block as products, the rest step by step.
  void block(int64_t first, int64_t end, double* totals) {
    const int last = net_.count - 1;
    for (int l = 0; l < last; ++l) add(l, walk_.ready(l, first - 1), walk_.ready(l, end - 1), 0, before(l, first));
    add(last, kOutputs * first, kOutputs * end, 0, before(last, first));
    if (net_.direct) add_direct(kOutputs * first, kOutputs * end, 0, first);
    for (int64_t i = first; i < end; ++i) {
      for (int l = 0; l < last; ++l) {
        const int64_t begin = walk_.ready(l, i - 1), stop = walk_.ready(l, i);
        if (begin == stop) continue;
        add(l, begin, stop, before(l, first), INT64_MAX);
        finish(l, begin, stop);
      }
      add(last, kOutputs * i, kOutputs * (i + 1), before(last, first), INT64_MAX);
      if (net_.direct) add_direct(kOutputs * i, kOutputs * (i + 1), first, INT64_MAX);
      feature(i, totals);
    }
  }

  void add(int l, int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums(net_.layers[l].stair, sorted_.weight(l), input(l), begin, end, from, to, sums_[l]);
  }
  void add_direct(int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_sums(net_.direct->stair, sorted_.weight(net_.count), v_, begin, end, from, to, sums_[net_.count - 1]);
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
    T* const shift = sums_[last] + kOutputs * i * R;
    if (const int source = net_.layers[last].residual; source >= 0)
      for (int64_t k = 0; k < kOutputs * R; ++k) shift[k] += sums_[source][kOutputs * i * R + k];
    const T *const raw = shift + R, *const w = w_ + i * R;
    T* const v = v_ + i * R;
    T s[R];
    dispatch_scale_map<T>(a_.map, [&](auto map) {
      for (int r = 0; r < R; ++r) s[r] = map(raw[r]).value;
    });
    if (a_.divide)
      for (int r = 0; r < R; ++r) v[r] = (w[r] - shift[r]) * math::exp(-s[r]);
    else
      for (int r = 0; r < R; ++r) v[r] = w[r] * math::exp(s[r]) + shift[r];
    for (int r = 0; r < R; ++r) totals[r] += s[r];
  }

  const AutoregressiveInverseForward<T>& a_;
  const MaskedNetwork<T>& net_;
  const Walk& walk_;
  const SortedNetwork<T>& sorted_;
  T *w_, *v_, *context_;
  T **sums_, **outputs_;
};

}  // namespace fastgen::cpu::FASTGEN_VARIANT
