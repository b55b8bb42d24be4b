// The gradient of an autoregressive solution, for one tile of rows: the walk of the solver backwards. At the step of a feature
// the gradients of all sums that read it are known, and with it become known those of its outputs and of the units they read.
#pragma once

#include "cpu/autoregressive_solver.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Outputs per feature: shift and log-scale.
constexpr int kOutputs = 2;

template <class T>
class TileGradient {
 public:
  // Values the state of a tile takes: noise, solution and its gradient, the outputs and their gradients, and for every hidden
  // layer what was saved of it and the gradients of its sums.
  static int64_t size(const MaskedNetwork<T>& net) {
    int64_t units = 3 * net.layers[0].stair.in;
    for (int l = 0; l < net.count; ++l) units += 2 * net.layers[l].stair.out;
    return units * kTile<T>;
  }

  // `blocks` has room for two pointers a layer; `deltas`: where the gradients of each layer's sums go, row by row.
  TileGradient(const AutoregressiveInverseBackward<T>& a, const Walk& walk, const SortedNetwork<T>& sorted, T* const* deltas,
               T** blocks, T* state)
      : a_(a), net_(a.network), walk_(walk), sorted_(sorted), to_(deltas), delta_(blocks), value_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * kTile<T>;
      return block;
    };
    w_ = take(walk.features());
    v_ = take(walk.features());
    grad_ = take(walk.features());
    for (int l = 0; l < net_.count; ++l) {
      delta_[l] = take(net_.layers[l].stair.out);
      value_[l] = take(net_.layers[l].stair.out);
    }
  }

  void run(int64_t first, int64_t rows) {
    begin(first, rows);
    const int64_t features = walk_.features(), blocks = (features + kWalkBlock - 1) / kWalkBlock;
    for (int64_t k = blocks - 1; k >= 0; --k) block(k * kWalkBlock, least((k + 1) * kWalkBlock, features));
    for (int l = 0; l < net_.count; ++l) {
      const Staircase& s = net_.layers[l].stair;
      if (to_[l]) store_tile<T>(delta_[l], first, rows, s.out, Columns<T>{to_[l], s.out, s.out_order});
    }
    if (a_.grad_w) store_tile<T>(w_, first, rows, features, Columns<T>{a_.grad_w, features, net_.layers[0].stair.in_order});
  }

 private:
  void begin(int64_t first, int64_t rows) {
    const Staircase& inputs = net_.layers[0].stair;
    const int64_t features = walk_.features();
    load_strided(a_.w, first, rows, w_);
    load_strided(a_.grad_v, first, rows, grad_);
    load_tile(Columns<const T>{a_.v, features, inputs.in_order}, first, rows, features, v_);
    const T* saved = a_.saved;
    for (int l = 0; l < net_.count; ++l) {
      const Staircase& s = net_.layers[l].stair;
      const bool last = l + 1 == net_.count;
      load_tile(Columns<const T>{last ? a_.y : saved, s.out, s.out_order}, first, rows, s.out, value_[l]);
      // Units that no output reads stay without a gradient.
      for (int64_t i = 0; i < s.out * kTile<T>; ++i) delta_[l][i] = T(0);
      saved += a_.rows * s.out;
    }
    for (int64_t r = 0; r < kTile<T>; ++r)
      grad_log_det_[r] = a_.grad_log_det && r < rows ? a_.grad_log_det[(first + r) * a_.grad_log_det_step] : T(0);
  }

  void load_strided(const Strided<T>& from, int64_t first, int64_t rows, T* to) const {
    constexpr int R = kTile<T>;
    const int32_t* const order = net_.layers[0].stair.in_order;
    for (int64_t i = 0; i < walk_.features(); ++i) {
      const T* column = from.data ? from.data + first * from.row + (order ? order[i] : i) * from.column : nullptr;
      for (int64_t r = 0; r < R; ++r) to[i * R + r] = column && r < rows ? column[r * from.row] : T(0);
    }
  }

  // Sums of layer l that are final when all features before `end` are still to come.
  int64_t after(int l, int64_t end) const { return l + 1 == net_.count ? kOutputs * end : walk_.ready(l, end - 1); }

  void block(int64_t first, int64_t end) {
    const int last = net_.count - 1;
    pull_features(first, end, after(0, end), net_.layers[0].stair.out, kOutputs * end, kOutputs * walk_.features());
    for (int l = 0; l < last; ++l)
      pull(l, walk_.ready(l, first - 1), walk_.ready(l, end - 1), after(l + 1, end), net_.layers[l + 1].stair.out);
    for (int64_t i = end - 1; i >= first; --i) {
      pull_features(i, i + 1, 0, after(0, end), 0, kOutputs * end);
      feature(i);
      for (int l = last - 1; l >= 0; --l) {
        const int64_t begin = walk_.ready(l, i - 1), stop = walk_.ready(l, i);
        pull(l, begin, stop, 0, after(l + 1, end));
        finish(l, begin, stop);
      }
    }
  }

  // Adds to the gradients of features what sums [from, to) of the first layer and outputs [direct_from, direct_to) send.
  void pull_features(int64_t begin, int64_t end, int64_t from, int64_t to, int64_t direct_from, int64_t direct_to) {
    add_pulls(net_.layers[0].stair, sorted_.weight(0), delta_[0], begin, end, from, to, grad_);
    if (net_.direct)
      add_pulls(net_.direct->stair, sorted_.weight(net_.count), delta_[net_.count - 1], begin, end, direct_from, direct_to,
                grad_);
  }

  // Adds to the gradients of units [begin, end) of layer l what sums [from, to) of the next layer send.
  void pull(int l, int64_t begin, int64_t end, int64_t from, int64_t to) {
    add_pulls(net_.layers[l + 1].stair, sorted_.weight(l + 1), delta_[l + 1], begin, end, from, to, delta_[l]);
  }

  // From the gradient of the outputs of units [begin, end) to that of their sums.
  void finish(int l, int64_t begin, int64_t end) {
    constexpr int R = kTile<T>;
    if (begin == end) return;
    T* const delta = delta_[l] + begin * R;
    const int64_t n = (end - begin) * R;
    multiply_by_derivative(net_.layers[l].activation, value_[l] + begin * R, delta, n);
    for (int c = l + 1; c < net_.count; ++c)
      if (net_.layers[c].residual == l)
        for (int64_t i = 0; i < n; ++i) delta[i] += delta_[c][begin * R + i];
  }

  // The gradients of a feature's outputs, and of its noise, which takes the noise's place.
  void feature(int64_t i) {
    constexpr int R = kTile<T>;
    const int last = net_.count - 1;
    const T *const raw = value_[last] + (kOutputs * i + 1) * R, *const v = v_ + i * R, *const g = grad_ + i * R;
    T *const shift = delta_[last] + kOutputs * i * R, *const log_scale = shift + R, *const w = w_ + i * R;
    T s[R], derivative[R];
    dispatch_scale_map<T>(a_.map, [&](auto map) {
      for (int r = 0; r < R; ++r) {
        const auto [value, slope] = map(raw[r]);
        s[r] = value, derivative[r] = slope;
      }
    });
    const T sign = a_.divide ? T(-1) : T(1);
    for (int r = 0; r < R; ++r) {
      const T scale = math::exp(sign * s[r]), through = g[r] * scale;
      shift[r] = a_.divide ? -through : g[r];
      // w e^s loses no digits, where v - shift would.
      const T pull = a_.divide ? -g[r] * v[r] : through * w[r];
      log_scale[r] = (pull + sign * grad_log_det_[r]) * derivative[r];
      w[r] = through;
    }
  }

  const AutoregressiveInverseBackward<T>& a_;
  const MaskedNetwork<T>& net_;
  const Walk& walk_;
  const SortedNetwork<T>& sorted_;
  T* const* to_;
  T *w_, *v_, *grad_;
  T **delta_, **value_;
  T grad_log_det_[kTile<T>];
};

}  // namespace fastgen::cpu::FASTGEN_VARIANT
