// Elementary functions for the kernels: free of branches, so that a loop over them becomes SIMD code, and usable on CUDA.
//
// float: polynomials, within 2.5 ulp over the whole range. double: exp and expm1 likewise, the others from the C library.
// Everything here has internal linkage: each instruction-set variant of a kernel must keep its own copy (cpu/variant.h).
// Polynomials are minimax fits (Remez) of the function named beside them.
#pragma once

#include <cmath>

#include <cstdint>

#ifdef __CUDACC__
#define FASTGEN_HD __host__ __device__
#else
#define FASTGEN_HD
#endif
#define FASTGEN_HD_INLINE FASTGEN_HD inline __attribute__((always_inline))

namespace fastgen::math {
namespace {

template <class To, class From>
FASTGEN_HD_INLINE To bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, x);
}

template <class T>
struct Limits;

template <>
struct Limits<float> {
  using Bits = uint32_t;
  static constexpr int mantissa = 23;
  static constexpr Bits bias = 127;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  static constexpr float log2e = 1.44269504f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
  static constexpr float exp_min = -104.0f, exp_max = 89.0f, expm1_min = -20.0f;
};

template <>
struct Limits<double> {
  using Bits = uint64_t;
  static constexpr int mantissa = 52;
  static constexpr Bits bias = 1023;
  static constexpr double round = 6755399441055744.0;
  static constexpr double log2e = 1.4426950408889634, ln2_hi = 0.693147180369123816490, ln2_lo = 1.90821492927058770002e-10;
  static constexpr double exp_min = -746.0, exp_max = 710.0, expm1_min = -40.0;
};

template <class T>
constexpr T infinity = T(__builtin_huge_valf());
constexpr double half_log_two_pi = 0.91893853320467274178;

// c0 x^n + c1 x^(n-1) + ... + cn
template <class T>
FASTGEN_HD_INLINE T polynomial(T, T c) {
  return c;
}
template <class T, class... Rest>
FASTGEN_HD_INLINE T polynomial(T x, T c0, T c1, Rest... rest) {
  return polynomial(x, c0 * x + c1, rest...);
}

FASTGEN_HD_INLINE float abs(float x) { return __builtin_fabsf(x); }
FASTGEN_HD_INLINE double abs(double x) { return __builtin_fabs(x); }
FASTGEN_HD_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
FASTGEN_HD_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
FASTGEN_HD_INLINE float copysign(float x, float sign) { return __builtin_copysignf(x, sign); }
FASTGEN_HD_INLINE double copysign(double x, double sign) { return __builtin_copysign(x, sign); }

