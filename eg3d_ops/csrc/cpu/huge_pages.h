// Huge pages for large results on the CPU.
#pragma once

#include <torch/csrc/stable/tensor.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace eg3d {

// Requests huge pages for the memory of a new tensor. For tens of megabytes, mapping 4 KiB pages one by one takes
// several times as long as writing them.
inline void prefer_huge_pages(const torch::stable::Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t huge = 2 << 20, page = 4096;
  const uintptr_t bytes = t.numel() * t.element_size();
  if (bytes < 2 * huge) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.mutable_data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // only a hint; a refusal does no harm
#endif
}

}  // namespace eg3d
