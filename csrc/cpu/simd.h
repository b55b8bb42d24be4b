// Vectors of the compiler's own kind, as wide as the variant's registers. Everything here is inlined into one variant.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#define FASTGEN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FASTGEN_VECTOR_BYTES 32
#else
#define FASTGEN_VECTOR_BYTES 16
#endif

#define FASTGEN_INLINE inline __attribute__((always_inline))

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FASTGEN_VECTOR_BYTES)));
  typedef T unaligned __attribute__((vector_size(FASTGEN_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = FASTGEN_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
FASTGEN_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}
template <class T>
FASTGEN_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

// The integer vectors that name the lanes of a shuffle.
template <class T>
struct Lane;
template <>
struct Lane<float> {
  using type = int32_t;
};
template <>
struct Lane<double> {
  using type = int64_t;
};

template <class T>
FASTGEN_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b, Vec<typename Lane<T>::type> lanes) {
#if defined(__clang__)
  Vec<T> out;
  for (int i = 0; i < kLanes<T>; ++i) out[i] = lanes[i] < kLanes<T> ? a[lanes[i]] : b[lanes[i] - kLanes<T>];
  return out;
#else
  return __builtin_shuffle(a, b, lanes);
#endif
}

// Transposes a square of kLanes x kLanes held in registers: log2 steps, each exchanging blocks of `Step` lanes.
template <class T, int Step = 1>
FASTGEN_INLINE void transpose(Vec<T> (&r)[kLanes<T>]) {
  if constexpr (Step < kLanes<T>) {
    Vec<typename Lane<T>::type> low, high;
    for (int i = 0; i < kLanes<T>; ++i) {
      low[i] = i & Step ? kLanes<T> + i - Step : i;
      high[i] = i & Step ? kLanes<T> + i : i + Step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (i & Step) continue;
      const Vec<T> a = r[i], b = r[i + Step];
      r[i] = shuffle<T>(a, b, low);
      r[i + Step] = shuffle<T>(a, b, high);
    }
    transpose<T, Step * 2>(r);
  }
}

template <class T>
FASTGEN_INLINE constexpr T least(T a, T b) {
  return a < b ? a : b;
}
template <class T>
FASTGEN_INLINE constexpr T most(T a, T b) {
  return a < b ? b : a;
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
