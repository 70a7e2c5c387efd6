// The scheduler of the fibers, and a CUDA runtime with one small device.
#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

using emulator::Scope;

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

constexpr size_t kMostShared = 96 * 1024;                   // per block, as on a V100
float4 eg3d_shared[(kMostShared + 1024) / sizeof(float4)];  // with a margin that must stay unchanged

namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr unsigned char kPoison = 0xff;  // a float of such bytes is NaN

// A fiber is entered once through ucontext. After that, setjmp and longjmp switch fibers, because they need no system
// call.
struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  ucontext_t entry;
  jmp_buf place;
  bool entered, done, waiting;
  Scope scope;
  uint32_t value;
  int line;
};

std::vector<Fiber> fibers;          // kept between blocks, because stacks are expensive
std::vector<uint32_t> warp_values;  // values that the threads of each warp passed to their last exchange
std::vector<uint32_t> block_values;
ucontext_t never_used;
jmp_buf scheduler;
unsigned current, num_threads;
bool reversed;
const std::function<void()>* kernel_body;
std::string failure, last_failure;  // error not yet queried, and error of the last query; empty: none
std::map<const void*, int> allowed_shared;

void fiber_main() {
  (*kernel_body)();
  fibers[current].done = true;
  _longjmp(scheduler, 1);
}

void resume(unsigned index) {
  current = index;
  threadIdx = {index % blockDim.x, index / blockDim.x % blockDim.y, index / (blockDim.x * blockDim.y)};
  Fiber& f = fibers[index];
  if (_setjmp(scheduler) != 0) return;
  if (f.entered) _longjmp(f.place, 1);
  f.entered = true;
  setcontext(&f.entry);
}

// If all threads [begin, end) wait for each other, lets them continue and returns true.
bool release(Scope scope, unsigned begin, unsigned end, std::vector<uint32_t>& values) {
  for (unsigned i = begin; i < end; ++i)
    if (!fibers[i].waiting || fibers[i].scope != scope || fibers[i].line != fibers[begin].line) return false;
  for (unsigned i = begin; i < end; ++i) values[i] = fibers[i].value, fibers[i].waiting = false;
  return true;
}

void start_fibers() {
  while (fibers.size() < num_threads) fibers.emplace_back();
  warp_values.assign(num_threads, 0), block_values.assign(num_threads, 0);
  for (unsigned i = 0; i < num_threads; ++i) {
    Fiber& f = fibers[i];
    f.entered = f.done = f.waiting = false;
    getcontext(&f.entry);
    f.entry.uc_stack.ss_sp = f.stack.get();
    f.entry.uc_stack.ss_size = kStackBytes;
    f.entry.uc_link = &never_used;
    makecontext(&f.entry, fiber_main, 0);
  }
}

// Runs a warp until its threads are done or wait for other warps. Returns whether any thread ran.
bool run_warp(unsigned begin) {
  bool ran = false;
  do {
    for (unsigned n = 0; n < 32; ++n) {
      const unsigned i = begin + (reversed ? 31 - n : n);
      if (fibers[i].done || fibers[i].waiting) continue;
      resume(i), ran = true;
    }
  } while (release(Scope::warp, begin, begin + 32, warp_values));
  return ran;
}

// Runs one warp after another as far as possible, so that warps are never in step by chance.
void run_block() {
  start_fibers();
  for (;;) {
    bool ran = false, all_done = true;
    for (unsigned n = 0; n < num_threads; n += 32) ran |= run_warp(reversed ? num_threads - 32 - n : n);
    for (unsigned i = 0; i < num_threads; ++i) all_done &= fibers[i].done;
    if (all_done) return;
    if (release(Scope::block, 0, num_threads, block_values) || ran) continue;
    unsigned waiting[2] = {0, 0};  // lines where threads wait
    for (unsigned i = 0; i < num_threads; ++i)
      if (!fibers[i].done) waiting[waiting[0] && waiting[0] != (unsigned)fibers[i].line] = fibers[i].line;
    failure = "threads wait for others that never come: line " + std::to_string(waiting[0]) + " or " +
              std::to_string(waiting[1]);
    return;
  }
}

bool margin_untouched(size_t shared) {
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(eg3d_shared);
  for (size_t i = shared; i < sizeof(eg3d_shared); ++i)
    if (bytes[i] != kPoison) return false;
  return true;
}

}  // namespace

