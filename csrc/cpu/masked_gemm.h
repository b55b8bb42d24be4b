// The three products of a masked linear layer: forward, input gradient, weight gradient.
//
// In the order of degrees the mask is a staircase: sorted output o sees the first prefix[o] sorted inputs. The right factor is
// packed into panels of columns with the mask applied, so that the inner loop knows no mask and ends where the panel's
// staircase does. The left factor is read where it lies, or packed where its columns are out of order or run across memory.
// Panels, and chunks of tiles where panels are few, go to threads longest first. Every element of a result is summed by one
// thread in an order of its own: results do not depend on scheduling or on the number of threads.
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
    else if (n == kPanel<T>)
      __builtin_memcpy(out, p + first, kPanel<T> * sizeof(T));
    else
      for (int j = 0; j < n; ++j) out[j] = p[first + j];
  }
  FASTGEN_INLINE void write(int64_t row, int64_t first, int n, const T* in) const {
    T* p = data + row * ld;
    if (order)
      for (int j = 0; j < n; ++j) p[order[first + j]] = in[j];
    else if (n == kPanel<T>)
      __builtin_memcpy(p + first, in, kPanel<T> * sizeof(T));
    else
      for (int j = 0; j < n; ++j) p[first + j] = in[j];
  }
};

// Columns [first, first + n) of m rows, to and from a buffer whose rows are kPanel apart.
template <class T>
FASTGEN_INLINE void read_rows(Columns<const T> from, int64_t row, int m, int64_t first, int n, T* to) {
  for (int i = 0; i < m; ++i) from.read(row + i, first, n, to + i * kPanel<T>);
}
template <class T>
FASTGEN_INLINE void write_rows(Columns<T> to, int64_t row, int m, int64_t first, int n, const T* from) {
  for (int i = 0; i < m; ++i) to.write(row + i, first, n, from + i * kPanel<T>);
}

// Rows [0, rows) in tiles of even height, at most `most`, so that no thin tile is left over.
struct Tiles {
  int64_t rows;
  int64_t most = kTileRows;

  int64_t count() const { return (rows + most - 1) / most; }
  int64_t begin(int64_t t) const { return rows * t / count(); }
  int height(int64_t t) const { return static_cast<int>(begin(t + 1) - begin(t)); }
};

// A packed left factor lies row by row and is read along k, as one in place is: measured, an AMD Zen 4 loads broadcasts that
// walk lines half as fast again as those that find new lines at every k. A row is an odd number of vectors: were it a power of
// two, those of a tile would share one set of the first cache.
template <class T>
constexpr int64_t packed_row(int64_t depth) {
  return ((depth + kLanes<T> - 1) / kLanes<T> | 1) * kLanes<T>;
}

// Packs a row of x: packed[k] = x[row][k], k < depth.
template <class T>
void pack_row(Columns<const T> x, int64_t row, int64_t depth, T* packed) {
  for (int64_t k = 0; k < depth; ++k) packed[k] = x.data[row * x.ld + x.at(k)];
}

// Packs columns of x as rows: packed[i][k] = x[row + k][first + i], k < depth, i < m <= kLanes.
template <class T>
void pack_columns(Columns<const T> x, int64_t row, int64_t depth, int64_t first, int m, T* packed) {
  constexpr int L = kLanes<T>;
  const int64_t step = packed_row<T>(depth), square = !x.order && m == L ? depth / L * L : 0;
  for (int64_t k = 0; k < square; k += L) {
    Vec<T> v[L];
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) v[j] = load(x.data + (row + k + j) * x.ld + first);
    transpose<T>(v);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) store(packed + i * step + k, v[i]);
  }
  for (int64_t k = square; k < depth; ++k)
    for (int i = 0; i < m; ++i) packed[i * step + k] = x.data[(row + k) * x.ld + x.at(first + i)];
}

