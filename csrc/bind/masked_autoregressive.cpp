#include "cpu/masked_autoregressive.h"

#include <algorithm>

#include "bind/autoregressive.h"
#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

constexpr int64_t kOutputs = 2;

// A block but for its parameters.
struct BlockPlan {
  std::vector<LayerPlan> layers;
  bool direct, divide;
  ScaleMap map;

  size_t params() const { return 2 * layers.size() - direct; }
};

template <class T>
struct Block {
  std::vector<cpu::NetworkLayer<T>> layers;
  cpu::MaskedNetwork<T> network;
};

template <class T>
cpu::MaskedNetwork<T> network_of(const BlockPlan& plan, const std::vector<cpu::NetworkLayer<T>>& layers) {
  return fastgen::network_of(layers, layers.size() - plan.direct);
}

// Where a block keeps what its gradient needs: its hidden units, its network's outputs, and what the next block reads.
template <class T>
struct Kept {
  T *hidden, *outputs, *next;
};

// The entries of `all` from `at` on, as many as there are up to `count`; `at` moves past them.
template <class List>
List take(const List& all, size_t& at, size_t count) {
  const size_t begin = std::min(at, all.size());
  at += count;
  return List(all.begin() + begin, all.begin() + std::min(at, all.size()));
}

bool any(const Optionals& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const Optional& t) { return t.has_value(); });
}

// Blocks one after the other, their plans checked once. What kernels walk lies in memory of its own: the tensors that it came
// from may change.
class Stack {
 public:
  // Lists of all blocks, one block after the other; `layers` says how many each has, the direct one not counted.
  Stack(const Optionals& plan, const std::vector<int64_t>& layers, const std::vector<std::string>& activations,
        const std::vector<int64_t>& residuals, const std::vector<bool>& direct, const std::vector<bool>& divide,
        const std::vector<int>& kind, const std::vector<double>& first, const std::vector<double>& second) {
    const size_t count = layers.size();
    if (count == 0) fail("layers: expected at least one block, found none");
    expect_count(direct.size(), count, "direct");
    expect_count(divide.size(), count, "divide");
    expect_count(kind.size(), count, "kind");
    expect_count(first.size(), count, "first");
    expect_count(second.size(), count, "second");
    size_t walked = 0, activation = 0, residual = 0;
    for (size_t b = 0; b < count; ++b) {
      if (layers[b] < 1 || layers[b] > static_cast<int64_t>(activations.size()))
        fail("layers: expected at least 1 and no more than activations, found " + std::to_string(layers[b]));
      const size_t n = static_cast<size_t>(layers[b]);
      BlockPlan block{read_layer_plans(take(plan, walked, 4 * (n + direct[b])), take(activations, activation, n),
                                       take(residuals, residual, n), direct[b]),
                      direct[b], divide[b], scale_map(kind[b], first[b], second[b])};
      keep(block);
      blocks_.push_back(std::move(block));
    }
    expect_count(plan.size(), walked, "plan");
  }

