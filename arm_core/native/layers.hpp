// A network's layers on cells of images: one call runs all of them, on threads that part each layer between them.
//
// A layer reads rows of memory, some for every cell, multiplies them by a matrix where they lie, and keeps what comes of
// it at the place of the cell. A call says which cells; tables say where their rows are.
#pragma once

#include <omp.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "product.hpp"

namespace arm_core {

struct Cell {
  int64_t slot, number;
};

// The rows of a cell: its line of a table, plus `per_slot` for each slot before its own.
struct Lookup {
  Tensor lines;
  int64_t each, per_slot, last;
  const int64_t* table;

  Lookup(const Tensor& given, int64_t per_slot)
      : lines(given.to(at::kLong).contiguous()), each(given.size(-1)), per_slot(per_slot) {
    TORCH_CHECK(lines.dim() == 2 && lines.numel() > 0, "a table needs a line of rows for each cell");
    table = lines.const_data_ptr<int64_t>();
    const auto [least, most] = std::minmax_element(table, table + lines.numel());
    TORCH_CHECK(*least >= 0 && per_slot >= 0, "rows are counted from 0");
    last = *most;
  }

  int64_t cells() const { return lines.size(0); }
  int64_t operator()(Cell cell, int64_t place = 0) const {
    return table[cell.number * each + place] + cell.slot * per_slot;
  }
  // Whether all of it, and `length` elements from there on, are there for so many slots.
  bool fits(int64_t slots, int64_t width, int64_t length, int64_t elements) const {
    return (last + (slots - 1) * per_slot) * width + length <= elements;
  }
};

// What a layer reads: stretches of `length` elements that begin at rows.
struct Source {
  Tensor rows;
  Lookup lookup;
  int64_t length;
};

// y = rows * matrix + bias + what the slot adds; without a matrix the sum of the rows. Gated, (p, q) = y, and then
// y = values + p * sigmoid(q). It keeps values = y and active = concat_elu(y); if neither, y is a result of the call.
struct Layer {
  int64_t kind;
  std::vector<Source> sources;
  int64_t tokens;  // 0, or how many rows of the source each of its tokens chooses from
  Tensor packed;
  Maybe bias, by_slot;
  int64_t inputs, outputs;
  bool gated;
  Maybe values, active;

  int64_t width() const { return gated ? outputs / 2 : outputs; }
  int64_t stretches() const {
    int64_t count = 0;
    for (const Source& source : sources) count += source.lookup.each;
    return count;
  }
};

// One thread's share of one layer.
template <typename T>
struct Share {
  using V = Vectorized<T>;
  using P = Product<T>;
  static constexpr int64_t LANES = P::LANES;

  const Layer& layer;
  const std::vector<Cell>& cells;
  const Lookup& place;
  const int64_t* tokens;
  T* result;
  int64_t thread, threads;
  int64_t width = layer.width();
  const T *bias = data(layer.bias), *by_slot = data(layer.by_slot);
  T *values = data(layer.values), *active = data(layer.active);

  static T* data(const Maybe& rows) { return rows ? rows->data_ptr<T>() : nullptr; }

  void run() const { layer.inputs > 0 ? multiply() : sum(); }

  // The part of `count` items that is this thread's.
  std::pair<int64_t, int64_t> share(int64_t count) const {
    return {count * thread / threads, count * (thread + 1) / threads};
  }

  void multiply() const {
    const Panels<T> panels(width, layer.gated);
    const int64_t count = cells.size(), tiles = (count + P::ROWS - 1) / P::ROWS, stretches = layer.stretches();
    std::vector<const T*> pieces(stretches * P::ROWS);
    std::vector<int64_t> lengths;
    for (const Source& source : layer.sources) lengths.resize(lengths.size() + source.lookup.each, source.length);
    alignas(64) T sums[P::ROWS * P::VECTORS * LANES];
    const auto [begin, end] = share(tiles * panels.count);
    for (int64_t item = begin, known = -1; item < end; ++item) {
      const int64_t tile = item / panels.count, panel = item % panels.count;
      const int64_t first = count * tile / tiles, rows = count * (tile + 1) / tiles - first;
      if (tile != known) {
        find(first, rows, pieces.data());
        const int64_t next = count * (tile + 1) / tiles;
        if (next < count) prefetch(next, count * (tile + 2) / tiles);
      }
      known = tile;
      const int64_t vectors = panels.of_half(panel) * panels.halves;
      const T* packed = layer.packed.const_data_ptr<T>() + panels.first(panel) * panels.halves * layer.inputs;
      P::of(rows, vectors)(pieces.data(), lengths.data(), stretches, packed, sums);
      const int64_t size = std::min(panels.width - panels.first(panel), panels.of_half(panel) * LANES);
      for (int64_t r = 0; r < rows; ++r)
        keep(first + r, panels.first(panel), size, sums + r * vectors * LANES, panels.of_half(panel) * LANES);
    }
  }

