// What is read of the DLPack exchange interface, version 1 (github.com/dmlc/dlpack): its layouts in memory, as it lists them.
#pragma once

#include <cstdint>

namespace fastgen::dlpack {

constexpr int32_t kCpu = 1, kCuda = 2;
constexpr uint8_t kInt = 0, kFloat = 2, kBfloat = 4;

struct Device {
  int32_t type, index;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct View {
  void* data;
  Device device;
  int32_t dims;
  DataType dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct Exchange {
  uint32_t major, minor;
  void *previous, *allocate, *export_owned, *import_owned;
  int (*view)(void* object, View* out);  // not owned, no synchronisation; not 0 with a Python exception where it fails
  void* current_stream;
};

}  // namespace fastgen::dlpack
