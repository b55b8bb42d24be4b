// The gradients of a masked network's parameters, once those of its layers' sums are known.
#pragma once

#include "cpu/masked_gemm.h"
#include "cpu/masked_mlp.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
int64_t hidden_units(const MaskedNetwork<T>& net) {
  int64_t units = 0;
  for (int l = 0; l + 1 < net.count; ++l) units += net.layers[l].stair.out;
  return units;
}

// The inputs of layer l > 0 from what was `saved` of the layer before: its outputs, or its sums, whose activation is then made
// again in `scratch`.
template <class T>
Columns<const T> layer_input(const MaskedNetwork<T>& net, int l, const T* saved, int64_t rows, Scratch& scratch) {
  const Staircase& s = net.layers[l].stair;
  const Activation activation = net.layers[l - 1].activation;
  if (derives_from_output(activation)) return {saved, s.in, s.in_order};
  T* const h = scratch.get<T>(rows * s.in);
#pragma omp parallel for if (rows * s.in > kSerialWork / 4)
  for (int64_t b = 0; b < rows; ++b) {
    for (int64_t i = b * s.in; i < (b + 1) * s.in; ++i) h[i] = saved[i];
    activate_row(activation, h + b * s.in, s.in);
  }
  return {h, s.in, s.in_order};
}

// Of layer l, and with the last one of the direct connections, where they are wanted. `g`: the gradient of the layer's sums;
// `x`: the network's inputs, `saved`: what was kept of the layer before.
template <class T>
void parameter_gradients(const MaskedNetwork<T>& net, int l, Columns<const T> g, Columns<const T> x, const T* saved,
                         int64_t rows) {
  static thread_local Scratch scratch;
  const NetworkLayer<T>& layer = net.layers[l];
  if (layer.grad_bias) bias_gradient(g, rows, layer.stair.out, layer.grad_bias);
  if (layer.grad_weight) {
    x.order = layer.stair.in_order;
    weight_gradient(g, l == 0 ? x : layer_input(net, l, saved, rows, scratch), layer.stair, rows, layer.grad_weight);
  }
  if (l + 1 == net.count && net.direct && net.direct->grad_weight) {
    x.order = net.direct->stair.in_order;
    weight_gradient(g, x, net.direct->stair, rows, net.direct->grad_weight);
  }
  scratch.trim();
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
