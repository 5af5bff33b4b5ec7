// Vectors of floats as wide as the CPU's, and what all kernels do with them.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

namespace arm_core {

using at::Tensor;
using at::vec::Vectorized;
using Maybe = std::optional<Tensor>;

// f(first, count) for stretches of `lanes` elements, and for the rest.
template <typename F>
inline void by_lanes(int64_t size, int64_t lanes, F f) {
  int64_t first = 0;
  for (; first + lanes <= size; first += lanes) f(first, lanes);
  if (first < size) f(first, size - first);
}

}  // namespace arm_core