  void find(int64_t first, int64_t rows, const T** pieces) const {
    for (const Source& source : layer.sources) {
      const T* from = source.rows.const_data_ptr<T>();
      const int64_t width = source.rows.size(1);
      for (int64_t j = 0; j < source.lookup.each; ++j, pieces += P::ROWS)
        for (int64_t r = 0; r < rows; ++r) pieces[r] = from + source.lookup(cells[first + r], j) * width;
    }
  }

  // What the next tile reads. Stretches of neighbours overlap: the first row of each will do, and all of the last one.
  void prefetch(int64_t first, int64_t last) const {
    for (const Source& source : layer.sources) {
      const T* from = source.rows.const_data_ptr<T>();
      const int64_t width = source.rows.size(1);
      for (int64_t j = 0; j < source.lookup.each; ++j)
        for (int64_t r = first; r < last; ++r) {
          const T* row = from + source.lookup(cells[r], j) * width;
          const int64_t length = r + 1 < last ? std::min(width, source.length) : source.length;
          for (int64_t k = 0; k < length; k += 64 / sizeof(T)) __builtin_prefetch(row + k);
        }
    }
  }

  void sum() const {
    const Source& source = layer.sources[0];
    const T* from = source.rows.const_data_ptr<T>();
    const auto [begin, end] = share(cells.size());
    std::vector<const T*> rows(source.lookup.each);
    for (int64_t at = begin; at < end; ++at) {
      for (int64_t j = 0; j < source.lookup.each; ++j) {
        int64_t row = source.lookup(cells[at], j);
        if (layer.tokens) row = j * layer.tokens + tokens[row];
        rows[j] = from + row * source.rows.size(1);
      }
      by_lanes(width, LANES, [&](int64_t feature, int64_t count) {
        V y = V::loadu(rows[0] + feature, count);
        for (int64_t j = 1; j < source.lookup.each; ++j) y = y + V::loadu(rows[j] + feature, count);
        store(at, place(cells[at]), feature, count, y);
      });
    }
  }

  // The features [first, first + size) of a cell; q lies `half` behind p.
  void keep(int64_t at, int64_t first, int64_t size, const T* sums, int64_t half) const {
    const T* more = by_slot ? by_slot + cells[at].slot * layer.outputs : nullptr;
    const int64_t row = place(cells[at]);
    by_lanes(size, LANES, [&](int64_t lane, int64_t count) {
      const auto with_bias = [&](int64_t lane, int64_t output) {
        const V y = V::loadu(sums + lane) + V::loadu(bias + output, count);
        return more ? y + V::loadu(more + output, count) : y;
      };
      const int64_t feature = first + lane;
      V y = with_bias(lane, feature);
      if (layer.gated) {
        const V q = with_bias(half + lane, width + feature);
        const V odds = V::blendv(q.neg().exp_u20(), q, q.isnan());  // exp_u20 loses NaNs
        y = V::loadu(values + row * width + feature, count) + y / (V(1) + odds);
      }
      store(at, row, feature, count, y);
    });
  }

  void store(int64_t at, int64_t row, int64_t feature, int64_t count, const V& y) const {
    if (result) y.store(result + at * width + feature, count);
    if (values) y.store(values + row * width + feature, count);
    if (active) {  // with e = exp(-|y|) - 1, elu(y) = max(y, e) and elu(-y) = max(-y, e)
      const V below = y.abs().neg().exp_u20() - V(1);
      T* to = active + row * 2 * width + feature;
      at::vec::maximum(y, below).store(to, count);
      at::vec::maximum(y.neg(), below).store(to + width, count);
    }
  }
};

class Layers : public torch::CustomClassHolder {
 public:
  // Each kind of cells says where its cells lie in a slot, (cells, 1), and how many rows a slot has.
  Layers(c10::intrusive_ptr<Memory> memory, const std::vector<Tensor>& places, const std::vector<int64_t>& per_slot)
      : memory_(std::move(memory)) {
    TORCH_CHECK(places.size() == per_slot.size(), "each kind of cells needs its places and how many a slot has");
    for (size_t kind = 0; kind < places.size(); ++kind) {
      TORCH_CHECK(places[kind].size(-1) == 1, "a cell has one place");
      places_.emplace_back(places[kind], per_slot[kind]);
    }
  }

