#include "cuda/autoregressive_sample.h"

#include "cuda/autoregressive_launch.h"

namespace fastgen::cuda {

FASTGEN_INSTANTIATE_CALLS(AutoregressiveSample)

}  // namespace fastgen::cuda
