// Memory in large pages, so that the CPU finds addresses in it with fewer look-ups.
#pragma once

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace arm_core {

class Memory : public torch::CustomClassHolder {
 public:
  explicit Memory(const at::Tensor& like) : dtype_(like.scalar_type()) {}

  at::ScalarType dtype() const { return dtype_; }

  // Zeros of the dtype of `like`; their memory is given back when the last that lies in it is gone.
  at::Tensor zeros(const std::vector<int64_t>& sizes) {
    int64_t bytes = at::elementSize(dtype_);
    for (const int64_t size : sizes) bytes *= size;
    if (!chunk_ || used_ + bytes > chunk_->size) {
      chunk_ = std::make_shared<Chunk>(std::max(bytes, CHUNK));
      used_ = 0;
    }
    char* at = chunk_->begin + used_;
    used_ += (bytes + LINE - 1) / LINE * LINE;
    return at::from_blob(at, sizes, [keep = chunk_](void*) {}, at::dtype(dtype_));
  }

 private:
  static constexpr int64_t PAGE = 1 << 21, CHUNK = 1 << 25, LINE = 64;

  struct Chunk {
    void* mapped;
    char* begin;
    int64_t size;

    explicit Chunk(int64_t bytes) : size((bytes + PAGE - 1) / PAGE * PAGE) {
      mapped = mmap(nullptr, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      TORCH_CHECK(mapped != MAP_FAILED, "no memory for ", size, " bytes");
      begin = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(mapped) + PAGE - 1) / PAGE * PAGE);
      madvise(begin, size, MADV_HUGEPAGE);  // where the system has none, pages are small
    }
    Chunk(const Chunk&) = delete;
    ~Chunk() { munmap(mapped, size + PAGE); }
  };

  at::ScalarType dtype_;
  std::shared_ptr<Chunk> chunk_;
  int64_t used_ = 0;
};

}  // namespace arm_core
