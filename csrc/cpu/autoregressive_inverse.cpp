#include "cpu/autoregressive_inverse.h"

#include "cpu/autoregressive_gradient.h"
#include "cpu/autoregressive_solve.h"
#include "cpu/parameter_gradients.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
void autoregressive_inverse_forward(const AutoregressiveInverseForward<T>& a) {
  solve(a.system, Affine<T>{a.map, a.divide});
}

template <class T>
void autoregressive_inverse_backward(const AutoregressiveInverseBackward<T>& a) {
  static thread_local Scratch counts, copies, weights, states, blocks, sums;
  const MaskedNetwork<T>& net = a.network;
  const Walk walk(net, counts.get<int32_t>(Walk::size(net)));
  const SortedNetwork<T> sorted(net, copies.get<T>(SortedNetwork<T>::size(net)), weights.get<const T*>(net.count + 1));
  const int threads = threads_for(net, a.rows, kTile<T>);
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
