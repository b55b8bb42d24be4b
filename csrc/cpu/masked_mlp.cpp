#include "cpu/masked_mlp.h"

#include "cpu/parameter_gradients.h"
#include "cpu/unit_major.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Layer by layer, rows by units: hidden outputs go to `saved`, and to scratch what is only needed on the way.
template <class T>
void evaluate_row_major(const MaskedMlpForward<T>& a, T* saved) {
  static thread_local Scratch scratch, pointers;
  const MaskedNetwork<T>& net = a.network;
  T* extra = scratch.get<T>(2 * a.rows * hidden_units(net));
  const T** const sums = pointers.get<const T*>(net.count);
  Columns<const T> in{a.x, a.ldx, nullptr};
  for (int l = 0; l < net.count; ++l) {
    const NetworkLayer<T>& layer = net.layers[l];
    const int64_t width = layer.stair.out;
    const bool last = l + 1 == net.count, from_output = derives_from_output(layer.activation);
    ForwardOutput<T> out{last ? a.y : saved, width, layer.activation};
    if (!last && !from_output) {
      out.sums = saved;
      out.y = extra, extra += a.rows * width;
    } else if (is_residual_source(net, l)) {
      out.sums = extra, extra += a.rows * width;
    }
    sums[l] = out.sums;
    if (l == 0 && a.context_terms) out.addend = a.context_terms, out.addend_ld = a.ld_context;
    if (layer.residual >= 0) out.addend = sums[layer.residual], out.addend_ld = width;
    if (last && net.direct) {
      const Columns<const T> x{a.x, a.ldx, net.direct->stair.in_order};
      forward_product<T>(x, net.direct->weight, nullptr, net.direct->stair, a.rows, out);
      out.addend = a.y, out.addend_ld = width;
    }
    in.order = layer.stair.in_order;
    forward_product(in, layer.weight, layer.bias, layer.stair, a.rows, out);
    in = Columns<const T>{out.y, width, nullptr};
    saved += a.rows * width;
  }
  scratch.trim();
}

// What ends a tile of rows: its outputs are stored.
template <class T>
struct StoreOutputs {
  const MaskedMlpForward<T>& a;

  template <int V>
  void tile(int64_t first, int64_t rows, const T*, const T* outputs) const {
    const Staircase& s = a.network.layers[a.network.count - 1].stair;
    store_tile<T, V>(outputs, first, rows, s.out, Columns<T>{a.y, s.out, s.out_order});
  }
};

template <class T>
void masked_mlp_forward(const MaskedMlpForward<T>& a) {
  static thread_local Scratch scratch;
  if (evaluate_unit_major(a, StoreOutputs<T>{a})) return;
  if (a.saved) return evaluate_row_major(a, a.saved);
  evaluate_row_major(a, scratch.get<T>(a.rows * hidden_units(a.network)));
  scratch.trim();
}

// The walk of a backward pass, from the last layer to the first.
template <class T>
class Backward {
 public:
  explicit Backward(const MaskedMlpBackward<T>& a) : a_(a), net_(a.network) {}

  void run() {
    // Gradients of the layers' sums, one block each, and one layer's inputs where they must be made again.
    static thread_local Scratch deltas, pointers;
    T* block = deltas.get<T>(a_.rows * hidden_units(net_));
    delta_ = pointers.get<T*>(net_.count);
    const T* saved = a_.saved;
    for (int l = 0; l + 1 < net_.count; ++l) {
      delta_[l] = l == 0 && a_.grad_context ? a_.grad_context : block;
      block += a_.rows * net_.layers[l].stair.out;
    }
    for (int l = 0; l + 1 < net_.count; ++l) saved += a_.rows * net_.layers[l].stair.out;
    for (int l = net_.count - 1; l >= 0; --l) {
      if (l > 0) saved -= a_.rows * net_.layers[l].stair.in;
      layer(l, saved);
      if (!wanted_below(l)) break;
    }
    deltas.trim();
  }

 private:
  // Whether anything before layer l's inputs is asked for.
  bool wanted_below(int l) const {
    if (a_.grad_x || a_.grad_context) return true;
    while (--l >= 0)
      if (net_.layers[l].grad_weight || net_.layers[l].grad_bias) return true;
    return false;
  }

  // The gradients of layer l; `saved` is what was kept of the layer before it.
  void layer(int l, const T* saved) {
    const NetworkLayer<T>& layer = net_.layers[l];
    const bool last = l + 1 == net_.count;
    const Staircase& s = layer.stair;
    if (!last) add_residuals(l);
    const Columns<const T> g{last ? a_.grad : delta_[l], last ? a_.ld_grad : s.out, s.out_order};
    if (last && a_.grad_context && net_.count == 1) copy_rows(g);
    parameter_gradients(net_, l, g, Columns<const T>{a_.x, a_.ldx, nullptr}, saved, a_.rows);
    if (last && net_.direct && a_.grad_x)
      input_gradient(g, net_.direct->weight, net_.direct->stair, a_.rows,
                     GradientOutput<T>{a_.grad_x, net_.direct->stair.in, a_.add_to_grad_x});
    if (l == 0) {
      const bool add = a_.add_to_grad_x || net_.direct;
      if (a_.grad_x) input_gradient(g, layer.weight, s, a_.rows, GradientOutput<T>{a_.grad_x, s.in, add});
    } else if (wanted_below(l)) {
      const GradientOutput<T> out{delta_[l - 1], s.in, false, net_.layers[l - 1].activation, saved};
      input_gradient(g, layer.weight, s, a_.rows, out);
    }
  }

  // Adds to the gradient of layer l's sums what reaches them through residual connections.
  void add_residuals(int l) {
    const int64_t width = net_.layers[l].stair.out;
    for (int c = l + 1; c < net_.count; ++c) {
      if (net_.layers[c].residual != l) continue;
      const bool last = c + 1 == net_.count;
      const T* from = last ? a_.grad : delta_[c];
      const int64_t ld = last ? a_.ld_grad : width;
#pragma omp parallel for if (a_.rows * width > kSerialWork / 4)
      for (int64_t b = 0; b < a_.rows; ++b)
        for (int64_t i = 0; i < width; ++i) delta_[l][b * width + i] += from[b * ld + i];
    }
  }

  // In a network of one layer the context's gradient is the incoming one.
  void copy_rows(Columns<const T> grad) {
    const int64_t width = net_.layers[0].stair.out;
    for (int64_t b = 0; b < a_.rows; ++b)
      for (int64_t i = 0; i < width; ++i) a_.grad_context[b * width + i] = grad.data[b * grad.ld + i];
  }

  const MaskedMlpBackward<T>& a_;
  const MaskedNetwork<T>& net_;
  T** delta_ = nullptr;
};

template <class T>
void masked_mlp_backward(const MaskedMlpBackward<T>& a) {
  Backward<T>(a).run();
}

FASTGEN_INSTANTIATE_KERNEL(masked_mlp_forward, MaskedMlpForward)
FASTGEN_INSTANTIATE_KERNEL(masked_mlp_backward, MaskedMlpBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
