// Solves an autoregressive network for all its rows, in pieces over threads.
#pragma once

#include "cpu/autoregressive_rows.h"
#include "cpu/autoregressive_solver.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Rows in pieces of at most `height` over threads: calls f(thread, first row, rows).
template <class F>
void for_pieces(int64_t rows, int64_t height, int threads, const F& f) {
  const int64_t pieces = (rows + height - 1) / height;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < pieces; ++t) {
    const int64_t first = t * height;
    f(omp_get_thread_num(), first, least(height, rows - first));
  }
}

template <class T>
int threads_for(const MaskedNetwork<T>& net, int64_t rows, int64_t height) {
  return static_cast<int>(least<int64_t>((rows + height - 1) / height, worthwhile_threads(net, rows)));
}

// Rows up to which the weights are better streamed once for every kFewRows of them than once for a tile.
constexpr int64_t kStreamedRows = 2 * kFewRows;

// What solving works in, whatever the univariate map.
struct SolveScratch {
  Scratch counts, copies, weights, states, blocks;
};

inline SolveScratch& solve_scratch() {
  static thread_local SolveScratch scratch;
  return scratch;
}

template <class T, class U>
void solve(const AutoregressiveSystem<T>& a, const U& map) {
  SolveScratch& s = solve_scratch();
  const MaskedNetwork<T>& net = a.network;
  const Walk walk(net, s.counts.get<int32_t>(Walk::size(net)), map.columns());
  const SortedNetwork<T> sorted(net, s.copies.get<T>(SortedNetwork<T>::size(net)), s.weights.get<const T*>(net.count + 1));
  const bool few = a.rows <= kStreamedRows;
  const int64_t height = few ? kFewRows : tile_rows<T>(a.rows, worthwhile_threads(net, a.rows)), pointers = 2 * net.count;
  const int64_t size = few ? RowSolver<T, U, kFewRows>::size(net, map.outputs())
                           : TileSolver<T, U, 1>::size(net, walk.features()) * (height / kTile<T, 1>);
  const int threads = threads_for(net, a.rows, height);
  T** const block = s.blocks.get<T*>(pointers * threads);
  T* const state = s.states.get<T>(size * threads);
  for_pieces(a.rows, height, threads, [&](int me, int64_t first, int64_t rows) {
    T** const own = block + me * pointers;
    if (few)
      solve_rows(a, map, walk, sorted, own, state + me * size, first, rows);
    else
      solve_tile(a, map, walk, sorted, own, state + me * size, first, rows);
  });
  s.copies.trim();
  s.states.trim();
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
