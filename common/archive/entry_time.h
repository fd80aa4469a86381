// Times in libarchive's entries, also on 32-bit machines: its functions take and give the time_t that the package was compiled with, which
// is a `long` on every machine that we know of, while ours has 64 bits there (_TIME_BITS). Called through ours they would read half of it.
#ifndef LITEFLEET_COMMON_ARCHIVE_ENTRY_TIME_H_
#define LITEFLEET_COMMON_ARCHIVE_ENTRY_TIME_H_

#include <archive_entry.h>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace litefleet::archive {

// What does not fit into the package's time becomes its first or last one: only where it has 32 bits, before 1901 and from 2038 on.
inline void SetModified(struct archive_entry* entry, int64_t seconds, uint32_t nanoseconds) {
  const auto set = reinterpret_cast<void (*)(struct archive_entry*, long, long)>(&archive_entry_set_mtime);
  set(entry, static_cast<long>(std::clamp<int64_t>(seconds, std::numeric_limits<long>::min(), std::numeric_limits<long>::max())),
      static_cast<long>(nanoseconds));
}

// Seconds since 1970, rounded down: archive_entry_mtime_nsec() has the rest.
inline int64_t Modified(struct archive_entry* entry) {
  return reinterpret_cast<long (*)(struct archive_entry*)>(&archive_entry_mtime)(entry);
}

}  // namespace litefleet::archive

#endif  // LITEFLEET_COMMON_ARCHIVE_ENTRY_TIME_H_
