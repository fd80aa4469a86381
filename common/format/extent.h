// Geometry of a database: pages, extents, the lock-byte page. Pure functions.
//
// An extent is 256 KiB of consecutive pages, aligned; the last one of a database may be shorter. Extents are numbered from 0, pages
// from 1. The lock-byte page (the one with byte 2^30 of the file) is never read or written by SQLite and counts as zeros everywhere.
// Source: https://www.sqlite.org/fileformat2.html
#ifndef LITEFLEET_COMMON_FORMAT_EXTENT_H_
#define LITEFLEET_COMMON_FORMAT_EXTENT_H_

#include <algorithm>
#include <cstdint>

namespace litefleet::format {

inline constexpr uint32_t kExtentBytes = 256 * 1024;
inline constexpr uint32_t kMaxPageCount = 0xfffffffe;

constexpr bool IsPageSize(uint32_t size) { return size >= 512 && size <= 65536 && (size & (size - 1)) == 0; }
constexpr uint32_t PagesPerExtent(uint32_t page_size) { return kExtentBytes / page_size; }
constexpr uint32_t ExtentCount(uint32_t page_size, uint32_t page_count) {
  const uint32_t per = PagesPerExtent(page_size);
  return page_count / per + (page_count % per != 0 ? 1 : 0);
}
// First page of an extent.
constexpr uint32_t FirstPageOf(uint32_t page_size, uint32_t extent) { return extent * PagesPerExtent(page_size) + 1; }
// Pages of an extent. REQUIRES: extent < ExtentCount.
constexpr uint32_t PagesIn(uint32_t page_size, uint32_t page_count, uint32_t extent) {
  return std::min(PagesPerExtent(page_size), page_count - extent * PagesPerExtent(page_size));
}
constexpr uint32_t LockBytePage(uint32_t page_size) { return 0x40000000u / page_size + 1; }
// A stretch is 64 MiB of consecutive pages, aligned, counted from 0: no chunk's pages belong to two of them.
inline constexpr uint32_t kExtentsPerStretch = 256;
constexpr uint32_t PagesPerStretch(uint32_t page_size) { return kExtentsPerStretch * PagesPerExtent(page_size); }
constexpr uint32_t StretchOf(uint32_t page_size, uint32_t page) { return (page - 1) / PagesPerStretch(page_size); }
constexpr uint64_t DatabaseBytes(uint32_t page_size, uint32_t page_count) { return static_cast<uint64_t>(page_size) * page_count; }

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_EXTENT_H_
