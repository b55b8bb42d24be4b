// Reads a conditional sampler that came from Python: ConditionalSampler.code.
#pragma once

#include <string>

#include "bind/elementwise.h"
#include "conditionals.h"

namespace fastgen {

inline Conditional conditional(int kind, int64_t size, int map, double first, double second) {
  // Beyond it, a count times a number of features could leave 64 bits.
  constexpr int64_t kLargest = int64_t{1} << 30;
  if (kind < 0 || kind >= kConditionalKinds)
    fail("conditional: expected a kind from 0 to " + std::to_string(kConditionalKinds - 1) + ", found " + std::to_string(kind));
  if (size < 1 || size > kLargest) fail("size: expected 1 to " + std::to_string(kLargest) + ", found " + std::to_string(size));
  return {static_cast<ConditionalKind>(kind), size, scale_map(map, first, second)};
}

inline void expect_known(int64_t known, bool given, int64_t features) {
  const int64_t most = given ? features : 0;
  if (known < 0 || known > most) fail("known: expected 0 to " + std::to_string(most) + ", found " + std::to_string(known));
}

}  // namespace fastgen
