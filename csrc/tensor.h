// What crosses from Python into C++: a torch tensor read through its public attributes, so that no libtorch is linked
// and no size is taken on trust.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace fastgen {

// Raised as Python's TypeError; std::invalid_argument is raised as ValueError.
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class DType { float32, float64, bfloat16, int32, int64, other };
enum class Device { cpu, cuda, other };

constexpr int kMaxDims = 4;

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::other;
  int dims = 0;
  std::array<int64_t, kMaxDims> shape{};
  std::array<int64_t, kMaxDims> stride{};
  Device device = Device::other;

  int64_t size(int d) const { return shape[d < 0 ? d + dims : d]; }
  int64_t step(int d) const { return stride[d < 0 ? d + dims : d]; }
  int64_t numel() const;
  bool contiguous() const;
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Reads the metadata of a Python object (a PyObject*); throws TypeError for what is no tensor, is not strided, or has more than
// four dimensions.
Tensor read_tensor(void* object);

// Reads a tensor that lies in memory as its numbers are, into `t`; false for a subclass, a negated view, or where torch is too
// old to be asked in one call.
bool read_plain(void* object, Tensor& t);

// The checks raise ValueError or TypeError in one line: the argument, what was found, what was expected.
void expect_on(Device device, const Tensor& t, const char* name, DType dtype);
inline void expect_cpu(const Tensor& t, const char* name, DType dtype) { expect_on(Device::cpu, t, name, dtype); }
void expect_shape(const Tensor& t, const char* name, std::initializer_list<int64_t> shape);
void expect_contiguous(const Tensor& t, const char* name);
void expect_unit_stride(const Tensor& t, const char* name);
[[noreturn]] void fail(const std::string& message);

// Calls f(T{}) with T = float or double, whichever `t` holds.
template <class F>
auto dispatch_float(const Tensor& t, const char* name, F&& f) {
  if (t.dtype == DType::float32) return f(float{});
  if (t.dtype == DType::float64) return f(double{});
  throw TypeError(std::string(name) + ": expected a float32 or float64 tensor");
}

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::float32;
  if constexpr (std::is_same_v<T, double>) return DType::float64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::int32;
  return DType::int64;
}

}  // namespace fastgen
