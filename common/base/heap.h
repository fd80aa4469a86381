// What the C library's heap keeps of what is freed.
#ifndef LITEFLEET_COMMON_BASE_HEAP_H_
#define LITEFLEET_COMMON_BASE_HEAP_H_

#include <cstddef>

namespace litefleet {

struct HeapSetup {
  // Heaps that threads share; 0: the library's choice.
  int arenas = 0;
  // Bytes that stay at the end of each heap.
  size_t kept = 0;
};

// Buffers of chunks and messages (256 KiB to 1 MiB) come and go by the thousand. A heap that maps each anew pays a page fault for each 4
// KiB of them: a third of what a first backup cost. Call before there are threads. Source: mallopt(3); nothing where the C library is not
// glibc.
void SetUpHeap(const HeapSetup& setup);

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_HEAP_H_
