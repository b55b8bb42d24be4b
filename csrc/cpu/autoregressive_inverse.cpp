#include "cpu/autoregressive_inverse.h"

#include "cpu/autoregressive_gradient.h"
#include "cpu/autoregressive_rows.h"
#include "cpu/autoregressive_solver.h"
#include "cpu/parameter_gradients.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows in pieces of at most `height` over threads: calls f(thread, first row, rows).
template <class F>
void for_pieces(int64_t rows, int64_t height, int threads, const F& f) {
  const int64_t pieces = (rows + height - 1) / height;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < pieces; ++t) {
    const int64_t first = rows * t / pieces;
    f(omp_get_thread_num(), first, rows * (t + 1) / pieces - first);
  }
}

inline int threads_for(int64_t rows, int64_t height) {
  return static_cast<int>(least<int64_t>((rows + height - 1) / height, omp_get_max_threads()));
}

// Rows up to which the weights are better streamed once for every kFewRows of them than once for a tile whose lanes stay empty.
template <class T>
constexpr int64_t kStreamedRows = 2 * kFewRows;

template <class T>
void autoregressive_inverse_forward(const AutoregressiveInverseForward<T>& a) {
  static thread_local Scratch counts, copies, weights, states, blocks;
  const MaskedNetwork<T>& net = a.network;
  const Walk walk(net, counts.get<int32_t>(Walk::size(net)));
  const SortedNetwork<T> sorted(net, copies.get<T>(SortedNetwork<T>::size(net)), weights.get<const T*>(net.count + 1));
  const bool few = a.rows <= kStreamedRows<T>;
  const int64_t height = few ? kFewRows : kTile<T>, pointers = 2 * net.count;
  const int64_t size = few ? RowSolver<T, kFewRows>::size(net) : TileSolver<T>::size(net, walk.features());
  const int threads = threads_for(a.rows, height);
  T** const block = blocks.get<T*>(pointers * threads);
  T* const state = states.get<T>(size * threads);
  for_pieces(a.rows, height, threads, [&](int me, int64_t first, int64_t rows) {
    T** const own = block + me * pointers;
    if (few)
      solve_rows(a, walk, sorted, own, state + me * size, first, rows);
    else
      TileSolver<T>(a, walk, sorted, own, state + me * size).solve(first, rows);
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
  const int threads = threads_for(a.rows, kTile<T>);
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
  for_pieces(a.rows, kTile<T>, threads, [&](int me, int64_t first, int64_t rows) {
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
