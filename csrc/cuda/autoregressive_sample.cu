#include "cuda/autoregressive_sample.h"

#include "cuda/autoregressive_launch.h"

namespace fastgen::cuda {

Tiling tiling_of(const AutoregressiveSample<float>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveSample<double>& a) { return choose(a); }

void run(const AutoregressiveSample<float>& a, const Tiling& tiling, float* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveSample<double>& a, const Tiling& tiling, double* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}

}  // namespace fastgen::cuda
