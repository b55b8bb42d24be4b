// Vectors of 32-bit words, as wide as the variant's registers, and their products.
#pragma once

#include "cpu/simd.h"
#include "cpu/variant.h"
#include "philox.h"

#ifdef FASTGEN_X86
#include <immintrin.h>
#endif

namespace fastgen::cpu::FASTGEN_VARIANT {

typedef uint32_t Words __attribute__((vector_size(FASTGEN_VECTOR_BYTES)));
typedef uint64_t WordPairs __attribute__((vector_size(FASTGEN_VECTOR_BYTES)));
constexpr int kWordLanes = FASTGEN_VECTOR_BYTES / 4;

FASTGEN_INLINE void store_words(uint32_t* to, Words words) { __builtin_memcpy(to, &words, sizeof(words)); }

// first, first + 1, ...
FASTGEN_INLINE Words count_from(uint32_t first) {
  Words words;
  for (int i = 0; i < kWordLanes; ++i) words[i] = first + uint32_t(i);
  return words;
}

// The products of the lower words of two vectors of pairs. Compilers do not find the one instruction there is for it.
FASTGEN_INLINE WordPairs multiply_lower(WordPairs a, WordPairs b) {
#if !defined(FASTGEN_X86)
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#elif FASTGEN_VECTOR_BYTES == 64
  // The masked form: GCC 12 warns of the undefined vector inside the plain one.
  return (WordPairs)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif FASTGEN_VECTOR_BYTES == 32
  return (WordPairs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (WordPairs)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

struct MultiplyLanes {
  FASTGEN_INLINE Product<Words> operator()(Words a, uint32_t b) const {
    const WordPairs factor = WordPairs{} + b, lower = multiply_lower((WordPairs)a, factor);
    const WordPairs upper = multiply_lower((WordPairs)a >> 32, factor);
    constexpr uint64_t high = 0xffffffff00000000u;
    return {(Words)((lower >> 32) | (upper & high)), (Words)((lower & ~high) | (upper << 32))};
  }
};

}  // namespace fastgen::cpu::FASTGEN_VARIANT