  // One more layer on the cells of a kind, see `Layer`; each source is given by rows, a table, `per_slot` and a length.
  void add(
      int64_t kind, const std::vector<Tensor>& rows, const std::vector<Tensor>& tables,
      const std::vector<int64_t>& per_slot, const std::vector<int64_t>& lengths, int64_t tokens, const Maybe& matrix,
      const Maybe& bias, const Maybe& by_slot, bool gated, const Maybe& values, const Maybe& active) {
    TORCH_CHECK(kind >= 0 && kind < int64_t(places_.size()), "no kind ", kind);
    TORCH_CHECK(!rows.empty() && rows.size() == tables.size(), "a layer reads something");
    TORCH_CHECK(rows.size() == per_slot.size() && rows.size() == lengths.size(), "each source needs its numbers");
    Layer layer{kind, {}, tokens, Tensor(), bias, by_slot, 0, 0, gated, values, active};
    int64_t inputs = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      check_rows(rows[i]);
      TORCH_CHECK(lengths[i] > 0, "a stretch has elements");
      layer.sources.push_back({rows[i], Lookup(tables[i], per_slot[i]), lengths[i]});
      TORCH_CHECK(layer.sources[i].lookup.cells() == places_[kind].cells(), "a table needs a line for each cell");
      inputs += layer.sources[i].lookup.each * lengths[i];
    }
    layer.outputs = matrix ? matrix->size(1) : lengths[0];
    if (matrix) {
      TORCH_CHECK(matrix->size(0) == inputs && bias, "a matrix of ", inputs, " inputs and a bias are needed");
      TORCH_CHECK(bias->is_contiguous() && bias->numel() == layer.outputs, "one bias for each output");
      TORCH_CHECK(bias->scalar_type() == dtype() && tokens == 0, "biases of ", dtype(), ", and no tokens");
      layer.inputs = inputs;
      const Tensor whole = matrix->to(dtype()).contiguous();
      AT_DISPATCH_FLOATING_TYPES(dtype(), "layers", [&] {
        layer.packed = Panels<scalar_t>(layer.width(), layer.gated).pack(whole, *memory_);
      });
    } else {
      TORCH_CHECK(rows.size() == 1 && !gated && !by_slot, "what is only summed comes from one source, without a bias");
      TORCH_CHECK(
          tokens == 0 || (layer.sources[0].lookup.each * tokens <= rows[0].size(0) && lengths[0] <= rows[0].size(1)),
          "too few rows for the tokens");
    }
    TORCH_CHECK(!gated || (values && layer.outputs % 2 == 0), "what is gated needs values, and p and q");
    for (const auto& [kept, width] : {std::pair(values, layer.width()), std::pair(active, 2 * layer.width())})
      if (kept) {
        check_rows(*kept);
        TORCH_CHECK(kept->size(1) == width, "what is kept must be ", width, " wide");
        for (const Tensor& read : rows) TORCH_CHECK(!read.is_same(*kept), "a layer reads what it keeps");
      }
    if (by_slot) {
      check_rows(*by_slot);
      TORCH_CHECK(by_slot->size(1) == layer.outputs, "slots add to each output");
    }
    layers_.push_back(std::move(layer));
  }

  // `tokens`: (slots, dims); each slot's cells of each kind are [begin, end), (slots, kinds).
  // The cells of the last layer, counted over all slots, and what the layers give that keep nothing.
  std::tuple<Tensor, std::vector<Tensor>> run(const Tensor& tokens, const Tensor& begin, const Tensor& end) const {
    TORCH_CHECK(!layers_.empty(), "no layers");
    check(tokens, begin, end);
    const std::vector<std::vector<Cell>> cells = expand(begin.contiguous(), end.contiguous());
    std::vector<Tensor> results;
    for (const Layer& layer : layers_)
      results.push_back(
          layer.values || layer.active
              ? Tensor()
              : at::empty({int64_t(cells[layer.kind].size()), layer.width()}, at::dtype(dtype())));
    AT_DISPATCH_FLOATING_TYPES(
        dtype(), "layers", [&] { execute<scalar_t>(cells, tokens.const_data_ptr<int64_t>(), results); });
    const std::vector<Cell>& last = cells[layers_.back().kind];
    const Tensor where = at::empty({int64_t(last.size())}, at::kLong);
    int64_t* to = where.data_ptr<int64_t>();
    for (const Cell cell : last) *to++ = cell.slot * places_[layers_.back().kind].cells() + cell.number;
    std::erase_if(results, [](const Tensor& result) { return !result.defined(); });
    return {where, results};
  }

