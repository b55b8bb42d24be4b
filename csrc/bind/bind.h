// The Python boundary of each operation: checks every size, then calls the kernel without the GIL.
#pragma once

#include <pybind11/pybind11.h>

namespace fastgen {

void bind_network_plan(pybind11::module_& m);
void bind_masked_linear(pybind11::module_& m);
void bind_masked_mlp(pybind11::module_& m);
void bind_masked_autoregressive(pybind11::module_& m);
void bind_affine_autoregressive(pybind11::module_& m);
void bind_coupling(pybind11::module_& m);
void bind_autoregressive_inverse(pybind11::module_& m);
void bind_autoregressive_inverse_cuda(pybind11::module_& m);
void bind_autoregressive_sample(pybind11::module_& m);
void bind_autoregressive_sample_cuda(pybind11::module_& m);
void bind_planar(pybind11::module_& m);
void bind_radial(pybind11::module_& m);
void bind_gaussian_log_prob(pybind11::module_& m);
void bind_gaussian_mixture_log_prob(pybind11::module_& m);
void bind_gaussian_rsample_kl(pybind11::module_& m);
void bind_likelihoods(pybind11::module_& m);

}  // namespace fastgen
