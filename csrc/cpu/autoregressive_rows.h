// Solves an autoregressive network for a few rows: with fewer rows than lanes, units lie along the lanes instead. Each unit is
// one dot product over what it sees, at the step it becomes final; the weights stream once.
#pragma once

#include "cpu/autoregressive_solver.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows solved together.
constexpr int kFewRows = 4;

template <class T>
FASTGEN_INLINE T sum_lanes(Vec<T> v) {
  alignas(64) T x[kLanes<T>];
  store(x, v);
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// out[r * ld_out + m] += sum_k weight[m * ld + k] in[r * ld_in + k], k < n. Nothing beyond n is read.
template <class T, int M, int R>
void add_dots(const T* weight, int64_t ld, const T* in, int64_t ld_in, int64_t n, T* out, int64_t ld_out) {
  constexpr int L = kLanes<T>;
  Vec<T> acc[M][R];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = Vec<T>{};
  int64_t k = 0;
  for (; k + L <= n; k += L) {
    Vec<T> x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load(in + r * ld_in + k);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<T> w = load(weight + m * ld + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[m][r] += w * x[r];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) {
      T tail = T(0);
      for (int64_t j = k; j < n; ++j) tail += weight[m * ld + j] * in[r * ld_in + j];
      out[r * ld_out + m] += sum_lanes<T>(acc[m][r]) + tail;
    }
}

template <class T, int R>
class RowSolver {
 public:
  // Values the state takes: as that of a tile, for R rows.
  static int64_t size(const MaskedNetwork<T>& net) {
    int64_t units = net.layers[0].stair.in;
    for (int l = 0; l < net.count; ++l) units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    return units * R;
  }

  RowSolver(const AutoregressiveInverseForward<T>& a, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks, T* state)
      : a_(a), net_(a.network), walk_(walk), sorted_(sorted), sums_(blocks), outputs_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * R;
      return block;
    };
    v_ = take(walk.features());
    for (int l = 0; l < net_.count; ++l) {
      sums_[l] = take(width(l));
      outputs_[l] = is_residual_source(net_, l) ? take(width(l)) : sums_[l];
    }
  }

  void solve(int64_t first) {
    for (int l = 0; l < net_.count; ++l) begin(l, first);
    double totals[R] = {};
    const int last = net_.count - 1;
    for (int64_t i = 0; i < walk_.features(); ++i) {
      for (int l = 0; l < last; ++l) {
        const int64_t begin = walk_.ready(l, i - 1), end = walk_.ready(l, i);
        add(net_.layers[l].stair, sorted_.weight(l), l == 0 ? v_ : outputs_[l - 1], begin, end, sums_[l]);
        finish(l, begin, end);
      }
      const int64_t begin = kOutputs * i, end = kOutputs * (i + 1);
      add(net_.layers[last].stair, sorted_.weight(last), last == 0 ? v_ : outputs_[last - 1], begin, end, sums_[last]);
      if (net_.direct) add(net_.direct->stair, sorted_.weight(net_.count), v_, begin, end, sums_[last]);
      feature(first, i, totals);
    }
    for (int r = 0; r < R; ++r) {
      const T total = static_cast<T>(a_.divide ? -totals[r] : totals[r]);
      a_.log_det[first + r] = a_.log_det_in ? a_.log_det_in[(first + r) * a_.log_det_step] + total : total;
    }
  }

 private:
  int64_t width(int l) const { return net_.layers[l].stair.out; }

  void begin(int l, int64_t first) {
    const NetworkLayer<T>& layer = net_.layers[l];
    const int32_t* const order = layer.stair.out_order;
    for (int64_t u = 0; u < width(l); ++u) {
      const int64_t unit = order ? order[u] : u;
      for (int r = 0; r < R; ++r) {
        T sum = layer.bias ? layer.bias[unit] : T(0);
        if (l == 0 && a_.context_terms) sum += a_.context_terms[(first + r) * a_.ld_context + unit];
        sums_[l][r * width(l) + u] = sum;
      }
    }
  }

  void add(const Staircase& s, const T* weight, const T* in, int64_t begin, int64_t end, T* out) const {
    constexpr int M = R == 1 ? 8 : 4;
    for (int64_t u = begin; u < end;) {
      const int64_t seen = s.prefix[u];
      int64_t same = 1;
      while (u + same < end && s.prefix[u + same] == seen) ++same;
      for (const int64_t stop = u + same; u < stop;) {
        const T* const w = weight + u * s.in;
        if (stop - u >= M)
          add_dots<T, M, R>(w, s.in, in, s.in, seen, out + u, s.out), u += M;
        else if (stop - u >= 2)
          add_dots<T, 2, R>(w, s.in, in, s.in, seen, out + u, s.out), u += 2;
        else
          add_dots<T, 1, R>(w, s.in, in, s.in, seen, out + u, s.out), u += 1;
      }
    }
  }

  void finish(int l, int64_t begin, int64_t end) {
    const NetworkLayer<T>& layer = net_.layers[l];
    for (int r = 0; r < R && begin < end; ++r) {
      T *const sums = sums_[l] + r * width(l), *const outputs = outputs_[l] + r * width(l);
      if (layer.residual >= 0)
        for (int64_t u = begin; u < end; ++u) sums[u] += sums_[layer.residual][r * width(l) + u];
      if (outputs != sums)
        for (int64_t u = begin; u < end; ++u) outputs[u] = sums[u];
      activate_row(layer.activation, outputs + begin, end - begin);
    }
  }

  void feature(int64_t first, int64_t i, double* totals) {
    const int last = net_.count - 1, source = net_.layers[last].residual;
    const int32_t* const order = net_.layers[0].stair.in_order;
    const int64_t column = order ? order[i] : i;
    T shift[R], raw[R], s[R];
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * width(last) + kOutputs * i;
      shift[r] = sums_[last][at] + (source >= 0 ? sums_[source][at] : T(0));
      raw[r] = sums_[last][at + 1] + (source >= 0 ? sums_[source][at + 1] : T(0));
    }
    dispatch_scale_map<T>(a_.map, [&](auto map) {
      for (int r = 0; r < R; ++r) s[r] = map(raw[r]).value;
    });
    for (int r = 0; r < R; ++r) {
      const T w = a_.w.data[(first + r) * a_.w.row + column * a_.w.column];
      const T v = a_.divide ? (w - shift[r]) * math::exp(-s[r]) : w * math::exp(s[r]) + shift[r];
      v_[r * walk_.features() + i] = v;
      a_.v[(first + r) * walk_.features() + column] = v;
      totals[r] += s[r];
    }
  }

  const AutoregressiveInverseForward<T>& a_;
  const MaskedNetwork<T>& net_;
  const Walk& walk_;
  const SortedNetwork<T>& sorted_;
  T* v_;
  T **sums_, **outputs_;
};

// Solves rows [first, first + rows), at most kFewRows of them.
template <class T, int R = kFewRows>
void solve_rows(const AutoregressiveInverseForward<T>& a, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
                T* state, int64_t first, int64_t rows) {
  if (rows == R) return RowSolver<T, R>(a, walk, sorted, blocks, state).solve(first);
  if constexpr (R > 1) solve_rows<T, R - 1>(a, walk, sorted, blocks, state, first, rows);
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