  void forward(const Tensor& x, const Optionals& params, const Optionals& context_terms, const Optional& log_det_in,
               bool log_prob, const Optional& z, const Tensor& total, const Optional& saved) const {
    dispatch_float(x, "x", [&](auto zero) {
      using T = decltype(zero);
      const auto blocks = with<T>(x, params);
      expect_count(context_terms.size(), blocks.size(), "context_terms");
      if (!z && (!log_prob || (blocks.size() > 1 && !saved))) fail("z: expected a tensor, found None");
      const int64_t rows = x.size(0), features = x.size(1);
      const auto kept = read_kept<T>(saved, blocks, rows, features);
      T* const out = pointer<T>(z, "z", {rows, features});
      std::vector<cpu::MaskedAutoregressiveForward<T>> calls(blocks.size());
      for (size_t b = 0; b < blocks.size(); ++b) {
        const bool last = b + 1 == blocks.size();
        cpu::MaskedAutoregressiveForward<T>& a = calls[b];
        a.pass = read_pass<T>(blocks[b].network, x, context_terms[b]);
        a.pass.saved = kept[b].hidden;
        a.pass.y = kept[b].outputs;
        a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step);
        if (b > 0) {
          a.pass.x = calls[b - 1].z, a.pass.ldx = features;
          a.log_det_in = calls[b - 1].total, a.log_det_step = 1;
        }
        a.divide = blocks_[b].divide;
        a.map = blocks_[b].map;
        a.z = !last && saved ? kept[b].next : last && log_prob ? nullptr : out;
        a.total = pointer<T>(total, "total", {rows});
      }
      if (rows == 0) return;
      py::gil_scoped_release unlocked;
      for (const auto& call : calls) cpu::masked_autoregressive_forward(call);
    });
  }

  // The gradients that are not None; `grad_between` is room for what the blocks hand back to each other, and may be grad_x.
  void backward(const Optional& grad_z, const Optional& grad_total, const Tensor& x, const Optionals& params,
                const Tensor& saved, bool log_prob, const Optional& grad_x, const Optional& grad_between,
                const Optionals& grad_contexts, const Optionals& grad_params) const {
    expect_count(grad_params.size(), params.size(), "grad_params");
    if (log_prob && grad_z) fail("grad_z: expected None with log_prob");
    dispatch_float(x, "x", [&](auto zero) {
      using T = decltype(zero);
      auto blocks = with<T>(x, params);
      const size_t count = blocks.size();
      expect_count(grad_contexts.size(), count, "grad_contexts");
      if (count > 1 && !grad_between) fail("grad_between: expected a tensor, found None");
      const int64_t rows = x.size(0), features = x.size(1);
      const auto kept = read_kept<T>(saved, blocks, rows, features);
      T* const between = pointer<T>(grad_between, "grad_between", {rows, features});
      std::vector<cpu::MaskedAutoregressiveBackward<T>> calls(count);
      bool before = grad_x.has_value();  // whether anything before the block wants a gradient
      size_t at = 0, start = count;      // the first block with anything to do
      for (size_t b = 0; b < count; ++b) {
        const Optionals own = take(grad_params, at, blocks_[b].params());
        read_gradients<T>(own, blocks[b].layers);
        cpu::MaskedAutoregressiveBackward<T>& a = calls[b];
        a.pass = read_backward_pass<T>(blocks[b].network, x, b > 0 ? std::nullopt : grad_x, grad_contexts[b]);
        if (b > 0) {
          a.pass.x = kept[b - 1].next, a.pass.ldx = features;
          a.pass.grad_x = before ? between : nullptr;
        }
        a.pass.saved = kept[b].hidden;
        a.y = kept[b].outputs;
        a.log_prob = log_prob && b + 1 == count;
        a.grad_z = b + 1 < count ? cpu::Strided<T>{between, features, 1} : strided<T>(grad_z, "grad_z", rows, features);
        a.grad_total = per_row<T>(grad_total, "grad_total", rows, a.grad_total_step);
        a.divide = blocks_[b].divide;
        a.map = blocks_[b].map;
        before = before || grad_contexts[b] || any(own);
        if (before) start = std::min(start, b);
      }
      py::gil_scoped_release unlocked;
      for (size_t b = count; b-- > start;) cpu::masked_autoregressive_backward(calls[b]);
    });
  }

 private:
  const int32_t* own(const int32_t* values, int64_t n) {
    if (!values) return nullptr;
    memory_.emplace_back(values, values + n);
    return memory_.back().data();
  }

  void keep(BlockPlan& block) {
    for (LayerPlan& layer : block.layers) {
      cpu::Staircase& s = layer.stair;
      s = {own(s.in_order, s.in), own(s.out_order, s.out), own(s.prefix, s.out), own(s.suffix, s.in), s.in, s.out};
    }
    std::vector<cpu::NetworkLayer<float>> layers(block.layers.size());
    for (size_t l = 0; l < layers.size(); ++l)
      layers[l].stair = block.layers[l].stair, layers[l].residual = block.layers[l].residual;
    expect_autoregressive(network_of(block, layers), {kOutputs, 1});
  }

  template <class T>
  std::vector<Block<T>> with(const Tensor& x, const Optionals& params) const {
    expect_features(x, "x");
    size_t expected = 0, at = 0;
    for (const BlockPlan& plan : blocks_) expected += plan.params();
    expect_count(params.size(), expected, "params");
    std::vector<Block<T>> blocks(blocks_.size());
    for (size_t b = 0; b < blocks.size(); ++b) {
      blocks[b].layers = with_parameters<T>(blocks_[b].layers, blocks_[b].direct, take(params, at, blocks_[b].params()));
      blocks[b].network = network_of(blocks_[b], blocks[b].layers);
      if (x.size(1) != blocks[b].layers[0].stair.in)
        fail("x: expected " + std::to_string(blocks[b].layers[0].stair.in) + " columns, found " + std::to_string(x.size(1)));
    }
    return blocks;
  }

  template <class T>
  static std::vector<Kept<T>> read_kept(const Optional& saved, const std::vector<Block<T>>& blocks, int64_t rows,
                                        int64_t features) {
    std::vector<int64_t> at;
    int64_t size = 0;
    for (const Block<T>& block : blocks) {
      at.push_back(size);
      size += saved_values(block.network, rows) + (kOutputs + 1) * features * rows;
    }
    size -= features * rows;  // nothing reads what the last one gives
    T* const room = pointer<T>(saved, "saved", {size});
    std::vector<Kept<T>> kept(blocks.size(), Kept<T>{});
    for (size_t b = 0; room && b < blocks.size(); ++b) {
      T* const outputs = room + at[b] + saved_values(blocks[b].network, rows);
      kept[b] = {room + at[b], outputs, outputs + kOutputs * features * rows};
    }
    return kept;
  }

  std::vector<BlockPlan> blocks_;
  std::vector<std::vector<int32_t>> memory_;
};

}  // namespace

void bind_masked_autoregressive(py::module_& m) {
  py::class_<Stack>(m, "MaskedAutoregressiveStack",
                    "Blocks of a masked network and the affine map of its outputs, one after the other, but for parameters.")
      .def(py::init<const Optionals&, const std::vector<int64_t>&, const std::vector<std::string>&, const std::vector<int64_t>&,
                    const std::vector<bool>&, const std::vector<bool>&, const std::vector<int>&, const std::vector<double>&,
                    const std::vector<double>&>(),
           py::arg("plan"), py::arg("layers"), py::arg("activations"), py::arg("residuals"), py::arg("direct"),
           py::arg("divide"), py::arg("kind"), py::arg("first"), py::arg("second"))
      .def("forward", &Stack::forward, "The last block's z, and the log_det of all in total; with log_prob the log-density.",
           py::arg("x"), py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("log_prob"), py::arg("z"),
           py::arg("total"), py::arg("saved"))
      .def("backward", &Stack::backward, "The gradients of forward, into those that are not None.", py::arg("grad_z"),
           py::arg("grad_total"), py::arg("x"), py::arg("params"), py::arg("saved"), py::arg("log_prob"), py::arg("grad_x"),
           py::arg("grad_between"), py::arg("grad_contexts"), py::arg("grad_params"));
}

}  // namespace fastgen
