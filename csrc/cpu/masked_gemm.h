// The three products of a masked linear layer: forward, input gradient, weight gradient.
//
// In the order of degrees the mask is a staircase: sorted output o sees the first prefix[o] sorted inputs. Each product is
// cut into panels of kPanel columns. A panel is packed once, with the mask applied, into a thread's own scratch, so that the
// inner loop knows no mask and ends where the panel's staircase does. Panels, and chunks of rows where panels are few, go
// to threads longest first. Every element of a result is summed by one thread in an order of its own: results do not depend
// on scheduling or on the number of threads.
#pragma once

#include <omp.h>

#include <type_traits>

#include "cpu/activation_rows.h"
#include "cpu/scratch.h"
#include "cpu/staircase.h"
#include "cpu/tile.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Multiplications below which waking other threads costs more than it gains.
constexpr int64_t kSerialWork = 1 << 18;

// Rows [begin, end) in tiles of even height, so that no thin tile is left over.
template <class F>
FASTGEN_INLINE void for_tiles(int64_t begin, int64_t end, const F& f) {
  const int64_t rows = end - begin, tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t first = begin + rows * t / tiles, last = begin + rows * (t + 1) / tiles;
    f(first, static_cast<int>(last - first));
  }
}

// How the columns of a product are dealt to threads: panels, each in `chunks` of its rows.
struct Work {
  int64_t panels, chunks, rows;
  int threads;

  Work(int64_t columns, int width, int64_t rows_, int64_t multiplications) : rows(rows_) {
    panels = (columns + width - 1) / width;
    threads = multiplications < kSerialWork ? 1 : omp_get_max_threads();
    const int64_t wanted = threads == 1 ? 1 : (2 * threads + panels - 1) / panels;
    chunks = most<int64_t>(1, least(wanted, rows / (2 * kTileRows)));
  }
  int64_t items() const { return panels * chunks; }
  int64_t begin(int64_t chunk) const { return rows * chunk / chunks; }
};

