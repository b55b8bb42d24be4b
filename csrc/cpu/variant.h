// The instruction-set variants of the CPU kernels, and the choice between them.
//
// A kernel is a function template over float and double taking one argument struct. Its source is compiled once per
// variant with FASTGEN_VARIANT naming the namespace it lands in. Such a source instantiates no template of the standard
// library that is not inlined: the linker would keep one copy, compiled for whichever instruction set came first.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define FASTGEN_X86 1
#endif

namespace fastgen::cpu {

enum class Variant { portable, avx2, avx512 };

Variant active_variant();
// Forces a variant by name ("auto" for the best this machine has); false when this machine cannot run it.
bool set_variant(const char* name);
const char* variant_name(Variant v);

}  // namespace fastgen::cpu

// Declares kernel `name` in every variant, and fastgen::cpu::name, which calls the active one.
#ifdef FASTGEN_X86
#define FASTGEN_DECLARE_KERNEL(name, Args) \
  namespace fastgen::cpu {                 \
  namespace portable {                     \
  template <class T>                       \
  void name(const Args<T>&);               \
  }                                        \
  namespace avx2 {                         \
  template <class T>                       \
  void name(const Args<T>&);               \
  }                                        \
  namespace avx512 {                       \
  template <class T>                       \
  void name(const Args<T>&);               \
  }                                        \
  template <class T>                       \
  void name(const Args<T>& args) {         \
    switch (active_variant()) {            \
      case Variant::avx512:                \
        return avx512::name<T>(args);      \
      case Variant::avx2:                  \
        return avx2::name<T>(args);        \
      default:                             \
        return portable::name<T>(args);    \
    }                                      \
  }                                        \
  }
#else
#define FASTGEN_DECLARE_KERNEL(name, Args) \
  namespace fastgen::cpu {                 \
  namespace portable {                     \
  template <class T>                       \
  void name(const Args<T>&);               \
  }                                        \
  template <class T>                       \
  void name(const Args<T>& args) {         \
    portable::name<T>(args);               \
  }                                        \
  }
#endif

// In a kernel's source, inside namespace fastgen::cpu::FASTGEN_VARIANT, after its definition.
#define FASTGEN_INSTANTIATE_KERNEL(name, Args)   \
  template void name<float>(const Args<float>&); \
  template void name<double>(const Args<double>&);