// One product: `tiles` of the left factor times panels over `columns`, `depth` deep. `pack(i, left)` packs one of `packs`
// pieces of the left factor; none where it is read in place. `item(first column, first tile, last tile, left, panel)` computes
// a panel for some tiles, `left` holding all that is packed and `panel` room for one. The longest panel is the last where
// `descending`, else the first.
template <class T, class Pack, class Item>
void blocked_product(Tiles tiles, int64_t depth, int64_t columns, int64_t multiplications, bool descending, int64_t packs,
                     const Pack& pack, const Item& item) {
  static thread_local Scratch scratch;
  const int64_t panels = (columns + kPanel<T> - 1) / kPanel<T>;
  const int threads = multiplications < kSerialWork ? 1 : omp_get_max_threads();
  const int64_t chunks = most<int64_t>(1, least((2 * threads + panels - 1) / panels, tiles.count() / 2));
  const int64_t left_size = packs ? tiles.rows * packed_row<T>(depth) : 0, panel_size = (depth + 1) * kPanel<T>;
  T* const left = scratch.get<T>(left_size + threads * panel_size);
  T* const panels_of_threads = left + left_size;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    if (packs) {
#pragma omp for
      for (int64_t i = 0; i < packs; ++i) pack(i, left);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < panels * chunks; ++i) {
      const int64_t p = descending ? panels - 1 - i / chunks : i / chunks, c = i % chunks;
      item(p * kPanel<T>, tiles.count() * c / chunks, tiles.count() * (c + 1) / chunks, left,
           panels_of_threads + omp_get_thread_num() * panel_size);
    }
  }
  scratch.trim();
}

// Rows of the batch that are packed at a time: what a call works in does not grow with the batch beyond that.
constexpr int64_t kBatchChunk = 1024;

// Where a forward product goes: y = act(sum + bias + addend), and the sums before `act` where they are wanted.
template <class T>
struct ForwardOutput {
  T* y;
  int64_t ld;
  Activation activation;
  const T* addend = nullptr;
  int64_t addend_ld = 0;
  T* sums = nullptr;

  bool plain() const { return !addend && !sums && (activation == Activation::identity || activation == Activation::relu); }
};

// A tile of sums with their bias on the way to y: n outputs of m rows, each row kPanel apart.
template <class T>
void finish_tile(const ForwardOutput<T>& out, const Staircase& s, int64_t row, int m, int64_t first, int n, T* sums) {
  if (out.addend) {
    T other[kTileRows * kPanel<T>] = {};
    read_rows(Columns<const T>{out.addend, out.addend_ld, s.out_order}, row, m, first, n, other);
    for (int j = 0; j < m * kPanel<T>; ++j) sums[j] += other[j];
  }
  if (out.sums) write_rows(Columns<T>{out.sums, s.out, s.out_order}, row, m, first, n, sums);
  activate_row(out.activation, sums, m * kPanel<T>);
  write_rows(Columns<T>{out.y, out.ld, s.out_order}, row, m, first, n, sums);
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

// y = act(x W^T + bias + addend) under the mask, for rows [row, row + tiles.rows). `bias` may be null.
template <class T>
void forward_chunk(Columns<const T> x, const T* weight, const T* bias, const Staircase& s, int64_t row, Tiles tiles,
                   const ForwardOutput<T>& out) {
  const int64_t step = packed_row<T>(s.in);
  const auto pack = [&](int64_t i, T* left) { pack_row(x, row + i, s.in, left + i * step); };
  const auto item = [&](int64_t first, int64_t begin, int64_t end, const T* left, T* panel) {
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.out - first));
    const int64_t depth = s.prefix[first + n - 1];
    pack_outputs(weight, s, first, n, depth, panel);
    T* const biases = panel + depth * kPanel<T>;
    for (int j = 0; j < kPanel<T>; ++j)
      biases[j] = bias && j < n ? bias[s.out_order ? s.out_order[first + j] : first + j] : T(0);
    const bool direct = n == kPanel<T> && !s.out_order && out.plain();
    for (int64_t t = begin; t < end; ++t) {
      alignas(64) T buffer[kTileRows * kPanel<T>];
      const int64_t b = row + tiles.begin(t);
      Tile<T> tile{x.data + b * x.ld, x.ld, 1, panel, depth, buffer, kPanel<T>, biases};
      if (x.order) tile.a = left + tiles.begin(t) * step, tile.row_step = step;
      if (direct) {
        tile.out = out.y + b * out.ld + first, tile.ld = out.ld;
        if (out.activation == Activation::relu) tile.floor = T(0);
      }
      multiply_tile(tiles.height(t), tile);
      if (!direct) finish_tile(out, s, b, tiles.height(t), first, n, buffer);
    }
  };
  blocked_product<T>(tiles, s.in, s.out, tiles.rows * s.in * s.out / 2, true, x.order ? tiles.rows : 0, pack, item);
}