// Calls f(panel, first row, last row, scratch) for every item, longest panels first: `descending` where the last is longest.
template <class T, class F>
void for_panels(const Work& work, bool descending, size_t scratch_per_thread, const F& f) {
  static thread_local Scratch scratch;
  T* const base = scratch.get<T>(scratch_per_thread * work.threads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(work.threads) if (work.threads > 1)
  for (int64_t i = 0; i < work.items(); ++i) {
    const int64_t p = descending ? work.panels - 1 - i / work.chunks : i / work.chunks, c = i % work.chunks;
    f(p, work.begin(c), work.begin(c + 1), base + scratch_per_thread * omp_get_thread_num());
  }
  scratch.trim();
}

// A matrix of rows whose columns may be in another order.
template <class T>
struct Columns {
  T* data;
  int64_t ld;
  const int32_t* order;  // null: as they stand

  FASTGEN_INLINE int64_t at(int64_t c) const { return order ? order[c] : c; }
  FASTGEN_INLINE void read(int64_t row, int64_t first, int n, std::remove_const_t<T>* out) const {
    const T* p = data + row * ld;
    if (order)
      for (int j = 0; j < n; ++j) out[j] = p[order[first + j]];
    else
      for (int j = 0; j < n; ++j) out[j] = p[first + j];
  }
  FASTGEN_INLINE void write(int64_t row, int64_t first, int n, const T* in) const {
    T* p = data + row * ld;
    if (order)
      for (int j = 0; j < n; ++j) p[order[first + j]] = in[j];
    else
      for (int j = 0; j < n; ++j) p[first + j] = in[j];
  }
};

// The rows of `x` with their columns in sorted order: x itself where it is, else a copy in `scratch`.
template <class T>
const T* sorted_columns(Columns<const T> x, int64_t rows, int64_t n, Scratch& scratch, int64_t& ld) {
  if (!x.order) return ld = x.ld, x.data;
  T* out = scratch.get<T>(rows * n);
#pragma omp parallel for if (rows * n > kSerialWork)
  for (int64_t b = 0; b < rows; ++b) x.read(b, 0, static_cast<int>(n), out + b * n);
  return ld = n, out;
}

// Where a forward product goes: y = act(sum + bias + addend), and the sums before `act` where they are wanted.
template <class T>
struct ForwardOutput {
  T* y;
  int64_t ld;
  Activation activation;
  const T* addend = nullptr;
  int64_t addend_ld = 0;
  T* sums = nullptr;

  bool plain() const {
    return !addend && !sums && (activation == Activation::identity || activation == Activation::relu);
  }
};

// Sums with their bias on the way to y: n outputs of one row.
template <class T>
void finish_row(const ForwardOutput<T>& out, const Staircase& s, int64_t row, int64_t first, int n, T* sums) {
  if (out.addend) {
    T extra[kPanel<T>];
    Columns<const T>{out.addend, out.addend_ld, s.out_order}.read(row, first, n, extra);
    for (int j = 0; j < n; ++j) sums[j] += extra[j];
  }
  if (out.sums) Columns<T>{out.sums, s.out, s.out_order}.write(row, first, n, sums);
  activate_row(out.activation, sums, kPanel<T>);
  Columns<T>{out.y, out.ld, s.out_order}.write(row, first, n, sums);
}

// Packs outputs [first, first + n) over `depth` sorted inputs: panel[k][j] = W[j][k] where output j sees input k, else 0.
template <class T>
void pack_outputs(const T* weight, const Staircase& s, int64_t first, int n, int64_t depth, T* panel) {
  constexpr int L = kLanes<T>;
  const bool gather = s.in_order || n < kPanel<T>;
  const int64_t square = gather ? 0 : depth / L * L;
  for (int half = 0; half < 2 && square; ++half)
    for (int64_t k = 0; k < square; k += L) {
      Vec<T> r[L];
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) {
        const int64_t o = first + half * L + j;
        r[j] = load(weight + (s.out_order ? s.out_order[o] : o) * s.in + k);
      }
      transpose<T>(r);
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) store(panel + (k + j) * kPanel<T> + half * L, r[j]);
    }
  for (int j = 0; j < n; ++j) {
    const T* row = weight + (s.out_order ? s.out_order[first + j] : first + j) * s.in;
    const int64_t seen = s.prefix[first + j];
    if (s.in_order)
      for (int64_t k = square; k < seen; ++k) panel[k * kPanel<T> + j] = row[s.in_order[k]];
    else
      for (int64_t k = square; k < seen; ++k) panel[k * kPanel<T> + j] = row[k];
    for (int64_t k = seen; k < depth; ++k) panel[k * kPanel<T> + j] = T(0);
  }
  for (int j = n; j < kPanel<T>; ++j)
    for (int64_t k = 0; k < depth; ++k) panel[k * kPanel<T> + j] = T(0);
}

// y = act(x W^T + bias + addend) under the mask. `bias` may be null.
template <class T>
void forward_product(
    Columns<const T> x, const T* weight, const T* bias, const Staircase& s, int64_t rows, const ForwardOutput<T>& out) {
  static thread_local Scratch sorted;
  int64_t ldx;
  const T* xs = sorted_columns(x, rows, s.in, sorted, ldx);
  const Work work(s.out, kPanel<T>, rows, rows * s.in * s.out / 2);
  for_panels<T>(work, true, (s.in + 1) * kPanel<T>, [&](int64_t p, int64_t begin, int64_t end, T* panel) {
    const int64_t first = p * kPanel<T>;
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.out - first));
    const int64_t depth = s.prefix[first + n - 1];
    pack_outputs(weight, s, first, n, depth, panel);
    T* const biases = panel + depth * kPanel<T>;
    for (int j = 0; j < kPanel<T>; ++j)
      biases[j] = bias && j < n ? bias[s.out_order ? s.out_order[first + j] : first + j] : T(0);
    const bool direct = n == kPanel<T> && !s.out_order && out.plain();
    for_tiles(begin, end, [&](int64_t b, int m) {
      alignas(64) T buffer[kTileRows * kPanel<T>];
      Tile<T> tile{xs + b * ldx, ldx, 1, panel, depth, buffer, kPanel<T>, biases};
      if (direct) {
        tile.out = out.y + b * out.ld + first, tile.ld = out.ld;
        if (out.activation == Activation::relu) tile.floor = T(0);
      }
      multiply_tile(m, tile);
      if (!direct)
        for (int i = 0; i < m; ++i) finish_row(out, s, b + i, first, n, buffer + i * kPanel<T>);
    });
  });
}

