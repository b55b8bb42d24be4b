#include "cpu/autoregressive_inverse.h"

#include "cpu/autoregressive_gradient.h"
#include "cpu/autoregressive_solver.h"
#include "cpu/parameter_gradients.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows in tiles over threads: calls f(thread, first row, rows).
template <class T, class F>
void for_tiles(int64_t rows, int threads, const F& f) {
  const int64_t tiles = (rows + kTile<T> - 1) / kTile<T>;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t first = rows * t / tiles;
    f(omp_get_thread_num(), first, rows * (t + 1) / tiles - first);
  }
}

template <class T>
int tile_threads(int64_t rows) {
  return static_cast<int>(least<int64_t>((rows + kTile<T> - 1) / kTile<T>, omp_get_max_threads()));
}

template <class T>
void autoregressive_inverse_forward(const AutoregressiveInverseForward<T>& a) {
  static thread_local Scratch counts, copies, weights, states, blocks;
  const MaskedNetwork<T>& net = a.network;
  const Walk walk(net, counts.get<int32_t>(Walk::size(net)));
  const SortedNetwork<T> sorted(net, copies.get<T>(SortedNetwork<T>::size(net)), weights.get<const T*>(net.count + 1));
  const int threads = tile_threads<T>(a.rows);
  const int64_t size = TileSolver<T>::size(net, walk.features()), pointers = 2 * net.count;
  T** const block = blocks.get<T*>(pointers * threads);
  T* const state = states.get<T>(size * threads);
  for_tiles<T>(a.rows, threads, [&](int me, int64_t first, int64_t rows) {
    TileSolver<T>(a, walk, sorted, block + me * pointers, state + me * size).solve(first, rows);
  });
  copies.trim();
  states.trim();
}

template <class T>
void autoregressive_inverse_backward(const AutoregressiveInverseBackward<T>& a) {
  static thread_local Scratch counts, copies, weights, states, blocks, sums;
  const MaskedNetwork<T>& net = a.network;
  const Walk walk(net, counts.get<int32_t>(Walk::size(net)));
  const SortedNetwork<T> sorted(net, copies.get<T>(SortedNetwork<T>::size(net)), weights.get<const T*>(net.count + 1));
  const int threads = tile_threads<T>(a.rows);
  const int64_t size = TileGradient<T>::size(net), pointers = 2 * net.count;
  const int last = net.count - 1;
  // The gradients of every layer's sums, row by row, for the products that make those of the weights.
  T** const deltas = blocks.get<T*>(net.count + pointers * threads);
  T* to = sums.get<T>(a.rows * (hidden_units(net) + net.layers[last].stair.out));
  for (int l = 0; l < net.count; ++l) {
    deltas[l] = l == 0 && a.grad_context ? a.grad_context : to;
    to += a.rows * net.layers[l].stair.out;
  }
  T* const state = states.get<T>(size * threads);
  for_tiles<T>(a.rows, threads, [&](int me, int64_t first, int64_t rows) {
    TileGradient<T>(a, walk, sorted, deltas, deltas + net.count + me * pointers, state + me * size).run(first, rows);
  });
  const T* saved = a.saved;
  for (int l = 0; l < net.count; ++l) {
    const Staircase& s = net.layers[l].stair;
    parameter_gradients(net, l, Columns<const T>{deltas[l], s.out, s.out_order},
                        Columns<const T>{a.v, walk.features(), nullptr}, saved, a.rows);
    if (l > 0) saved += a.rows * s.in;
  }
  copies.trim();
  states.trim();
  sums.trim();
}

FASTGEN_INSTANTIATE_KERNEL(autoregressive_inverse_forward, AutoregressiveInverseForward)
FASTGEN_INSTANTIATE_KERNEL(autoregressive_inverse_backward, AutoregressiveInverseBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
