// The plan of one masked linear layer, as fastgen.ops.LinearPlan describes it.
#pragma once

#include <cstdint>

namespace fastgen::cpu {

struct Staircase {
  const int32_t* in_order;   // sorted input -> input; null when they are in order as they stand
  const int32_t* out_order;  // sorted output -> output; likewise
  const int32_t* prefix;     // sorted output -> how many sorted inputs it sees; never falls
  const int32_t* suffix;     // sorted input -> the first sorted output that sees it; never falls
  int64_t in, out;
};

}  // namespace fastgen::cpu
