// What weights are in memory. Those below multiply on tensor cores, which round the other factor to tf32 (11 bits, as much as
// they keep of a float32 weight; a bfloat16 weight is exact). Sums and states stay what they are.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/block.h"

namespace fastgen::cuda {

struct Tf32 {
  float value;
};
struct Bfloat16 {
  uint16_t bits;
};

template <class W>
constexpr bool kOnTensorCores = std::is_same_v<W, Tf32> || std::is_same_v<W, Bfloat16>;

FASTGEN_DEVICE float read(const Tf32* p) { return read(&p->value); }
FASTGEN_DEVICE float read(const Bfloat16* p) { return math::bit_cast<float>(uint32_t(read(&p->bits)) << 16); }

// To the nearest of 11 significant bits, halves away from zero.
FASTGEN_DEVICE float to_tf32(float x) {
#ifdef __CUDA_ARCH__
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
#else
  const uint32_t bits = math::bit_cast<uint32_t>(x);
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  return finite ? math::bit_cast<float>((bits + 0x1000) & ~uint32_t(0x1fff)) : x;
#endif
}

}  // namespace fastgen::cuda
