// A stretch of a manifest, opened up: for each page in which chunk it is. common/format/FORMAT.md, "Manifests", is the definition.
//
// Not for a whole database: 64 MiB of pages at a time. Thread safety: values. Memory: 8 bytes a page, 1 MiB with pages of 512 bytes.
#ifndef LITEFLEET_CONTROLLER_MANIFEST_STRETCH_H_
#define LITEFLEET_CONTROLLER_MANIFEST_STRETCH_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/format/digest.h"
#include "common/format/extent.h"

namespace litefleet::manifest {

inline constexpr uint32_t kNoChunk = UINT32_MAX;

struct PageRef {
  uint32_t chunk = kNoChunk;  // of Stretch::chunks
  uint16_t index = 0;         // of the page in the chunk
  uint8_t layer = 0;          // that says so, 0 is the lowest
};

struct ChunkRef {
  format::ChunkName name;
  uint32_t page_count = 0;
};

class Stretch {
 public:
  // Empties it. REQUIRES: the stretch is one of a database of this geometry.
  void Reset(uint32_t page_size, uint32_t page_count, uint32_t number);

  uint32_t page_size() const { return page_size_; }
  uint32_t number() const { return number_; }
  uint32_t first_page() const { return first_page_; }
  uint32_t page_count() const { return static_cast<uint32_t>(pages_.size()); }
  uint32_t first_extent() const { return number_ * format::kExtentsPerStretch; }
  uint32_t extent_count() const { return static_cast<uint32_t>(names_.size()); }
  // Pages of the extent-th extent of this stretch, as positions in it.
  uint32_t FirstOf(uint32_t extent) const { return extent * format::PagesPerExtent(page_size_); }
  uint32_t PagesIn(uint32_t extent) const { return std::min(format::PagesPerExtent(page_size_), page_count() - FirstOf(extent)); }

  // By position, from 0.
  const PageRef& page(uint32_t at) const { return pages_[at]; }
  const std::vector<ChunkRef>& chunks() const { return chunks_; }
  const ChunkRef& chunk_of(uint32_t at) const { return chunks_[pages_[at].chunk]; }

  // The number of a chunk, made where it is new. Nothing where the name is known with another number of pages.
  std::optional<uint32_t> ChunkNumber(const format::ChunkName& name, uint32_t page_count);
  // A run of pages by their number in the database; what is not in this stretch is left out.
  void Place(uint32_t first_page, uint32_t page_count, uint32_t chunk, uint32_t index, uint8_t layer);

  // Forgets what is said of pages from this one on (by its number in the database), and the names of extents that lose pages.
  void ClearFrom(uint64_t page);

  // The extent is one whole chunk: its number.
  std::optional<uint32_t> WholeChunk(uint32_t extent) const;
  // As a layer says, or was set; a whole chunk's name is better.
  const std::optional<format::ChunkName>& given_name(uint32_t extent) const { return names_[extent]; }
  uint8_t name_layer(uint32_t extent) const { return name_layers_[extent]; }
  void SetName(uint32_t extent, const format::ChunkName& name, uint8_t layer) {
    names_[extent] = name;
    name_layers_[extent] = layer;
  }
  // Every page has a chunk.
  bool Complete() const;

 private:
  uint32_t page_size_ = 0;
  uint32_t number_ = 0;
  uint32_t first_page_ = 1;
  std::vector<PageRef> pages_;
  std::vector<ChunkRef> chunks_;
  absl::flat_hash_map<format::ChunkName, uint32_t> numbers_;
  std::vector<std::optional<format::ChunkName>> names_;
  std::vector<uint8_t> name_layers_;
};

inline uint32_t StretchCount(uint32_t page_size, uint32_t page_count) {
  return page_count == 0 ? 0 : format::StretchOf(page_size, page_count) + 1;
}

}  // namespace litefleet::manifest

#endif  // LITEFLEET_CONTROLLER_MANIFEST_STRETCH_H_