 private:
  c10::intrusive_ptr<Memory> memory_;
  std::vector<Lookup> places_;
  std::vector<Layer> layers_;

  at::ScalarType dtype() const { return memory_->dtype(); }

  void check_rows(const Tensor& rows) const {
    TORCH_CHECK(rows.is_contiguous() && rows.dim() == 2, "rows must be contiguous");
    TORCH_CHECK(rows.device().is_cpu() && rows.scalar_type() == dtype(), "rows must be ", dtype(), " on a CPU");
  }

  void check(const Tensor& tokens, const Tensor& begin, const Tensor& end) const {
    for (const Tensor* each : {&tokens, &begin, &end})
      TORCH_CHECK(each->scalar_type() == at::kLong && each->dim() == 2, "tokens and cells must be rows of int64");
    const int64_t slots = begin.size(0);
    TORCH_CHECK(tokens.is_contiguous() && tokens.size(0) == slots, "tokens must be contiguous, a row for each slot");
    TORCH_CHECK(begin.sizes() == end.sizes() && begin.size(1) == int64_t(places_.size()), "cells of each slot and kind");
    int64_t below = std::numeric_limits<int64_t>::max();
    for (const Layer& layer : layers_) {
      for (const auto& [rows, lookup, length] : layer.sources) {
        const bool fits = layer.tokens ? lookup.fits(slots, 1, 1, tokens.numel())
                                       : lookup.fits(slots, rows.size(1), length, rows.numel());
        TORCH_CHECK(fits, "too few ", layer.tokens ? "tokens" : "rows", " for ", slots, " slots");
      }
      const Lookup& place = places_[layer.kind];
      for (const Maybe& kept : {layer.values, layer.active})
        TORCH_CHECK(!kept || place.fits(slots, 1, 1, kept->size(0)), "too little is kept for ", slots, " slots");
      TORCH_CHECK(!layer.by_slot || layer.by_slot->size(0) >= slots, "too few slots");
      if (layer.tokens) below = std::min(below, layer.tokens);
    }
    const int64_t* token = tokens.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < tokens.numel(); ++i)
      TORCH_CHECK(token[i] >= 0 && token[i] < below, "tokens must be in [0, ", below, "), got ", token[i]);
  }

  std::vector<std::vector<Cell>> expand(const Tensor& begin, const Tensor& end) const {
    const int64_t kinds = places_.size();
    const int64_t *from = begin.const_data_ptr<int64_t>(), *to = end.const_data_ptr<int64_t>();
    std::vector<std::vector<Cell>> cells(kinds);
    for (int64_t slot = 0; slot < begin.size(0); ++slot)
      for (int64_t kind = 0; kind < kinds; ++kind, ++from, ++to) {
        TORCH_CHECK(*from >= 0 && *to <= places_[kind].cells(), "no cells [", *from, ", ", *to, ")");
        for (int64_t number = *from; number < *to; ++number) cells[kind].push_back({slot, number});
      }
    return cells;
  }

  template <typename T>
  void execute(const std::vector<std::vector<Cell>>& cells, const int64_t* tokens, std::vector<Tensor>& results) const {
    const int threads = at::get_num_threads();  // and OpenMP's too, from here on
#pragma omp parallel if (threads > 1)
    {
      const int64_t thread = omp_get_thread_num(), count = omp_get_num_threads();
      for (size_t i = 0; i < layers_.size(); ++i) {
        const Layer& layer = layers_[i];
        if (cells[layer.kind].empty()) continue;
        T* result = results[i].defined() ? results[i].template data_ptr<T>() : nullptr;
        Share<T>{layer, cells[layer.kind], places_[layer.kind], tokens, result, thread, count}.run();
#pragma omp barrier
      }
    }
  }
};

}  // namespace arm_core
