// A masked network over a tile of rows, unit-major: the activations of a unit lie along SIMD lanes, one lane a row, units in
// the order of their degrees.
//
// Nothing is packed: a unit's weights are broadcast from where they lie, and its sum ends at its own prefix, so no entry
// outside the mask is touched. What a backward pass needs is stored row by row, as layers that are computed one by one leave
// it.
#pragma once

#include "cpu/masked_gemm.h"
#include "cpu/masked_mlp.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows in a tile V vectors wide.
template <class T, int V = 2>
constexpr int kTile = V * kLanes<T>;

// state[c][r] = data[r][order[c]] for the tile's rows, 0 for those beyond its end.
template <class T, int V = 2>
void load_tile(Columns<const T> from, int64_t first, int64_t rows, int64_t n, T* state) {
  constexpr int R = kTile<T, V>, L = kLanes<T>;
  for (int64_t part = 0; part < R; part += L) {
    const int64_t square = !from.order && part + L <= rows ? n / L * L : 0;
    for (int64_t c = 0; c < square; c += L) {
      Vec<T> v[L];
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) v[r] = load(from.data + (first + part + r) * from.ld + c);
      transpose<T>(v);
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) store(state + (c + r) * R + part, v[r]);
    }
    for (int64_t c = square; c < n; ++c)
      for (int64_t r = part; r < part + L; ++r)
        state[c * R + r] = r < rows ? from.data[(first + r) * from.ld + from.at(c)] : T(0);
  }
}

// data[r][order[c]] = state[c][r] for the tile's rows.
template <class T, int V = 2>
void store_tile(const T* state, int64_t first, int64_t rows, int64_t n, Columns<T> to) {
  constexpr int R = kTile<T, V>, L = kLanes<T>;
  for (int64_t part = 0; part < rows; part += L) {
    const int64_t square = !to.order && part + L <= rows ? n / L * L : 0;
    for (int64_t c = 0; c < square; c += L) {
      Vec<T> v[L];
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) v[r] = load(state + (c + r) * R + part);
      transpose<T>(v);
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) store(to.data + (first + part + r) * to.ld + c, v[r]);
    }
    for (int64_t c = square; c < n; ++c)
      for (int64_t r = part; r < least(part + L, rows); ++r) to.data[(first + r) * to.ld + to.at(c)] = state[c * R + r];
  }
}

// The weights of sorted units [first, first + m) over sorted inputs: in place where they lie so, else copied to `scratch`.
template <class T>
FASTGEN_INLINE const T* unit_weights(const NetworkLayer<T>& layer, int64_t first, int m, T* scratch, int64_t& ld) {
  const Staircase& s = layer.stair;
  if (!s.in_order && !s.out_order) return ld = s.in, layer.weight + first * s.in;
  ld = s.prefix[first + m - 1];
  for (int i = 0; i < m; ++i) {
    const T* row = layer.weight + (s.out_order ? s.out_order[first + i] : first + i) * s.in;
    for (int64_t k = 0; k < ld; ++k) scratch[i * ld + k] = row[s.in_order ? s.in_order[k] : k];
  }
  return scratch;
}

// How many of the units from u on make a tile of at most `most` units: those that see the same, evenly cut, or where these
// are few a full tile.
inline int tile_height(const Staircase& s, int64_t u, int64_t most) {
  int64_t same = 1;
  while (u + same < s.out && s.prefix[u + same] == s.prefix[u]) ++same;
  if (same < most / 2) return static_cast<int>(least<int64_t>(most, s.out - u));
  return Tiles{same, most}.height(0);
}

// out[u] += sum_k W[u][k] in[k] over what u sees.
template <int V, class T>
void add_products(const NetworkLayer<T>& layer, const T* in, T* out, T* scratch) {
  constexpr int R = kTile<T, V>;
  const Staircase& s = layer.stair;
  for (int64_t u = 0, m; u < s.out; u += m) {
    m = tile_height(s, u, kTileRowsOf<V>);
    int64_t ld, done = 0;
    const T* const w = unit_weights(layer, u, static_cast<int>(m), scratch, ld);
    // Down the steps of the staircase: a unit leaves where it has seen all it may.
    for (int64_t i = 0; i < m;) {
      const int64_t seen = s.prefix[u + i];
      if (seen > done)
        multiply_tile<T, V>(static_cast<int>(m - i),
                            Tile<T>{w + i * ld + done, ld, 1, in + done * R, seen - done, out + (u + i) * R, R, nullptr, true});
      done = seen;
      while (i < m && s.prefix[u + i] == seen) ++i;
    }
  }
}

// out[u] = the bias of unit u, for units [begin, end).
template <class T, int V = 2>
void fill_biases(const NetworkLayer<T>& layer, int64_t begin, int64_t end, T* out) {
  constexpr int R = kTile<T, V>;
  const int32_t* const order = layer.stair.out_order;
  for (int64_t u = begin; u < end; ++u) {
    const T bias = layer.bias ? layer.bias[order ? order[u] : u] : T(0);
    for (int r = 0; r < R; ++r) out[u * R + r] = bias;
  }
}

template <class T>
bool is_residual_source(const MaskedNetwork<T>& net, int layer) {
  for (int l = layer + 1; l < net.count; ++l)
    if (net.layers[l].residual == layer) return true;
  return false;
}

