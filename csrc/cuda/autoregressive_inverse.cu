#include "cuda/autoregressive_inverse.h"

#include "cuda/autoregressive_launch.h"

namespace fastgen::cuda {

FASTGEN_INSTANTIATE_CALLS(AutoregressiveInverseForward)
FASTGEN_INSTANTIATE_CALLS(AutoregressiveInverseBackward)

}  // namespace fastgen::cuda
