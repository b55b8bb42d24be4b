// Solves an autoregressive network for a few rows: with fewer rows than lanes, units lie along the lanes instead. Each unit is
// one dot product over what it sees, at the step it becomes final; the weights stream once.
#pragma once

#include "cpu/autoregressive_solver.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows solved together.
constexpr int kFewRows = 4;

// Lane m of the result is the sum of v[m]'s lanes: as in `transpose`, each step halves how many vectors there are.
template <class T, int M, int Step = 1>
FASTGEN_INLINE Vec<T> sum_lanes(const Vec<T> (&v)[M]) {
  static_assert(M <= kLanes<T>);
  if constexpr (Step == kLanes<T>) {
    return v[0];
  } else {
    Vec<typename Lane<T>::type> low, high;
    for (int i = 0; i < kLanes<T>; ++i) {
      low[i] = i & Step ? kLanes<T> + i - Step : i;
      high[i] = i & Step ? kLanes<T> + i : i + Step;
    }
    constexpr int N = M > 1 ? M / 2 : 1;
    Vec<T> halves[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const Vec<T> a = v[M > 1 ? 2 * i : 0], b = v[M > 1 ? 2 * i + 1 : 0];
      halves[i] = shuffle<T>(a, b, low) + shuffle<T>(a, b, high);
    }
    return sum_lanes<T, N, 2 * Step>(halves);
  }
}

// out[r * ld_out + m] += sum_k weight[m * ld + k] in[r * ld_in + k], k < n. Nothing beyond n is read.
template <class T, int M, int R>
void add_dots(const T* weight, int64_t ld, const T* in, int64_t ld_in, int64_t n, T* out, int64_t ld_out) {
  constexpr int L = kLanes<T>;
  Vec<T> acc[R][M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = Vec<T>{};
  int64_t k = 0;
  for (; k + L <= n; k += L) {
    Vec<T> x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load(in + r * ld_in + k);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<T> w = load(weight + m * ld + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][m] += w * x[r];
    }
  }
  if (k && k < n) {
    // The last lanes once more, without those that are counted already.
    Vec<typename Lane<T>::type> left;
    for (int i = 0; i < L; ++i) left[i] = i - (L - static_cast<int>(n - k));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<T> w = load(weight + m * ld + n - L);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][m] += left >= 0 ? w * load(in + r * ld_in + n - L) : Vec<T>{};
    }
    k = n;
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const Vec<T> sums = sum_lanes<T, M>(acc[r]);
    for (int m = 0; m < M; ++m) {
      T tail = T(0);
      for (int64_t j = k; j < n; ++j) tail += weight[m * ld + j] * in[r * ld_in + j];
      out[r * ld_out + m] += sums[m] + tail;
    }
  }
}

template <class T, class U, int R>
class RowSolver {
 public:
  // Values the state takes: as that of a tile, for R rows, and one feature's outputs side by side.
  static int64_t size(const MaskedNetwork<T>& net, int64_t outputs) {
    int64_t units = net.layers[0].stair.in + outputs;
    for (int l = 0; l < net.count; ++l) units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    return units * R;
  }

  RowSolver(const AutoregressiveSystem<T>& a, const U& map, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
            T* state)
      : a_(a), net_(a.network), map_(map), walk_(walk), sorted_(sorted), sums_(blocks), outputs_(blocks + net_.count) {
    const auto take = [&](int64_t units) {
      T* const block = state;
      state += units * R;
      return block;
    };
    columns_ = take(net_.layers[0].stair.in);
    raw_ = take(map.outputs());
    for (int l = 0; l < net_.count; ++l) {
      sums_[l] = take(width(l));
      outputs_[l] = is_residual_source(net_, l) ? take(width(l)) : sums_[l];
    }
  }

