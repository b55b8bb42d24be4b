#include "cpu/autoregressive_sample.h"

#include "cpu/autoregressive_inverse.h"
#include "cpu/autoregressive_solve.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T, class U>
void draw(const AutoregressiveSystem<T>& system, const U& map) {
  solve(system, map);
}
// What is compiled for the inverse already.
template <class T>
void draw(const AutoregressiveSystem<T>& system, const Affine<T>& map) {
  autoregressive_inverse_forward<T>({system, map.divide, map.map});
}

template <class T>
void autoregressive_sample(const AutoregressiveSample<T>& a) {
  dispatch_conditional<T>(a.conditional, [&](const auto& map) { draw(a.system, map); });
}

FASTGEN_INSTANTIATE_KERNEL(autoregressive_sample, AutoregressiveSample)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
