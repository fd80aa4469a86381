#include "common/base/heap.h"

#include <malloc.h>

#include <climits>

namespace litefleet {
namespace {

// Larger than any message, smaller than what would leave holes.
[[maybe_unused]] constexpr int kMappedFrom = 1 << 20;

}  // namespace

void SetUpHeap([[maybe_unused]] const HeapSetup& setup) {
#ifdef __GLIBC__
  if (setup.arenas > 0) mallopt(M_ARENA_MAX, setup.arenas);
  mallopt(M_TRIM_THRESHOLD, static_cast<int>(setup.kept < INT_MAX ? setup.kept : INT_MAX));
  mallopt(M_MMAP_THRESHOLD, kMappedFrom);
#endif
}

}  // namespace litefleet
