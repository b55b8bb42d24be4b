// What a CUDA device offers: read by `fastgen doctor` and by launch choices.
#pragma once

#include <cstdint>
#include <string>

namespace fastgen::cuda {

struct Device {
  std::string name;
  int major = 0, minor = 0;
  int multiprocessors = 0;
  int64_t shared_memory_per_block = 0;
  int64_t l2_bytes = 0;
  int64_t memory_bytes = 0;
};

int device_count();
// Throws std::out_of_range for an index the driver does not offer.
Device device(int index);

}  // namespace fastgen::cuda