// Where an input gradient goes: gx = (sum + gx if accumulate) * act'(saved).
template <class T>
struct GradientOutput {
  T* gx;
  int64_t ld;
  bool accumulate = false;
  Activation activation = Activation::identity;
  const T* saved = nullptr;  // what act' is taken from, rows of the same columns; null for the identity

  bool plain() const { return !accumulate && !saved; }
};

// Packs inputs [first, first + n) over the outputs from `start` on: panel[o - start][j] = W[o][j] where seen, else 0.
template <class T>
void pack_inputs(const T* weight, const Staircase& s, int64_t first, int n, int64_t start, T* panel) {
  for (int64_t o = start; o < s.out; ++o, panel += kPanel<T>) {
    const T* row = weight + (s.out_order ? s.out_order[o] : o) * s.in;
    const int64_t seen = least<int64_t>(s.prefix[o] - first, n);
    if (!s.in_order && seen == kPanel<T>) {
      store(panel, load(row + first));
      store(panel + kLanes<T>, load(row + first + kLanes<T>));
      continue;
    }
    for (int64_t j = 0; j < kPanel<T>; ++j)
      panel[j] = j < seen ? row[s.in_order ? s.in_order[first + j] : first + j] : T(0);
  }
}

// Sums on the way to gx: n inputs of one row.
template <class T>
void finish_row(const GradientOutput<T>& out, const Staircase& s, int64_t row, int64_t first, int n, T* sums) {
  T other[kPanel<T>] = {};
  if (out.accumulate) {
    Columns<const T>{out.gx, out.ld, s.in_order}.read(row, first, n, other);
    for (int j = 0; j < n; ++j) sums[j] += other[j];
  }
  if (out.saved) {
    Columns<const T>{out.saved, s.in, s.in_order}.read(row, first, n, other);
    multiply_by_derivative(out.activation, other, sums, kPanel<T>);
  }
  Columns<T>{out.gx, out.ld, s.in_order}.write(row, first, n, sums);
}

// gx = g W under the mask. `g` has its columns in sorted order.
template <class T>
void input_gradient(
    const T* g, int64_t ldg, const T* weight, const Staircase& s, int64_t rows, const GradientOutput<T>& out) {
  const Work work(s.in, kPanel<T>, rows, rows * s.in * s.out / 2);
  for_panels<T>(work, false, s.out * kPanel<T>, [&](int64_t p, int64_t begin, int64_t end, T* panel) {
    const int64_t first = p * kPanel<T>, start = s.suffix[first], depth = s.out - start;
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.in - first));
    pack_inputs(weight, s, first, n, start, panel);
    const bool direct = n == kPanel<T> && !s.in_order && out.plain();
    for_tiles(begin, end, [&](int64_t b, int m) {
      alignas(64) T buffer[kTileRows * kPanel<T>];
      Tile<T> tile{g + b * ldg + start, ldg, 1, panel, depth, buffer, kPanel<T>};
      if (direct) tile.out = out.gx + b * out.ld + first, tile.ld = out.ld;
      multiply_tile(m, tile);
      if (!direct)
        for (int i = 0; i < m; ++i) finish_row(out, s, b + i, first, n, buffer + i * kPanel<T>);
    });
  });
}

