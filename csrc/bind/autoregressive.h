// What the operations that solve autoregressive networks check alike.
#pragma once

#include <string>
#include <vector>

#include "bind/network.h"
#include "cpu/autoregressive_system.h"
#include "cpu/autoregressive_walk.h"

namespace fastgen {

// How many outputs each feature has, and how many columns of the network's input.
struct PerFeature {
  int64_t outputs, columns;
};

// Whether `order` lists features at `count` neighbours each, in the order in which `columns` lists them.
inline bool lists_features(const int32_t* order, int64_t count, const int32_t* columns, PerFeature per, int64_t features) {
  if (!order && !columns) return true;
  for (int64_t i = 0; i < features; ++i) {
    const int64_t feature = columns ? columns[i * per.columns] / per.columns : i;
    for (int64_t j = 0; j < count; ++j)
      if ((order ? order[i * count + j] : i * count + j) != feature * count + j) return false;
  }
  return true;
}

// Feature by feature in the order of degrees: outputs listed as the inputs are, and none that sees its own feature.
template <class T>
void expect_autoregressive(const cpu::MaskedNetwork<T>& net, PerFeature per) {
  const cpu::Staircase &in = net.layers[0].stair, &out = net.layers[net.count - 1].stair;
  const int64_t features = in.in / per.columns;
  if (in.in % per.columns)
    fail("params: expected " + std::to_string(per.columns) + " inputs per feature, found " + std::to_string(in.in) + " in all");
  if (out.out % per.outputs || out.out / per.outputs != features)
    fail("params: expected " + std::to_string(per.outputs) + " outputs per feature, found " + std::to_string(out.out) +
         " for " + std::to_string(features) + " features");
  if (!lists_features(in.in_order, per.columns, in.in_order, per, features))
    fail("plan: expected the inputs of a feature side by side");
  if (!lists_features(out.out_order, per.outputs, in.in_order, per, features))
    fail("plan: expected outputs in the order of the features");
  std::vector<int32_t> room(cpu::Walk::size(net));
  if (!cpu::Walk(net, room.data(), per.columns).autoregressive(per.outputs))
    fail("plan: expected no output to see its own feature or a later one");
}

// The system to solve, its noise excepted, with `v` where the solution goes; of a network that `expect_autoregressive` passed.
template <class T>
cpu::AutoregressiveSystem<T> read_system(const cpu::MaskedNetwork<T>& network, PerFeature per, int64_t rows,
                                         const Optional& context_terms, const Tensor& v, const char* name) {
  const cpu::Staircase& inputs = network.layers[0].stair;
  cpu::AutoregressiveSystem<T> a{};
  a.network = network;
  a.rows = rows;
  if (context_terms) {
    expect_rows(*context_terms, "context_terms", dtype_of<T>(), rows, inputs.out);
    a.context_terms = context_terms->as<T>();
    a.ld_context = context_terms->step(0);
  }
  a.v = pointer<T>(v, name, {rows, inputs.in / per.columns});
  return a;
}

}  // namespace fastgen
