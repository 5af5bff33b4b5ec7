// Memory in large pages, so that the CPU finds addresses in it with fewer look-ups.
#pragma once

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <vector>

namespace arm_core {

// It comes from torch's allocator, so that what is freed is kept or given back as the process has it.
class Memory : public torch::CustomClassHolder {
 public:
  explicit Memory(const at::Tensor& like) : dtype_(like.scalar_type()) {}

  at::ScalarType dtype() const { return dtype_; }

  // Zeros of the dtype of `like`.
  at::Tensor zeros(const std::vector<int64_t>& sizes) {
    int64_t bytes = at::elementSize(dtype_);
    for (const int64_t size : sizes) bytes *= size;
    if (!chunk_.defined() || used_ + bytes > chunk_.numel()) take(std::max(bytes, CHUNK));
    const at::Tensor found = chunk_.narrow(0, used_, bytes).zero_().view(dtype_).view(sizes);
    used_ += (bytes + LINE - 1) / LINE * LINE;
    return found;
  }

 private:
  static constexpr int64_t PAGE = 1 << 21, CHUNK = 1 << 25, LINE = 64;

  at::ScalarType dtype_;
  at::Tensor chunk_;
  int64_t used_ = 0;

  void take(int64_t bytes) {
    const int64_t size = (bytes + PAGE - 1) / PAGE * PAGE;
    const at::Tensor whole = at::empty({size + PAGE}, at::kByte);
    const int64_t begins = reinterpret_cast<uintptr_t>(whole.data_ptr()) % PAGE;
    chunk_ = whole.narrow(0, begins ? PAGE - begins : 0, size);
    used_ = 0;
    madvise(chunk_.data_ptr(), size, MADV_HUGEPAGE);  // where the system has none, pages are small
  }
};

}  // namespace arm_core