// Packs columns [first, first + n) of `count` rows: panel[b][j], 0 beyond n.
template <class T>
void pack_rows(Columns<const T> x, int64_t row, int64_t count, int64_t first, int n, T* panel) {
  for (int64_t b = 0; b < count; ++b, panel += kPanel<T>) {
    if (n == kPanel<T> && !x.order) {
      const T* from = x.data + (row + b) * x.ld + first;
      store(panel, load(from));
      store(panel + kLanes<T>, load(from + kLanes<T>));
      continue;
    }
    x.read(row + b, first, n, panel);
    for (int j = n; j < kPanel<T>; ++j) panel[j] = T(0);
  }
}

// Rows of the batch that one pass of a weight gradient takes in.
constexpr int64_t kBatchChunk = 1024;

// gw = g^T x under the mask, zero outside it. `g` has its columns in sorted order.
template <class T>
void weight_gradient(const T* g, int64_t ldg, Columns<const T> x, const Staircase& s, int64_t rows, T* gw) {
  const Work work(s.in, kPanel<T>, s.out, rows * s.in * s.out / 2);
  const int64_t chunk = least(kBatchChunk, rows);
  const auto row_of = [&](int64_t o) { return s.out_order ? s.out_order[o] : o; };
  const Columns<T> out{gw, s.in, s.in_order};
  for_panels<T>(work, false, chunk * kPanel<T>, [&](int64_t p, int64_t begin, int64_t end, T* panel) {
    const int64_t first = p * kPanel<T>, start = rows ? most<int64_t>(begin, s.suffix[first]) : end;
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.in - first));
    const T zeros[kPanel<T>] = {};
    for (int64_t o = begin; o < least(start, end); ++o) out.write(row_of(o), first, n, zeros);
    for (int64_t r = 0; r < rows; r += chunk) {
      const int64_t depth = least(chunk, rows - r);
      pack_rows(x, r, depth, first, n, panel);
      for_tiles(start, end, [&](int64_t o, int m) {
        alignas(64) T buffer[kTileRows * kPanel<T>];
        Tile<T> tile{g + r * ldg + o, 1, ldg, panel, depth, buffer, kPanel<T>};
        if (n == kPanel<T> && !s.in_order && !s.out_order && s.prefix[o] - first >= n) {
          tile.out = gw + o * s.in + first, tile.ld = s.in, tile.accumulate = r > 0;
          return multiply_tile(m, tile);
        }
        multiply_tile(m, tile);
        for (int i = 0; i < m; ++i) {
          T* const sums = buffer + i * kPanel<T>;
          if (r) {
            T before[kPanel<T>];
            Columns<const T>{gw, s.in, s.in_order}.read(row_of(o + i), first, n, before);
            for (int j = 0; j < n; ++j) sums[j] += before[j];
          }
          for (int64_t j = most<int64_t>(0, s.prefix[o + i] - first); j < n; ++j) sums[j] = T(0);
          out.write(row_of(o + i), first, n, sums);
        }
      });
    }
  });
}

// gb[order[o]] = sum over rows of g[.][o], in partial sums of kRows rows.
template <class T>
void bias_gradient(const T* g, int64_t ldg, const int32_t* order, int64_t rows, int64_t n, T* gb) {
  constexpr int64_t kColumns = 64, kRows = 256;
  const int64_t blocks = (n + kColumns - 1) / kColumns;
#pragma omp parallel for if (rows * n > kSerialWork / 4)
  for (int64_t c = 0; c < blocks; ++c) {
    const int64_t first = c * kColumns, width = least(kColumns, n - first);
    T total[kColumns] = {};
    for (int64_t r = 0; r < rows; r += kRows) {
      T part[kColumns] = {};
      for (int64_t b = r; b < least(rows, r + kRows); ++b)
        for (int64_t j = 0; j < width; ++j) part[j] += g[b * ldg + first + j];
      for (int64_t j = 0; j < width; ++j) total[j] += part[j];
    }
    for (int64_t j = 0; j < width; ++j) gb[order ? order[first + j] : first + j] = total[j];
  }
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
