#include "cpu/variant.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace fastgen::cpu {
namespace {

bool supported(Variant v) {
  if (v == Variant::portable) return true;
#ifdef FASTGEN_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (v == Variant::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

Variant best() {
  if (supported(Variant::avx512)) return Variant::avx512;
  if (supported(Variant::avx2)) return Variant::avx2;
  return Variant::portable;
}

bool parse(const char* name, Variant& out) {
  if (!std::strcmp(name, "auto")) return out = best(), true;
  for (Variant v : {Variant::portable, Variant::avx2, Variant::avx512})
    if (!std::strcmp(name, variant_name(v))) return out = v, supported(v);
  return false;
}

Variant& active() {
  static Variant v = [] {
    Variant chosen;
    const char* forced = std::getenv("FASTGEN_CPU_VARIANT");
    return forced && parse(forced, chosen) ? chosen : best();
  }();
  return v;
}

}  // namespace

Variant active_variant() { return active(); }

bool set_variant(const char* name) {
  Variant v;
  if (!parse(name, v)) return false;
  active() = v;
  return true;
}

const char* variant_name(Variant v) {
  switch (v) {
    case Variant::avx512:
      return "avx512";
    case Variant::avx2:
      return "avx2";
    default:
      return "portable";
  }
}

}  // namespace fastgen::cpu
