// What spans do between their matrix products, each in one pass over memory: see arm_core/native/__init__.py.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace {

using at::Tensor;
using at::vec::Vectorized;
using Maybe = std::optional<Tensor>;

constexpr int64_t GRAIN = 16384;  // elements from which on a thread of its own pays
constexpr int64_t TILE = 8;       // queries at a time, whose sums stay in registers

int64_t grain(int64_t width) { return std::max<int64_t>(1, GRAIN / width); }

// f(first, count) for stretches of `lanes` elements, and for the rest.
template <typename F>
inline void by_lanes(int64_t size, int64_t lanes, F f) {
  int64_t first = 0;
  for (; first + lanes <= size; first += lanes) f(first, lanes);
  if (first < size) f(first, size - first);
}

// elu(v) to `out`, elu(-v) to `out + width`: with e = exp(-|v|) - 1 they are max(v, e) and max(-v, e).
template <typename T>
inline void store_both_elu(const Vectorized<T>& v, T* out, int64_t width, int64_t count) {
  const auto below = v.abs().neg().exp() - Vectorized<T>(1);
  at::vec::maximum(v, below).store(out, count);
  at::vec::maximum(v.neg(), below).store(out + width, count);
}

// `values` are (count, width) and lie in one piece; each has a place among the rows of `kept`, which are twice as wide.
void check(const Tensor& values, int64_t count, int64_t width) {
  TORCH_CHECK(values.is_contiguous() && values.dim() == 2, "rows must be contiguous");
  TORCH_CHECK(values.size(0) == count && values.size(1) == width, "rows must be ", count, " x ", width);
}

void check_places(const Tensor& places, int64_t count, const Tensor& kept, const Tensor& values) {
  TORCH_CHECK(kept.is_contiguous() && kept.dim() == 2, "what is kept must be contiguous rows");
  TORCH_CHECK(kept.size(1) == 2 * values.size(1), "what is kept must be twice as wide");
  TORCH_CHECK(kept.scalar_type() == values.scalar_type(), "what is kept must have the dtype of the rows");
  TORCH_CHECK(places.is_contiguous() && places.numel() == count, "each row needs a place");
  const int64_t* place = places.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) TORCH_CHECK(place[i] >= 0 && place[i] < kept.size(0), "no place ", place[i]);
}

// rows[places] = concat_elu(values + more)
void put_elu(const Tensor& values, const Maybe& more, const Tensor& rows, const Tensor& places) {
  const int64_t count = values.size(0), width = values.size(1);
  check(values, count, width);
  if (more) check(*more, count, width);
  check_places(places, count, rows, values);
  const int64_t* place = places.const_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "put_elu", [&] {
    using V = Vectorized<scalar_t>;
    const scalar_t* in = values.const_data_ptr<scalar_t>();
    const scalar_t* plus = more ? more->const_data_ptr<scalar_t>() : nullptr;
    scalar_t* kept = rows.data_ptr<scalar_t>();
    at::parallel_for(0, count, grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        by_lanes(width, V::size(), [&](int64_t first, int64_t n) {
          auto v = V::loadu(in + row * width + first, n);
          if (plus) v = v + V::loadu(plus + row * width + first, n);
          store_both_elu<scalar_t>(v, kept + place[row] * 2 * width + first, width, n);
        });
    });
  });
}

// (y, concat_elu(y)) of y = x + p * sigmoid(q), where both = [p, q]; the second also goes to rows[places].
std::tuple<Tensor, Tensor> gate(const Tensor& x, const Tensor& both, const Maybe& rows, const Tensor& places) {
  const int64_t count = x.size(0), width = x.size(1);
  check(x, count, width);
  check(both, count, 2 * width);
  if (rows) check_places(places, count, *rows, x);
  const Tensor sums = at::empty_like(x), active = at::empty({count, 2 * width}, x.options());
  const int64_t* place = places.const_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate", [&] {
    using V = Vectorized<scalar_t>;
    const scalar_t* in = x.const_data_ptr<scalar_t>();
    const scalar_t* gates = both.const_data_ptr<scalar_t>();
    scalar_t *sum = sums.data_ptr<scalar_t>(), *elu = active.data_ptr<scalar_t>();
    scalar_t* kept = rows ? rows->data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, count, grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const scalar_t *p = gates + row * 2 * width, *q = p + width;
        scalar_t* to = elu + row * 2 * width;
        by_lanes(width, V::size(), [&](int64_t first, int64_t n) {
          const auto share = V::loadu(p + first, n) / (V(1) + V::loadu(q + first, n).neg().exp());
          const auto v = V::loadu(in + row * width + first, n) + share;
          v.store(sum + row * width + first, n);
          store_both_elu<scalar_t>(v, to + first, width, n);
        });
        if (kept) std::memcpy(kept + place[row] * 2 * width, to, 2 * width * sizeof(scalar_t));
      }
    });
  });
  return {sums, active};
}

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

}  // namespace

TORCH_LIBRARY(arm_core, library) {
  library.def("put_elu(Tensor values, Tensor? more, Tensor(a!) rows, Tensor places) -> ()");
  library.def("gate(Tensor x, Tensor both, Tensor(a!)? rows, Tensor places) -> (Tensor, Tensor)");
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor mask, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(arm_core, CPU, library) {
  library.impl("put_elu", &put_elu);
  library.impl("gate", &gate);
  library.impl("attend", &attend);
}
