#include "cuda/autoregressive_inverse.h"

#include "cuda/autoregressive_launch.h"

namespace fastgen::cuda {

Tiling tiling_of(const AutoregressiveInverseForward<float>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseForward<double>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseBackward<float>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseBackward<double>& a) { return choose(a); }

void run(const AutoregressiveInverseForward<float>& a, const Tiling& tiling, float* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseForward<double>& a, const Tiling& tiling, double* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseBackward<float>& a, const Tiling& tiling, float* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseBackward<double>& a, const Tiling& tiling, double* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}

}  // namespace fastgen::cuda
