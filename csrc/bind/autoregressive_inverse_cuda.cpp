#include "cuda/autoregressive_inverse.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"
#include "bind/network.h"

namespace py = pybind11;

namespace fastgen {
namespace {

// A test runs the kernels on the CPU.
#ifdef FASTGEN_EMULATED
constexpr Device kDevice = Device::cpu;
#else
constexpr Device kDevice = Device::cuda;
#endif

// Puts a network whose layers fit together, and its walk, where a kernel takes them.
template <class T>
void describe(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count, const Tensor& walk, cuda::Network<T>& net) {
  if (layers.size() > cuda::kMaxLayers)
    fail("params: expected at most " + std::to_string(cuda::kMaxLayers) + " layers, found " + std::to_string(layers.size()));
  net = {};
  net.count = static_cast<int32_t>(count);
  net.direct = layers.size() > count;
  net.features = static_cast<int32_t>(layers[0].stair.in);
  for (size_t l = 0; l < layers.size(); ++l) {
    const cpu::NetworkLayer<T>& from = layers[l];
    const cpu::Staircase& s = from.stair;
    cuda::Layer<T>& to = net.layers[l];
    to.weight = from.weight;
    to.bias = from.bias;
    to.in_order = s.in_order;
    to.out_order = s.out_order;
    to.prefix = s.prefix;
    to.suffix = s.suffix;
    to.in = static_cast<int32_t>(s.in);
    to.out = static_cast<int32_t>(s.out);
    to.activation = from.activation;
    to.residual = from.residual;
    if (to.residual >= 0) net.layers[to.residual].is_source = true;
  }
  const int64_t outputs = cuda::kOutputs * net.features, counts = static_cast<int64_t>(count) * (net.features + 2);
  if (net.layers[count - 1].out != outputs)
    fail("params: expected " + std::to_string(outputs) + " outputs of " + std::to_string(net.features) + " features, found " +
         std::to_string(net.layers[count - 1].out));
  expect_on(kDevice, walk, "walk", DType::int32);
  expect_contiguous(walk, "walk");
  if (walk.dims != 1 || walk.size(0) <= counts || walk.size(0) > counts + net.features)
    fail("walk: expected what make_network_plan made of this network");
  net.ready_counts = walk.as<int32_t>();
  net.ends = net.ready_counts + counts;
  net.blocks = static_cast<int32_t>(walk.size(0) - counts);
}

// Gives every layer its place in the state of a tile; returns the units it takes.
template <class T>
int64_t place_forward(cuda::Network<T>& net) {
  int32_t units = net.features;
  for (int l = 0; l + 1 < net.count; ++l) {
    cuda::Layer<T>& layer = net.layers[l];
    layer.at = units;
    units += layer.out;
    layer.sums_at = layer.is_source ? units : layer.at;
    if (layer.is_source) units += layer.out;
  }
  return units;
}

template <class T>
int64_t place_backward(cuda::Network<T>& net) {
  int32_t units = 0;
  for (int l = 0; l < net.count; ++l) {
    net.layers[l].at = units;
    units += net.layers[l].out;
  }
  return units;
}

// `allocate(n)` makes a tensor of n values, for a state that does not fit shared memory.
template <class Call>
void run(const Call& a, const py::function& allocate, int64_t stream) {
  if (a.rows == 0) return;
  const cuda::Tiling tiling = cuda::tiling_of(a);
  const py::object scratch = tiling.scratch ? allocate(tiling.scratch) : py::none();
  const Tensor room = tiling.scratch ? read_tensor(scratch.ptr()) : Tensor{};
  py::gil_scoped_release unlocked;
  cuda::run(a, tiling, room.as<typename Call::Value>(), reinterpret_cast<void*>(stream));
}

void forward(const Tensor& w, const Optionals& params, const Optional& context_terms, const Optional& log_det_in,
             const Optionals& plan, const Tensor& walk, const std::vector<std::string>& activations,
             const std::vector<int64_t>& residuals, bool direct, bool divide, int kind, double first, double second,
             const Tensor& v, const Tensor& log_det, const py::function& allocate, int64_t stream) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct, kDevice);
    cuda::AutoregressiveInverseForward<T> a;
    describe(layers, activations.size(), walk, a.network);
    a.units = place_forward(a.network);
    if (context_terms) expect_rows(*context_terms, "context_terms", dtype_of<T>(), rows, layers[0].stair.out, kDevice);
    a.w = strided<T>(w, "w", rows, a.network.features, kDevice);
    a.context_terms = context_terms ? context_terms->as<T>() : nullptr;
    a.ld_context = context_terms ? context_terms->step(0) : 0;
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step, kDevice);
    a.rows = rows;
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.v = pointer<T>(v, "v", {rows, features}, kDevice);
    a.log_det = pointer<T>(log_det, "log_det", {rows}, kDevice);
    run(a, allocate, stream);
  });
}

void backward(const Optional& grad_v, const Optional& grad_log_det, const Tensor& w, const Tensor& v, const Tensor& y,
              const Tensor& saved, const Optionals& params, const Optionals& plan, const Tensor& walk,
              const std::vector<std::string>& activations, const std::vector<int64_t>& residuals, bool direct, bool divide,
              int kind, double first, double second, const Tensor& grad_w, const Tensor& deltas, const py::function& allocate,
              int64_t stream) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct, kDevice);
    cuda::AutoregressiveInverseBackward<T> a;
    cuda::Network<T>& net = a.network;
    describe(layers, activations.size(), walk, net);
    a.units = place_backward(net);
    a.grad_v = strided<T>(grad_v, "grad_v", rows, net.features, kDevice);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step, kDevice);
    a.w = strided<T>(w, "w", rows, net.features, kDevice);
    a.v = pointer<T>(v, "v", {rows, features}, kDevice);
    a.y = pointer<T>(y, "y", {rows, cuda::kOutputs * features}, kDevice);
    a.rows = rows;
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.grad_w = pointer<T>(grad_w, "grad_w", {rows, features}, kDevice);
    // Layer after layer, as masked_mlp saves.
    const T* from = pointer<T>(saved, "saved", {rows * (a.units - cuda::kOutputs * features)}, kDevice);
    T* to = pointer<T>(deltas, "deltas", {rows * a.units}, kDevice);
    for (int l = 0; l < net.count; ++l) {
      net.layers[l].saved = from + rows * net.layers[l].at;
      net.layers[l].delta = to + rows * net.layers[l].at;
    }
    run(a, allocate, stream);
  });
}

}  // namespace

void bind_autoregressive_inverse_cuda(py::module_& m) {
  m.def("autoregressive_inverse_cuda_forward", &forward, "autoregressive_inverse_forward on CUDA tensors.", py::arg("w"),
        py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("plan"), py::arg("walk"),
        py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("v"), py::arg("log_det"), py::arg("allocate"), py::arg("stream"));
  m.def("autoregressive_inverse_cuda_backward", &backward,
        "The gradients of w, into grad_w, and of every layer's sums, into deltas, layer after layer.", py::arg("grad_v"),
        py::arg("grad_log_det"), py::arg("w"), py::arg("v"), py::arg("y"), py::arg("saved"), py::arg("params"), py::arg("plan"),
        py::arg("walk"), py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"),
        py::arg("first"), py::arg("second"), py::arg("grad_w"), py::arg("deltas"), py::arg("allocate"), py::arg("stream"));
}

}  // namespace fastgen
