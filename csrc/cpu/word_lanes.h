// Vectors of 32-bit words, as wide as the variant's registers, and Philox on them.
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

// first, first + 1, ... (a vector filled with sums would be made lane by lane)
FASTGEN_INLINE Words count_from(uint32_t first) {
  Words lanes;
  for (int i = 0; i < kWordLanes; ++i) lanes[i] = uint32_t(i);
  return first + lanes;
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

// Of every other word, in the lower half of a pair: a product's halves are then where they are wanted, the upper half of a pair
// is whatever it is.
struct MultiplyPairs {
  FASTGEN_INLINE Product<WordPairs> operator()(WordPairs a, uint32_t b) const {
    const WordPairs product = multiply_lower(a, WordPairs{} + b);
    return {product >> 32, product};
  }
};

FASTGEN_INLINE Words interleave(WordPairs even, WordPairs odd) { return (Words)((even & 0xffffffffu) | (odd << 32)); }

// The words of kWordLanes counters from `first` on.
FASTGEN_INLINE PhiloxWords<Words> philox_from(uint64_t first, const PhiloxKey& key) {
  const Words low = count_from(uint32_t(first)), carried = (Words)(low < uint32_t(first));
  // A comparison that holds is -1 in every bit.
  const Words high = uint32_t(first >> 32) - carried;
  const auto even = philox((WordPairs)low, (WordPairs)high, key, MultiplyPairs{});
  const auto odd = philox((WordPairs)low >> 32, (WordPairs)high >> 32, key, MultiplyPairs{});
  return {interleave(even.a, odd.a), interleave(even.b, odd.b), interleave(even.c, odd.c), interleave(even.d, odd.d)};
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
