// Rows, wherever they lie, by a matrix that was laid out for it: sums stay in registers until they are done.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "lanes.hpp"
#include "memory.hpp"

namespace arm_core {

// Rows by a matrix that lies in panels, each some vectors of outputs wide.
template <typename T>
struct Product {
  using V = Vectorized<T>;
  static constexpr int64_t LANES = V::size();
#if defined(CPU_CAPABILITY_AVX512)
  static constexpr int ROWS = 6, VECTORS = 4;
#else
  static constexpr int ROWS = 6, VECTORS = 2;
#endif
  using Multiply = void (*)(const T* const*, const int64_t*, int64_t, const T*, T*);

  // The sums of ROWS_ rows of `stretches` pieces each, of these lengths, to `out`, a row behind the other.
  template <int ROWS_, int VECTORS_>
  static void multiply(
      const T* const* pieces, const int64_t* lengths, int64_t stretches, const T* panel, T* out) {
    V sums[ROWS_][VECTORS_];
    for (int r = 0; r < ROWS_; ++r)
      for (int v = 0; v < VECTORS_; ++v) sums[r][v] = V(0);
    for (int64_t s = 0; s < stretches; ++s, pieces += ROWS) {
      const T* row[ROWS_];
      for (int r = 0; r < ROWS_; ++r) row[r] = pieces[r];
      for (int64_t k = 0; k < lengths[s]; ++k, panel += VECTORS_ * LANES) {
        V line[VECTORS_];
        for (int v = 0; v < VECTORS_; ++v) line[v] = V::loadu(panel + v * LANES);
        for (int r = 0; r < ROWS_; ++r) {
          const V one(row[r][k]);
          for (int v = 0; v < VECTORS_; ++v) sums[r][v] = at::vec::fmadd(one, line[v], sums[r][v]);
        }
      }
    }
    for (int r = 0; r < ROWS_; ++r)
      for (int v = 0; v < VECTORS_; ++v) sums[r][v].store(out + (r * VECTORS_ + v) * LANES);
  }

  template <int... I>
  static constexpr std::array<Multiply, sizeof...(I)> all(std::integer_sequence<int, I...>) {
    return {&multiply<I / VECTORS + 1, I % VECTORS + 1>...};
  }

  static Multiply of(int64_t rows, int64_t vectors) {
    static constexpr auto known = all(std::make_integer_sequence<int, ROWS * VECTORS>());
    return known[(rows - 1) * VECTORS + vectors - 1];
  }
};

// How `width` features lie in panels; gated, each has as many vectors of p as of q, at the same features.
template <typename T>
struct Panels {
  static constexpr int64_t LANES = Product<T>::LANES;
  int64_t width, halves, most, vectors, count;

  Panels(int64_t width, bool gated)
      : width(width), halves(gated ? 2 : 1), most(Product<T>::VECTORS / halves),
        vectors((width + LANES - 1) / LANES), count((vectors + most - 1) / most) {}

  int64_t first(int64_t panel) const { return panel * most * LANES; }  // feature
  int64_t of_half(int64_t panel) const { return std::min(most, vectors - panel * most); }

  // (inputs, outputs) with the outputs of each panel together, zeros where there are none.
  Tensor pack(const Tensor& matrix, Memory& memory) const {
    const int64_t inputs = matrix.size(0);
    const Tensor packed = memory.zeros({inputs * halves * vectors * LANES});
    const T* from = matrix.const_data_ptr<T>();
    T* to = packed.data_ptr<T>();
    for (int64_t panel = 0; panel < count; ++panel) {
      const int64_t lanes = of_half(panel) * LANES, size = std::min(lanes, width - first(panel));
      for (int64_t line = 0; line < inputs * halves; ++line, to += lanes)
        std::memcpy(to, from + line * width + first(panel), size * sizeof(T));
    }
    return packed;
  }
};

}  // namespace arm_core
