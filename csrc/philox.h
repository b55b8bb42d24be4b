// Random numbers that are a function of a seed and an index, as fastgen.reference.philox has them: Philox4x32-10 (Salmon et
// al. 2011) and normals made of it (Box & Muller 1958). Free of branches and with internal linkage, as elementary.h.
#pragma once

#include "elementary.h"

namespace fastgen {
namespace {

struct PhiloxKey {
  uint32_t low, high;
  FASTGEN_HD explicit PhiloxKey(int64_t seed) : low(uint32_t(uint64_t(seed))), high(uint32_t(uint64_t(seed) >> 32)) {}
};

// A word, or a vector of words.
template <class Word>
struct PhiloxWords {
  Word a, b, c, d;
};

template <class Word>
struct Product {
  Word high, low;
};

struct MultiplyWords {
  FASTGEN_HD_INLINE Product<uint32_t> operator()(uint32_t a, uint32_t b) const {
    const uint64_t product = uint64_t(a) * b;
    return {uint32_t(product >> 32), uint32_t(product)};
  }
};

// The four words of the counter (low word of an index, high word, 0, 0).
template <class Word, class Multiply>
FASTGEN_HD_INLINE PhiloxWords<Word> philox(Word low, Word high, PhiloxKey key, Multiply multiply) {
  const Word zero = low ^ low;
  PhiloxWords<Word> w{low, high, zero, zero};
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Product<Word> a = multiply(w.a, 0xD2511F53u), c = multiply(w.c, 0xCD9E8D57u);
    w = {c.high ^ w.b ^ key.low, c.low, a.high ^ w.d ^ key.high, a.low};
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return w;
}

FASTGEN_HD_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
FASTGEN_HD_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// (word + 1/2) 2^-32, each step rounded to T as in the reference.
template <class T>
FASTGEN_HD_INLINE T unit(uint32_t word) {
  return (T(word) + T(0.5)) * T(2.3283064365386963e-10);
}

// cos and sin of an angle up to pi / 4 in size; z is its square.
FASTGEN_HD_INLINE float small_sin(float a, float z) {
  return a + a * z * math::polynomial(z, -1.9517299e-4f, 8.33217815e-3f, -0.166666549f);
}
FASTGEN_HD_INLINE float small_cos(float z) {
  return 1.0f - 0.5f * z + z * z * math::polynomial(z, 2.44384518e-5f, -1.38873675e-3f, 0.0416666469f);
}
FASTGEN_HD_INLINE double small_sin(double a, double z) {
  return a + a * z *
                 math::polynomial(z, 1.5896828091379843e-10, -2.5050758657397589e-8, 2.7557313695263555e-6,
                                  -0.00019841269829817096, 0.0083333333333224248, -0.16666666666666632);
}
FASTGEN_HD_INLINE double small_cos(double z) {
  return 1.0 - 0.5 * z +
         z * z *
             math::polynomial(z, -1.1359669853221746e-11, 2.0875723684856574e-9, -2.7557314355251763e-7, 2.4801587289491893e-5,
                              -0.0013888888888874139, 0.0416666666666666);
}

template <class T>
struct Direction {
  T cos, sin;
};

// That of the angle 2 pi (word + 1/2) 2^-32: the nearest quarter turn is taken off as an integer, so nothing is lost.
template <class T>
FASTGEN_HD_INLINE Direction<T> direction(uint32_t word) {
  constexpr T radians = T(1.4629180792671596e-9);
  const uint32_t quarter = (word + 0x20000000u) >> 30;
  const T angle = T(int32_t(word - (quarter << 30))) * radians + T(0.5) * radians, z = angle * angle;
  const T sin = small_sin(angle, z), cos = small_cos(z);
  const T x = quarter & 1 ? sin : cos, y = quarter & 1 ? cos : sin;
  return {(quarter + 1) & 2 ? -x : x, quarter & 2 ? -y : y};
}

// The length of a pair of standard normals, which its direction is multiplied by.
template <class T>
FASTGEN_HD_INLINE T normal_length(uint32_t word) {
  return square_root(T(-2) * math::log(unit<T>(word)));
}

}  // namespace
}  // namespace fastgen
