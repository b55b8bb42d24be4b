#pragma once

#include "conditionals.h"
#include "cpu/autoregressive_system.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

// v holds samples of an autoregressive density with these conditionals.
template <class T>
struct AutoregressiveSample {
  AutoregressiveSystem<T> system;
  Conditional conditional;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(autoregressive_sample, AutoregressiveSample)
