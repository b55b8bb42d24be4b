#include <omp.h>
#include <pybind11/pybind11.h>

#include <string>

#include "bind/bind.h"
#include "cpu/variant.h"
#include "tensor.h"
#ifdef FASTGEN_WITH_CUDA
#include "cuda/device.h"
#endif

namespace py = pybind11;

namespace {

// Whether all are tensors of one floating dtype that CPU kernels read as they stand; `alike`: matrices of one shape.
bool readable(const py::args& tensors, bool alike) {
  fastgen::Tensor first;
  for (size_t i = 0; i < tensors.size(); ++i) {
    fastgen::Tensor t;
    if (!fastgen::read_plain(tensors[i].ptr(), t) || t.device != fastgen::Device::cpu) return false;
    if (i == 0) first = t;
    if (t.dtype != first.dtype || (alike && (t.dims != 2 || t.size(1) == 0 || t.shape != first.shape))) return false;
  }
  return first.dtype == fastgen::DType::float32 || first.dtype == fastgen::DType::float64;
}

void bind_cpu(py::module_& m) {
  using namespace fastgen::cpu;
  m.def("cpu_variant", [] { return variant_name(active_variant()); }, "The instruction set the CPU kernels run with.");
  m.def(
      "set_cpu_variant",
      [](const std::string& name) {
        if (!set_variant(name.c_str()))
          throw py::value_error("name: expected auto, portable, avx2 or avx512, and one this machine can run, found " + name);
      },
      py::arg("name"), "Forces the instruction set of the CPU kernels: auto, portable, avx2 or avx512.");
  m.def(
      "plain", [](const py::args& tensors) { return readable(tensors, false); },
      "Whether all are CPU tensors of one floating dtype that kernels read as they stand.");
  m.def("alike", [](const py::args& tensors) { return readable(tensors, true); }, "Likewise, and all matrices of one shape.");
  m.def("num_threads", [] { return omp_get_max_threads(); }, "Threads a kernel will use.");
}

void bind_cuda(py::module_& m) {
#ifdef FASTGEN_WITH_CUDA
  m.attr("with_cuda") = true;
  fastgen::bind_autoregressive_inverse_cuda(m);
  fastgen::bind_autoregressive_sample_cuda(m);
  m.def("cuda_device_count", &fastgen::cuda::device_count, "CUDA devices the driver offers; 0 without a driver.");
  m.def(
      "cuda_device",
      [](int index) {
        const fastgen::cuda::Device d = fastgen::cuda::device(index);
        py::dict out;
        out["name"] = d.name;
        out["capability"] = py::make_tuple(d.major, d.minor);
        out["multiprocessors"] = d.multiprocessors;
        out["shared_memory_per_block"] = d.shared_memory_per_block;
        out["l2_bytes"] = d.l2_bytes;
        out["memory_bytes"] = d.memory_bytes;
        return out;
      },
      py::arg("index") = 0, "What a CUDA device offers to a kernel.");
#else
  m.attr("with_cuda") = false;
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastgen's compiled kernels. Call them through fastgen.ops.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const fastgen::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  bind_cpu(m);
  fastgen::bind_network_plan(m);
  bind_cuda(m);
  fastgen::bind_masked_linear(m);
  fastgen::bind_masked_mlp(m);
  fastgen::bind_masked_autoregressive(m);
  fastgen::bind_affine_autoregressive(m);
  fastgen::bind_coupling(m);
  fastgen::bind_autoregressive_inverse(m);
  fastgen::bind_autoregressive_sample(m);
  fastgen::bind_planar(m);
  fastgen::bind_radial(m);
  fastgen::bind_gaussian_log_prob(m);
  fastgen::bind_gaussian_mixture_log_prob(m);
  fastgen::bind_gaussian_rsample_kl(m);
  fastgen::bind_likelihoods(m);
}
