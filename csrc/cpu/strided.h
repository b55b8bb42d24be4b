#pragma once

#include <cstdint>

namespace fastgen::cpu {

// A matrix read where it lies, at any strides (0 for a broadcast axis). Null data: a matrix that was not given.
template <class T>
struct Strided {
  const T* data = nullptr;
  int64_t row = 0, column = 0;
};

}  // namespace fastgen::cpu