// A NaN in x comes out as it is.
template <class T>
FASTGEN_HD_INLINE T clamp(T x, T lo, T hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

// 2^(n + more) for an integer n, n + more in the range of normal exponents; one below it gives 0.
template <class T>
FASTGEN_HD_INLINE T power_of_two(T n, int more = 0) {
  using L = Limits<T>;
  // What n holds above its low bits is shifted out.
  return bit_cast<T>(typename L::Bits(bit_cast<typename L::Bits>(n + (L::round + T(int(L::bias) + more))) << L::mantissa));
}

// x = n ln 2 + r with |r| <= ln 2 / 2.
template <class T>
struct Reduced {
  T n, r;
};
template <class T>
FASTGEN_HD_INLINE Reduced<T> reduce(T x) {
  using L = Limits<T>;
  const T n = (x * L::log2e + L::round) - L::round;
  return {n, (x - n * L::ln2_hi) - n * L::ln2_lo};
}

// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2
FASTGEN_HD_INLINE float exp_tail(float r) {
  return polynomial(r, 1.99145928e-4f, 1.3941311e-3f, 8.3332723e-3f, 4.16663513e-2f, 0.166666672f, 0.5f);
}
FASTGEN_HD_INLINE double exp_tail(double r) {
  return polynomial(r, 1.6093581236256492e-10, 2.0921831243632672e-09, 2.5052046856681476e-08, 2.7557251158161404e-07,
                    2.7557319278559717e-06, 2.4801587350902498e-05, 0.00019841269841244962, 0.001388888888887153,
                    0.008333333333333338, 0.04166666666666669, 0.16666666666666666, 0.5);
}

template <class T>
FASTGEN_HD_INLINE T exp(T x) {
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  using L = Limits<T>;
  const Reduced<T> v = reduce(clamp(x, L::exp_min, L::exp_max));
  using Bits = typename L::Bits;
  const T p = v.r * v.r * exp_tail(v.r) + v.r + T(1);
  // Two steps: 2^n itself may be no normal number where the result is one, or a denormal. What n holds above its low bits is
  // shifted out.
  const Bits n = bit_cast<Bits>(v.n + L::round), half = n >> 1;
  return p * bit_cast<T>(Bits((half << L::mantissa) + (L::bias << L::mantissa))) *
         bit_cast<T>(Bits(((n - half) << L::mantissa) + (L::bias << L::mantissa)));
#endif
}

template <class T>
FASTGEN_HD_INLINE T expm1(T x) {
#ifdef __CUDA_ARCH__
  return ::expm1(x);
#else
  using L = Limits<T>;
  const Reduced<T> v = reduce(clamp(x, L::expm1_min, L::exp_max));
  const T p = v.r * v.r * exp_tail(v.r) + v.r;
  const T half = power_of_two(v.n, -1);
  return (p * half + (half - T(0.5))) * T(2);
#endif
}

// e^x - 1 - x: near 0 from the polynomial, where the difference would lose digits.
template <class T>
FASTGEN_HD_INLINE T exp_minus_1_minus(T x) {
  using L = Limits<T>;
  const Reduced<T> v = reduce(clamp(x, L::expm1_min, L::exp_max));
  const T tail = v.r * v.r * exp_tail(v.r), half = power_of_two(v.n, -1);
  const T expm1 = ((tail + v.r) * half + (half - T(0.5))) * T(2);
  return v.n == T(0) ? tail : expm1 - x;
}

// Of x 2^-shift, x positive and no denormal.
FASTGEN_HD_INLINE float log_normal(float x, float shift = 0.0f) {
  const uint32_t sqrt_half = 0x3f3504f3;
  const uint32_t bits = bit_cast<uint32_t>(x) - sqrt_half;
  const float e = float(int32_t(bits) >> 23) - shift;
  const float f = bit_cast<float>((bits & 0x7fffff) + sqrt_half) - 1.0f;
  // (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f in [sqrt 1/2, sqrt 2]
  const float tail = polynomial(f, 0.0691558048f, -0.117898792f, 0.118729159f, -0.12384332f, 0.142186642f, -0.166692525f,
                                0.200022265f, -0.249999866f, 0.333333105f);
  const float f2 = f * f;
  return (f2 * (f * tail - 0.5f) + e * Limits<float>::ln2_lo) + f + e * Limits<float>::ln2_hi;
}
FASTGEN_HD_INLINE double log_normal(double x) { return ::log(x); }

FASTGEN_HD_INLINE float log(float x) {
#ifdef __CUDA_ARCH__
  return ::logf(x);
#else
  const bool denormal = x < 1.17549435e-38f;
  float y = log_normal(denormal ? x * 8388608.0f : x, denormal ? 23.0f : 0.0f);
  y = x < infinity<float> ? y : x;
  y = x > 0.0f ? y : (x == 0.0f ? -infinity<float> : __builtin_nanf(""));
  return y;
#endif
}
FASTGEN_HD_INLINE double log(double x) { return ::log(x); }

FASTGEN_HD_INLINE float log1p(float x) {
#ifdef __CUDA_ARCH__
  return ::log1pf(x);
#else
  const float u = 1.0f + x;
  // What rounding u lost: log(u + c) = log(u) + c / u.
  const float c = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
  const float y = log(u);
  const float corrected = y + c / u;
  return abs(y) < infinity<float> ? corrected : y;
#endif
}
FASTGEN_HD_INLINE double log1p(double x) { return ::log1p(x); }

FASTGEN_HD_INLINE float tanh(float x) {
#ifdef __CUDA_ARCH__
  return ::tanhf(x);
#else
  // With e = e^2|x| - 1: e / (e + 2), and 1 - 2 / (e + 2) where that rounds less.
  const float e = expm1(2.0f * abs(x));
  const bool large = e > 2.0f;
  const float q = (large ? 2.0f : e) / (e + 2.0f);
  return copysign(large ? 1.0f - q : q, x);
#endif
}
FASTGEN_HD_INLINE double tanh(double x) { return ::tanh(x); }

FASTGEN_HD_INLINE float erf(float x) {
#ifdef __CUDA_ARCH__
  return ::erff(x);
#else
  const float a = abs(x), z = x * x;
  // erf(x) / x in x^2, for |x| < 1
  const float small = x * polynomial(z, 7.88678371e-05f, -8.02008319e-4f, 5.18944068e-3f, -0.0268543884f, 0.112835988f,
                                     -0.37612626f, 1.12837911f);
  // -log(1 - erf(a)) for a in [1, 4]; beyond, erf is 1
  const float tail = polynomial(a > 4.0f ? 4.0f : a, 2.14961274e-05f, -4.39106574e-4f, 4.19361191e-3f, -0.0251789708f,
                                0.108372487f, 0.633262634f, 1.12955678f, -1.83444747e-4f);
  const float large = copysign(1.0f - exp(-tail), x);
  return a < 1.0f ? small : large;
#endif
}
FASTGEN_HD_INLINE double erf(double x) { return ::erf(x); }

template <class T>
FASTGEN_HD_INLINE T sigmoid(T x) {
  const T t = exp(-abs(x));
  return (x < T(0) ? t : T(1)) / (T(1) + t);
}

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), whose derivative is the sigmoid.
template <class T>
FASTGEN_HD_INLINE T softplus(T x) {
  return (x > T(0) ? x : T(0)) + log1p(exp(-abs(x)));
}

template <class T>
FASTGEN_HD_INLINE T log_sigmoid(T x) {
  return (x < T(0) ? x : T(0)) - log1p(exp(-abs(x)));
}

}  // namespace
}  // namespace fastgen::math