// Threads that are worth waking for so many rows.
template <class T>
int worthwhile_threads(const MaskedNetwork<T>& net, int64_t rows) {
  int64_t multiplications = 0;
  for (int l = 0; l < net.count; ++l) multiplications += net.layers[l].stair.in * net.layers[l].stair.out / 2;
  return rows * multiplications < kSerialWork ? 1 : omp_get_max_threads();
}

// Vectors in the rows of a tile, at most.
constexpr int kWidest = kSums / 6;

// The rows of a tile: as many as come in one, unless threads would be left without one.
template <class T, int V = 1>
int64_t tile_rows(int64_t rows, int threads) {
  if constexpr (V < kWidest)
    if (rows > threads * int64_t{kTile<T, V>}) return tile_rows<T, 2 * V>(rows, threads);
  return kTile<T, V>;
}

// Values evaluate_tile works in: the inputs, every layer's sums (and its outputs where the sums must outlive their
// activation), a tile of context terms, and the weights of one tile of units.
template <class T, int V>
int64_t state_size(const MaskedNetwork<T>& net) {
  int64_t units = net.layers[0].stair.in + net.layers[0].stair.out, widest = 0;
  for (int l = 0; l < net.count; ++l) {
    units += net.layers[l].stair.out * (1 + is_residual_source(net, l));
    widest = most(widest, net.layers[l].stair.in);
  }
  return units * kTile<T, V> + widest * kTileRowsOf<V>;
}

// The whole network over one tile of rows, its inputs and outputs, unit-major, handed to `end`. `state` has room for state_size
// values, `sums` for one pointer a layer.
template <int V, class T, class End>
void evaluate_tile(const MaskedMlpForward<T>& a, const End& end, const T** sums, int64_t first, int64_t rows, T* state) {
  constexpr int R = kTile<T, V>;
  const MaskedNetwork<T>& net = a.network;
  const Staircase& inputs = net.layers[0].stair;
  const auto take = [&](int64_t units) {
    T* const block = state;
    state += units * R;
    return block;
  };
  T* const x = take(inputs.in);
  load_tile<T, V>(Columns<const T>{a.x, a.ldx, inputs.in_order}, first, rows, inputs.in, x);
  const T* in = x;
  T* saved = a.saved;
  for (int l = 0; l < net.count; ++l) {
    const NetworkLayer<T>& layer = net.layers[l];
    const Staircase& s = layer.stair;
    const int64_t values = s.out * R;
    const auto save = [&](const T* units) {
      store_tile<T, V>(units, first, rows, s.out, Columns<T>{saved, s.out, s.out_order});
      saved += a.rows * s.out;
    };
    T* out = take(s.out);
    sums[l] = out;
    fill_biases<T, V>(layer, 0, s.out, out);
    if (l == 0 && a.context_terms) {
      T* const context = take(s.out);
      load_tile<T, V>(Columns<const T>{a.context_terms, a.ld_context, s.out_order}, first, rows, s.out, context);
      for (int64_t i = 0; i < values; ++i) out[i] += context[i];
    }
    if (layer.residual >= 0)
      for (int64_t i = 0; i < values; ++i) out[i] += sums[layer.residual][i];
    // Beyond the blocks in use there is room for a tile's weights.
    add_products<V>(layer, in, out, state);
    if (l + 1 == net.count) {
      if (net.direct) add_products<V>(*net.direct, x, out, state);
      return end.template tile<V>(first, rows, x, out);
    }
    if (is_residual_source(net, l)) {
      T* const copy = take(s.out);
      for (int64_t i = 0; i < values; ++i) copy[i] = out[i];
      out = copy;
    }
    if (saved && !derives_from_output(layer.activation)) save(out);
    activate_row(layer.activation, out, values);
    if (saved && derives_from_output(layer.activation)) save(out);
    in = out;
  }
}

// Rows in tiles of at most `height` over threads; every thread keeps a whole tile's state.
template <class T, class End, int V = 1>
void evaluate_tiles(const MaskedMlpForward<T>& a, const End& end, int64_t height, int threads) {
  if constexpr (V < kWidest)
    if (height > kTile<T, V>) return evaluate_tiles<T, End, 2 * V>(a, end, height, threads);
  static thread_local Scratch scratch, pointers;
  const int64_t tiles = (a.rows + height - 1) / height, size = state_size<T, V>(a.network);
  T* const states = scratch.get<T>(size * threads);
  const T** const sums = pointers.get<const T*>(static_cast<size_t>(a.network.count) * threads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < tiles; ++t) {
    const int me = omp_get_thread_num();
    const int64_t first = a.rows * t / tiles, last = a.rows * (t + 1) / tiles;
    evaluate_tile<V>(a, end, sums + me * a.network.count, first, last - first, states + me * size);
  }
  scratch.trim();
}

// All rows, tile by tile, `end.tile<V>(first row, rows, inputs, outputs)` ending each; false, and nothing done, where there are
// fewer tiles than threads: layer by layer all of these find work.
template <class T, class End>
bool evaluate_unit_major(const MaskedMlpForward<T>& a, const End& end) {
  const int threads = worthwhile_threads(a.network, a.rows);
  if ((a.rows + kTile<T, 1> - 1) / kTile<T, 1> < threads) return false;
  evaluate_tiles(a, end, tile_rows<T>(a.rows, threads), threads);
  return true;
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
