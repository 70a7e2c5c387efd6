// Launcher of upfirdn2d.
#include "launch.h"
#include "upfirdn2d_kernel.cuh"

namespace eg3d {
namespace {

bool alike(const Upfirdn2d& p, int up, int down, int taps) {
  const auto is = [&](const ResampleAxis& a) { return a.up == up && a.down == down && a.taps == taps; };
  return is(p.x) && is(p.y);
}

// Returns the kernel specialised for this case if there is one, otherwise the general one. StyleGAN's filter has 4 x 4
// taps.
template <class T>
auto choose_kernel(const Upfirdn2d& p) {
  if (alike(p, 1, 1, 4)) return upfirdn2d_kernel<T, 1, 1, 4>;
  if (alike(p, 2, 1, 4)) return upfirdn2d_kernel<T, 2, 1, 4>;
  if (alike(p, 1, 2, 4)) return upfirdn2d_kernel<T, 1, 2, 4>;
  return upfirdn2d_kernel<T, 0, 0, 0>;
}

void check_size(const char* what, long long size, int most = 0x7fffffff) {
  if (size > most)
    fail(std::string("upfirdn2d: at most ") + std::to_string(most) + " " + what + ", got " + std::to_string(size));
}

dim3 blocks(const Upfirdn2d& p) {
  const long long columns = (long long)p.x.out * p.inner, rows = (long long)p.images * p.y.out;
  check_size("numbers in a row of the output", columns, kMostColumns);
  check_size("numbers in a row of the input", (long long)p.x.in * p.inner);
  check_size("rows of all images", rows);
  check_size("upsampled columns", (long long)p.x.out * p.x.down + p.x.taps);
  check_size("upsampled rows", (long long)p.y.out * p.y.down + p.y.taps);
  const long long across = (columns + kResampleColumns - 1) / kResampleColumns;
  // Each thread processes several rows, which amortises what it computes for its column.
  const long long along = (rows + 4 * kResampleRows - 1) / (4 * kResampleRows);
  return dim3((unsigned)across, (unsigned)(along < 65535 ? along : 65535));
}

}  // namespace

void launch_upfirdn2d(ElementType type, const Upfirdn2d& p, const void* x, const float* filter, void* y, void* stream) {
  with_element(type, [&](auto zero) {
    using T = decltype(zero);
    launch("upfirdn2d_kernel", choose_kernel<T>(p), blocks(p), dim3(kResampleColumns, kResampleRows), 0, stream, p,
           (typename Compute<T>::type)p.gain, (const T*)x, filter, (T*)y);
  });
}

}  // namespace eg3d