template <class T>
void forward_product(Columns<const T> x, const T* weight, const T* bias, const Staircase& s, int64_t rows,
                     const ForwardOutput<T>& out) {
  for (int64_t row = 0; row < rows; row += kBatchChunk)
    forward_chunk(x, weight, bias, s, row, Tiles{least(kBatchChunk, rows - row)}, out);
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
    for (int64_t j = 0; j < kPanel<T>; ++j) panel[j] = j < seen ? row[s.in_order ? s.in_order[first + j] : first + j] : T(0);
  }
}

// A tile of sums on the way to gx: n inputs of m rows, each row kPanel apart.
template <class T>
void finish_tile(const GradientOutput<T>& out, const Staircase& s, int64_t row, int m, int64_t first, int n, T* sums) {
  T other[kTileRows * kPanel<T>] = {};
  if (out.accumulate) {
    read_rows(Columns<const T>{out.gx, out.ld, s.in_order}, row, m, first, n, other);
    for (int j = 0; j < m * kPanel<T>; ++j) sums[j] += other[j];
  }
  if (out.saved) {
    read_rows(Columns<const T>{out.saved, s.in, s.in_order}, row, m, first, n, other);
    multiply_by_derivative(out.activation, other, sums, m * kPanel<T>);
  }
  write_rows(Columns<T>{out.gx, out.ld, s.in_order}, row, m, first, n, sums);
}

// gx = g W under the mask, for rows [row, row + tiles.rows). `g` is read in the order of s.out_order.
template <class T>
void input_gradient_chunk(Columns<const T> g, const T* weight, const Staircase& s, int64_t row, Tiles tiles,
                          const GradientOutput<T>& out) {
  const int64_t step = packed_row<T>(s.out);
  const auto pack = [&](int64_t i, T* left) { pack_row(g, row + i, s.out, left + i * step); };
  const auto item = [&](int64_t first, int64_t begin, int64_t end, const T* left, T* panel) {
    const int64_t start = s.suffix[first], depth = s.out - start;
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.in - first));
    pack_inputs(weight, s, first, n, start, panel);
    const bool direct = n == kPanel<T> && !s.in_order && out.plain();
    for (int64_t t = begin; t < end; ++t) {
      alignas(64) T buffer[kTileRows * kPanel<T>];
      const int64_t b = row + tiles.begin(t);
      Tile<T> tile{g.data + b * g.ld + start, g.ld, 1, panel, depth, buffer, kPanel<T>};
      if (g.order) tile.a = left + tiles.begin(t) * step + start, tile.row_step = step;
      if (direct) tile.out = out.gx + b * out.ld + first, tile.ld = out.ld;
      multiply_tile(tiles.height(t), tile);
      if (!direct) finish_tile(out, s, b, tiles.height(t), first, n, buffer);
    }
  };
  blocked_product<T>(tiles, s.out, s.in, tiles.rows * s.in * s.out / 2, false, g.order ? tiles.rows : 0, pack, item);
}

