// Random numbers that are a function of a seed and an index, as fastgen.reference.philox has them: Philox4x32-10 (Salmon et
// al. 2011) and normals made of it (Box & Muller 1958). Free of branches and with internal linkage, as elementary.h.
#pragma once

#include "elementary.h"

namespace fastgen {
namespace {

// The words that each round mixes in.
struct PhiloxKey {
  static constexpr int rounds = 10;
  uint64_t low[rounds], high[rounds];
  FASTGEN_HD explicit PhiloxKey(int64_t seed) {
    uint32_t a = uint32_t(uint64_t(seed)), b = uint32_t(uint64_t(seed) >> 32);
    for (int round = 0; round < rounds; ++round, a += 0x9E3779B9u, b += 0xBB67AE85u) {
      low[round] = a;
      high[round] = b;
    }
  }
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

// The four words of the counter (low word of an index, high word, 0, 0).
template <class Word, class Multiply>
FASTGEN_HD_INLINE PhiloxWords<Word> philox(Word low, Word high, const PhiloxKey& key, Multiply multiply) {
  const Word zero = low ^ low;
  PhiloxWords<Word> w{low, high, zero, zero};
#pragma GCC unroll 10
  for (int round = 0; round < PhiloxKey::rounds; ++round) {
    const Product<Word> a = multiply(w.a, 0xD2511F53u), c = multiply(w.c, 0xCD9E8D57u);
    w = {c.high ^ w.b ^ key.low[round], c.low, a.high ^ w.d ^ key.high[round], a.low};
  }
  return w;
}

FASTGEN_HD_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
FASTGEN_HD_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// (word + 1/2) 2^-32, each step rounded to T as in the reference: a power of two rounds nothing.
template <class T>
FASTGEN_HD_INLINE T unit(uint32_t word) {
  return T(word) * T(2.3283064365386963e-10) + T(1.1641532182693481e-10);
}

// cos and sin of an angle up to pi / 2 in size; z is its square.
FASTGEN_HD_INLINE float small_sin(float a, float z) {
  return a + a * z * math::polynomial(z, 2.63475638e-6f, -1.98227395e-4f, 8.33324214e-3f, -0.16666666f);
}
FASTGEN_HD_INLINE float small_cos(float z) {
  return 1.0f - 0.5f * z + z * z * math::polynomial(z, -2.65460657e-7f, 2.47860824e-5f, -1.38888126e-3f, 0.0416666661f);
}
FASTGEN_HD_INLINE double small_sin(double a, double z) {
  return a + a * z *
                 math::polynomial(z, 2.73144475909633992e-15, -7.64397029616579228e-13, 1.60589773124442682e-10,
                                  -2.50521076169958772e-8, 2.7557319219163231e-6, -0.000198412698412549738,
                                  0.00833333333333331587, -0.166666666666666666);
}
FASTGEN_HD_INLINE double small_cos(double z) {
  return 1.0 - 0.5 * z +
         z * z *
             math::polynomial(z, -1.52186383296928773e-16, 4.77787792492865373e-14, -1.14707122727395313e-11,
                              2.08767566028753111e-9, -2.75573192215695606e-7, 0.0000248015873015798521,
                              -0.00138888888888888801, 0.0416666666666666666);
}

template <class T>
struct Direction {
  T cos, sin;
};

// That of the angle 2 pi (word + 1/2) 2^-32: the nearest half turn is taken off as an integer, so nothing is lost.
template <class T>
FASTGEN_HD_INLINE Direction<T> direction(uint32_t word) {
  constexpr T radians = T(7.314590396335798e-10);
  const bool turned = (word + 0x40000000u) & 0x80000000u;
  const T angle = T(int32_t(word << 1)) * radians + radians, z = angle * angle;
  const T sin = small_sin(angle, z), cos = small_cos(z);
  return {turned ? -cos : cos, turned ? -sin : sin};
}

// The length of a pair of standard normals, which its direction is multiplied by.
template <class T>
FASTGEN_HD_INLINE T normal_length(uint32_t word) {
  return square_root(T(-2) * math::log_normal(unit<T>(word)));
}

}  // namespace
}  // namespace fastgen