  void solve(int64_t first) {
    double totals[R] = {};
    const int last = net_.count - 1;
    const int64_t outputs = map_.outputs();
    begin(first);
    for (int64_t i = a_.known; i < walk_.features(); ++i) {
      hidden(i - 1, i);
      const int64_t begin = outputs * i, end = outputs * (i + 1);
      add(net_.layers[last].stair, sorted_.weight(last), input(last), begin, end, sums_[last]);
      if (net_.direct) add(net_.direct->stair, sorted_.weight(net_.count), columns_, begin, end, sums_[last]);
      feature(first, i, totals);
    }
    if constexpr (U::has_log_derivative)
      if (a_.log_det)
        for (int r = 0; r < R; ++r) {
          const T total = static_cast<T>(totals[r]);
          a_.log_det[first + r] = a_.log_det_in ? a_.log_det_in[(first + r) * a_.log_det_step] + total : total;
        }
  }

 private:
  int64_t width(int l) const { return net_.layers[l].stair.out; }
  int64_t inputs() const { return net_.layers[0].stair.in; }
  const T* input(int l) const { return l == 0 ? columns_ : outputs_[l - 1]; }

  // Everything up to the first feature that is to be found.
  void begin(int64_t first) {
    for (int l = 0; l < net_.count; ++l) fill(l, first);
    for (int64_t i = 0; i < a_.known; ++i) {
      T value[R];
      for (int r = 0; r < R; ++r) value[r] = a_.given.data[(first + r) * a_.given.row + walk_.feature(i) * a_.given.column];
      set(first, i, value);
    }
    if (a_.known) hidden(-1, a_.known - 1);
  }

  // The sums that every unit starts with.
  void fill(int l, int64_t first) {
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

  // The hidden units that are final once `to` features are known, those aside that were when `from` were.
  void hidden(int64_t from, int64_t to) {
    for (int l = 0; l + 1 < net_.count; ++l) {
      const int64_t begin = walk_.ready(l, from), end = walk_.ready(l, to);
      add(net_.layers[l].stair, sorted_.weight(l), input(l), begin, end, sums_[l]);
      finish(l, begin, end);
    }
  }

  void add(const Staircase& s, const T* weight, const T* in, int64_t begin, int64_t end, T* out) const {
    constexpr int M = least(R == 1 ? 8 : 4, kLanes<T>);
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
    for (int64_t k = 0; k < map_.outputs(); ++k)
      for (int r = 0; r < R; ++r) {
        const int64_t at = r * width(last) + map_.outputs() * i + k;
        raw_[k * R + r] = sums_[last][at] + (source >= 0 ? sums_[source][at] : T(0));
      }
    T noise[U::numbers * R], value[R], log_derivative[R];
    for (int q = 0; q < U::numbers; ++q)
      for (int r = 0; r < R; ++r)
        noise[q * R + r] = a_.noise.data[(first + r) * a_.noise.row + (walk_.feature(i) * U::numbers + q) * a_.noise.column];
    map_.template apply<R>(raw_, noise, R, value, log_derivative);
    set(first, i, value);
    if constexpr (U::has_log_derivative)
      for (int r = 0; r < R; ++r) totals[r] += log_derivative[r];
  }

  // Feature i, in the solution and as the network reads it.
  void set(int64_t first, int64_t i, const T* value) {
    for (int r = 0; r < R; ++r) {
      a_.v[(first + r) * walk_.features() + walk_.feature(i)] = value[r];
      T* const columns = columns_ + r * inputs() + map_.columns() * i;
      if constexpr (U::one_hot)
        for (int64_t c = 0; c < map_.columns(); ++c) columns[c] = value[r] == static_cast<T>(c) ? T(1) : T(0);
      else
        columns[0] = value[r];
    }
  }

  const AutoregressiveSystem<T>& a_;
  const MaskedNetwork<T>& net_;
  const U& map_;
  const Walk& walk_;
  const SortedNetwork<T>& sorted_;
  T *columns_, *raw_;
  T **sums_, **outputs_;
};

// Solves rows [first, first + rows), at most kFewRows of them.
template <class T, class U, int R = kFewRows>
void solve_rows(const AutoregressiveSystem<T>& a, const U& map, const Walk& walk, const SortedNetwork<T>& sorted, T** blocks,
                T* state, int64_t first, int64_t rows) {
  if (rows == R) return RowSolver<T, U, R>(a, map, walk, sorted, blocks, state).solve(first);
  if constexpr (R > 1) solve_rows<T, U, R - 1>(a, map, walk, sorted, blocks, state, first, rows);
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