template <class T>
void input_gradient(Columns<const T> g, const T* weight, const Staircase& s, int64_t rows, const GradientOutput<T>& out) {
  for (int64_t row = 0; row < rows; row += kBatchChunk)
    input_gradient_chunk(g, weight, s, row, Tiles{least(kBatchChunk, rows - row)}, out);
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

// One tile of a weight gradient, from output o on and input `first` on, added to gw where `accumulate`.
template <class T>
void finish_tile(const Staircase& s, int64_t o, int m, int64_t first, int n, bool accumulate, T* sums, T* gw) {
  const Columns<T> out{gw, s.in, s.in_order};
  for (int i = 0; i < m; ++i, sums += kPanel<T>) {
    const int64_t row = s.out_order ? s.out_order[o + i] : o + i;
    if (accumulate) {
      T before[kPanel<T>];
      Columns<const T>{gw, s.in, s.in_order}.read(row, first, n, before);
      for (int j = 0; j < n; ++j) sums[j] += before[j];
    }
    for (int64_t j = most<int64_t>(0, s.prefix[o + i] - first); j < n; ++j) sums[j] = T(0);
    out.write(row, first, n, sums);
  }
}

// Zeros for a tile outside the staircase.
template <class T>
void clear_tile(const Staircase& s, int64_t o, int m, int64_t first, int n, T* gw) {
  const T zeros[kPanel<T>] = {};
  for (int i = 0; i < m; ++i) Columns<T>{gw, s.in, s.in_order}.write(s.out_order ? s.out_order[o + i] : o + i, first, n, zeros);
}

// gw (+)= g^T x under the mask, zero outside it, over rows [row, row + depth).
template <class T>
void weight_gradient_chunk(Columns<const T> g, Columns<const T> x, const Staircase& s, int64_t row, int64_t depth, T* gw) {
  const Tiles tiles{s.out};
  const int64_t step = packed_row<T>(depth);
  const auto pack = [&](int64_t i, T* left) {
    const int64_t first = i * kLanes<T>;
    pack_columns(g, row, depth, first, static_cast<int>(least<int64_t>(kLanes<T>, s.out - first)), left + first * step);
  };
  const auto item = [&](int64_t first, int64_t begin, int64_t end, const T* left, T* panel) {
    const int n = static_cast<int>(least<int64_t>(kPanel<T>, s.in - first));
    pack_rows(x, row, depth, first, n, panel);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t o = tiles.begin(t);
      const int m = tiles.height(t);
      if (s.prefix[o + m - 1] <= first) {
        if (row == 0) clear_tile(s, o, m, first, n, gw);
        continue;
      }
      alignas(64) T buffer[kTileRows * kPanel<T>];
      Tile<T> tile{left + o * step, step, 1, panel, depth, buffer, kPanel<T>};
      const bool whole = n == kPanel<T> && !s.in_order && !s.out_order && s.prefix[o] - first >= n;
      if (whole) tile.out = gw + o * s.in + first, tile.ld = s.in, tile.accumulate = row > 0;
      multiply_tile(m, tile);
      if (!whole) finish_tile(s, o, m, first, n, row > 0, buffer, gw);
    }
  };
  blocked_product<T>(tiles, depth, s.in, depth * s.in * s.out / 2, false, (s.out + kLanes<T> - 1) / kLanes<T>, pack, item);
}

// `g` is read in the order of s.out_order.
template <class T>
void weight_gradient(Columns<const T> g, Columns<const T> x, const Staircase& s, int64_t rows, T* gw) {
  for (int64_t row = 0; row == 0 || row < rows; row += kBatchChunk)
    weight_gradient_chunk(g, x, s, row, least(kBatchChunk, rows - row), gw);
}

// gb[o] = sum over rows of g[.][o], in partial sums of kRows rows.
template <class T>
void bias_gradient(Columns<const T> g, int64_t rows, int64_t n, T* gb) {
  constexpr int64_t kColumns = 64, kRows = 256;
  const int64_t blocks = (n + kColumns - 1) / kColumns;
#pragma omp parallel for if (rows * n > kSerialWork / 4)
  for (int64_t c = 0; c < blocks; ++c) {
    const int64_t first = c * kColumns, width = least(kColumns, n - first);
    T total[kColumns] = {};
    for (int64_t r = 0; r < rows; r += kRows) {
      T part[kColumns] = {};
      for (int64_t b = r; b < least(rows, r + kRows); ++b)
        for (int64_t j = 0; j < width; ++j) part[j] += g.data[b * g.ld + first + j];
      for (int64_t j = 0; j < width; ++j) total[j] += part[j];
    }
    for (int64_t j = 0; j < width; ++j) gb[first + j] = total[j];
  }
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
