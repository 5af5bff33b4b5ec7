// Attention of a few queries a slot: each reads as far as its own place.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "lanes.hpp"

namespace arm_core {

constexpr int64_t TILE = 8;  // queries at a time, whose sums stay in registers

// One head of one slot: some queries, each of which reads the first `reach` keys and values.
template <typename T>
struct Head {
  using V = Vectorized<T>;
  static constexpr int64_t LANES = V::size();

  const T *query, *key, *value, *mask;
  T* out;
  int64_t query_row, key_row, value_row, mask_row, out_row, features;
  const int64_t* reach;
  T scale;
  int64_t room;  // of a line of scores
  T *scores, *turned;

  // `count` queries from `first` on, as few calls of tiles that are known when this is compiled.
  template <typename F>
  static void in_tiles(int64_t count, F f) {
    for (int64_t first = 0; first < count;) {
      const int64_t left = count - first;
      const auto tile = [&](auto size) { f(first, size), first += size; };
      if (left >= TILE) tile(std::integral_constant<int64_t, TILE>());
      else if (left >= TILE / 2) tile(std::integral_constant<int64_t, TILE / 2>());
      else if (left >= TILE / 4) tile(std::integral_constant<int64_t, TILE / 4>());
      else tile(std::integral_constant<int64_t, 1>());
    }
  }

  void attend(int64_t queries) const {
    const int64_t most = *std::max_element(reach, reach + queries);
    for (int64_t begin = 0; begin < most; begin += LANES) {
      const int64_t keys = std::min<int64_t>(LANES, most - begin);
      at::vec::transpose_mxn<T>(key + begin * key_row, key_row, turned, LANES, keys, features);
      in_tiles(queries, [&](int64_t first, auto tile) { score<tile>(first, begin, keys); });
    }
    for (int64_t i = 0; i < queries; ++i) softmax(scores + i * room, most);
    in_tiles(queries, [&](int64_t first, auto tile) { mix<tile>(first, most); });
  }

  // Scores of one block of keys, which lie turned: one feature of all of them in a row.
  template <int64_t N>
  void score(int64_t first, int64_t begin, int64_t keys) const {
    V sums[N];
    for (int64_t i = 0; i < N; ++i) sums[i] = V(0);
    for (int64_t f = 0; f < features; ++f) {
      const V line = V::loadu(turned + f * LANES);
      for (int64_t i = 0; i < N; ++i) sums[i] = at::vec::fmadd(V(query[(first + i) * query_row + f]), line, sums[i]);
    }
    for (int64_t i = 0; i < N; ++i) {
      const V masked = at::vec::fmadd(sums[i], V(scale), V::loadu(mask + (first + i) * mask_row + begin, keys));
      V::set(V(-std::numeric_limits<T>::infinity()), masked, keys).store(scores + (first + i) * room + begin);
    }
  }

  static void softmax(T* line, int64_t most) {
    V top(-std::numeric_limits<T>::infinity()), sum(0);
    for (int64_t at = 0; at < most; at += LANES) top = at::vec::maximum(top, V::loadu(line + at));
    T lanes[LANES];
    top.store(lanes);
    const V highest(*std::max_element(lanes, lanes + LANES));
    for (int64_t at = 0; at < most; at += LANES) {
      const V share = (V::loadu(line + at) - highest).exp();
      share.store(line + at);
      sum = sum + share;
    }
    sum.store(lanes);
    const V whole(std::accumulate(lanes, lanes + LANES, T(0)));
    for (int64_t at = 0; at < most; at += LANES) (V::loadu(line + at) / whole).store(line + at);
  }

  template <int64_t N>
  void mix(int64_t first, int64_t most) const {
    by_lanes(features, LANES, [&](int64_t f, int64_t count) {
      V sums[N];
      for (int64_t i = 0; i < N; ++i) sums[i] = V(0);
      for (int64_t at = 0; at < most; ++at) {
        const T* from = value + at * value_row + f;
        const V line = count == LANES ? V::loadu(from) : V::loadu(from, count);
        for (int64_t i = 0; i < N; ++i) sums[i] = at::vec::fmadd(V(scores[(first + i) * room + at]), line, sums[i]);
      }
      for (int64_t i = 0; i < N; ++i) sums[i].store(out + (first + i) * out_row + f, count);
    });
  }
};

// softmax(scale * q k^T + mask) v, without the keys behind the last one that a query may read.
// q (slots, heads, queries, features), k and v (slots, kv heads, keys, features), mask (slots, 1, queries, keys)
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, double scale) {
  const int64_t slots = q.size(0), heads = q.size(1), queries = q.size(2), features = q.size(3), keys = k.size(2);
  for (const Tensor* each : {&q, &k, &v, &mask}) {
    TORCH_CHECK(each->dim() == 4 && each->stride(3) == 1, "features must lie together");
    TORCH_CHECK(each->size(0) == slots && each->scalar_type() == q.scalar_type(), "slots and dtypes must agree");
  }
  TORCH_CHECK(k.size(1) > 0 && heads % k.size(1) == 0 && k.size(3) == features, "keys must fit the queries");
  TORCH_CHECK(k.sizes() == v.sizes(), "values must fit the keys");
  TORCH_CHECK(mask.size(1) == 1 && mask.size(2) == queries && mask.size(3) == keys, "a mask is for all heads");
  const int64_t shared = heads / k.size(1);
  const Tensor out = at::empty({slots, queries, heads, features}, q.options());
  if (out.numel() == 0) return out.transpose(1, 2);
  AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "attend", [&] {
    using H = Head<scalar_t>;
    const scalar_t unread = std::numeric_limits<scalar_t>::lowest();
    const int64_t room = (keys + H::LANES - 1) / H::LANES * H::LANES;
    const scalar_t* masks = mask.const_data_ptr<scalar_t>();
    at::parallel_for(0, slots * heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> scores(queries * room), turned(features * H::LANES);
      std::vector<int64_t> reach(queries);
      for (int64_t item = begin, known = -1; item < end; ++item) {
        const int64_t slot = item / heads, head = item % heads;
        const scalar_t* seen = masks + slot * mask.stride(0);
        if (slot != known)
          for (int64_t i = 0; i < queries; ++i) {
            reach[i] = keys;
            while (reach[i] > 1 && seen[i * mask.stride(2) + reach[i] - 1] <= unread) --reach[i];
          }
        known = slot;
        H{q.const_data_ptr<scalar_t>() + slot * q.stride(0) + head * q.stride(1),
          k.const_data_ptr<scalar_t>() + slot * k.stride(0) + head / shared * k.stride(1),
          v.const_data_ptr<scalar_t>() + slot * v.stride(0) + head / shared * v.stride(1),
          seen,
          out.data_ptr<scalar_t>() + (slot * queries * heads + head) * features,
          q.stride(2), k.stride(2), v.stride(2), mask.stride(2), heads * features, features,
          reach.data(), static_cast<scalar_t>(scale), room, scores.data(), turned.data()}
            .attend(queries);
      }
    });
  });
  return out.transpose(1, 2);
}

}  // namespace arm_core
