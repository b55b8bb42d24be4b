#include "cuda/autoregressive_sample.h"

#include <algorithm>

#include "bind/autoregressive_cuda.h"
#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/conditional.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void sample(const Tensor& noise, const Optionals& params, const Optional& context_terms, const Optional& given, int64_t known,
            const Optionals& plan, const Tensor& walk, const std::vector<std::string>& activations,
            const std::vector<int64_t>& residuals, bool direct, int kind, int64_t size, int map, double first, double second,
            bool tf32, const Tensor& values, const py::function& allocate, int64_t stream) {
  expect_features(noise, "noise");
  const Conditional c = conditional(kind, size, map, first, second);
  const int64_t rows = noise.size(0);
  dispatch_types(noise, "noise", params, tf32, [&](auto zero, auto weight) {
    using T = decltype(zero);
    using W = decltype(weight);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct, kDevice, stored_as<W>());
    cuda::AutoregressiveSample<T, W> a{};
    a.map = cuda::AnyConditional<T>(c);
    const int64_t outputs = a.map.outputs();
    read_system(layers, activations.size(), walk, {outputs, a.map.columns()}, rows, context_terms, values, "values", a);
    a.units += std::max(outputs, std::min<int64_t>(cuda::kWalkBlock * outputs, cuda::kBlockOutputs));
    const int64_t features = a.network.features;
    a.noise = strided<T>(noise, "noise", rows, features * a.map.numbers, kDevice);
    a.given = strided<T>(given, "given", rows, features, kDevice);
    expect_known(known, given.has_value(), features);
    a.given_features = static_cast<int32_t>(known);
    run(a, allocate, stream);
  });
}

}  // namespace

void bind_autoregressive_sample_cuda(py::module_& m) {
  m.def("autoregressive_sample_cuda", &sample, "autoregressive_sample on CUDA tensors.", py::arg("noise"), py::arg("params"),
        py::arg("context_terms"), py::arg("given"), py::arg("known"), py::arg("plan"), py::arg("walk"), py::arg("activations"),
        py::arg("residuals"), py::arg("direct"), py::arg("conditional"), py::arg("size"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("tf32"), py::arg("values"), py::arg("allocate"), py::arg("stream"));
}

}  // namespace fastgen