namespace emulator {

unsigned thread_of_block() { return current; }

const uint32_t* exchange(Scope scope, uint32_t value, int line) {
  Fiber& f = fibers[current];
  f.scope = scope, f.value = value, f.line = line, f.waiting = true;
  if (_setjmp(f.place) == 0) _longjmp(scheduler, 1);
  return scope == Scope::warp ? &warp_values[current / 32 * 32] : block_values.data();
}

void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  const size_t allowed = allowed_shared.count(kernel) ? allowed_shared[kernel] : 48 * 1024;
  if (shared > allowed) failure = "shared memory of " + std::to_string(shared) + " bytes was not asked for";
  if (grid.x == 0 || grid.y == 0 || grid.y > 65535) failure = "invalid grid";
  if (block.x * block.y > 1024 || block.x * block.y % 32) failure = "blocks of whole warps and at most 1024 threads";
  blockDim = block, gridDim = grid, kernel_body = &body, num_threads = block.x * block.y * block.z;
  for (unsigned n = 0; n < grid.x * grid.y && failure.empty(); ++n) {
    const unsigned i = reversed ? grid.x * grid.y - 1 - n : n;
    blockIdx = {i % grid.x, i / grid.x, 0};
    std::memset(eg3d_shared, kPoison, sizeof(eg3d_shared));
    run_block();
    if (failure.empty() && !margin_untouched(shared)) failure = "wrote beyond its shared memory";
  }
}

}  // namespace emulator

int __syncthreads_or(int predicate, int line) {
  const uint32_t* values = emulator::exchange(Scope::block, predicate != 0, line);
  int any = 0;
  for (unsigned i = 0; i < num_threads; ++i) any |= values[i];
  return any;
}

unsigned __ballot_sync(unsigned, int predicate, int line) {
  const uint32_t* values = emulator::exchange(Scope::warp, predicate != 0, line);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= values[i] << i;
  return votes;
}

// ----- Fast intrinsics ----------------------------------------------------------------------------------

// The share of the largest error that CUDA's programming guide states. On: always all of it, upwards, so that errors
// add up. Off: a number in [-1, 1] that depends on the input.
static bool largest_errors = false;

static float with_error(double exact, float input, double most) {
  const uint32_t mixed = emulator::bits<uint32_t>(input) * 2654435761u;
  const double share = largest_errors ? 1 : static_cast<int32_t>(mixed ^ mixed << 13) / 2147483648.;
  return static_cast<float>(exact + share * most);
}

// Distance from the float `v` to the next.
static double ulp(double v) { return std::ldexp(1., std::ilogb(std::fmax(std::fabs(v), 1e-37)) - 23); }

float __expf(float x) {
  const double exact = std::exp((double)x);
  return exact > 0 && exact < 1e38 ? with_error(exact, x, (2 + std::floor(std::fabs(1.173 * x))) * ulp(exact)) : exact;
}
float __logf(float x) {
  const double exact = std::log((double)x);
  if (!(x > 0) || x > 3e38f) return exact;
  return with_error(exact, x, x >= 0.5f && x <= 2 ? std::exp2(-21.41) : 3 * ulp(exact));
}
float __fdividef(float a, float b) {
  const double exact = (double)a / b;
  return std::isfinite(exact) ? with_error(exact, b, 2 * ulp(exact)) : exact;
}

// ----- 16-bit floats: to nearest, ties to even ----------------------------------------------------------

float __half2float(__half v) {
  const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
  const float sign = v.bits >> 15 ? -1.f : 1.f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.f + fraction, exponent - 25) : std::ldexp((float)fraction, -24));
}

__half __float2half_rn(float v) {
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  const float size = std::fabs(v);
  if (v != v) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (size >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent = -13;
  if (size > 0) std::frexp(size, &exponent);
  const int unit = std::max(exponent, -13) - 11;  // exponent of the last bit kept
  const int kept = static_cast<int>(std::nearbyint(std::ldexp(size, -unit)));
  return {static_cast<uint16_t>(sign | (kept + ((unit + 24) << 10)))};  // a leading bit raises the exponent by one
}

float __bfloat162float(__nv_bfloat16 v) { return emulator::bits<float>(static_cast<uint32_t>(v.bits) << 16); }

__nv_bfloat16 __float2bfloat16_rn(float v) {
  const uint32_t bits = emulator::bits<uint32_t>(v);
  if (v != v) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// ----- Run time -----------------------------------------------------------------------------------------

const char* cudaGetErrorString(cudaError_t) { return last_failure.c_str(); }
cudaError_t cudaGetLastError() {  // also clears the error
  last_failure.swap(failure), failure.clear();
  return last_failure.empty() ? cudaSuccess : 1;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : kMostShared;
  return cudaSuccess;
}
cudaError_t emulator_allow_shared(const void* kernel, int bytes) { return allowed_shared[kernel] = bytes, cudaSuccess; }

extern "C" __attribute__((visibility("default"))) void emulator_reverse(int on) { reversed = on; }
extern "C" __attribute__((visibility("default"))) void emulator_largest_errors(int on) { largest_errors = on; }
