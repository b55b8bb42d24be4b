// Memory a kernel works in, taken by the calling thread before its parallel region: allocation may throw, a region may not.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace fastgen::cpu::FASTGEN_VARIANT {

// Aligned memory that is kept for the next call up to a size, so that small calls do not pay for fresh pages.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  template <class T>
  T* get(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(64, bytes);
      if (!data_) throw std::bad_alloc();
      size_ = bytes;
    }
    return static_cast<T*>(data_);
  }

  void trim() {
    if (size_ <= kKept) return;
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
  }

 private:
  static constexpr size_t kKept = size_t{32} << 20;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fastgen::cpu::FASTGEN_VARIANT
