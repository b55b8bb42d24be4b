#include "cpu/autoregressive_sample.h"

#include "cpu/autoregressive_solve.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
void autoregressive_sample(const AutoregressiveSample<T>& a) {
  dispatch_conditional<T>(a.conditional, [&](const auto& draw) { solve(a.system, draw); });
}

FASTGEN_INSTANTIATE_KERNEL(autoregressive_sample, AutoregressiveSample)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
