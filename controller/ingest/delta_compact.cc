// The part of DeltaBuilder that keeps a stack of layers cheap to read.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "controller/ingest/delta_builder.h"

namespace litefleet::ingest {
namespace {

// What a reader pays for a chunk besides its bytes, in bytes.
constexpr uint64_t kPerChunk = 16 << 10;
constexpr uint64_t kTooMuch = 14;  // tenths of what whole extents would cost
constexpr uint64_t kEnough = 12;
// Opened for one chunk of pages that moved: an offer may not cost much more than what it saves.
constexpr size_t kMaxSourceChunks = 16;

}  // namespace

absl::Status DeltaBuilder::Compact(manifest::Stretch& stretch) {
  struct Use {
    uint32_t chunk = 0;
    uint64_t live = 0;  // bytes
    uint64_t cost = 0;
  };
  std::vector<Use> uses(stretch.chunks().size());
  for (uint32_t i = 0; i < uses.size(); ++i) {
    uses[i] = {.chunk = i, .live = 0, .cost = uint64_t{stretch.chunks()[i].page_count} * page_size_ + kPerChunk};
  }
  for (uint32_t at = 0; at < stretch.page_count(); ++at) uses[stretch.page(at).chunk].live += page_size_;
  std::erase_if(uses, [](const Use& use) { return use.live == 0; });
  const uint64_t plain = uint64_t{stretch.page_count()} * page_size_ + stretch.extent_count() * kPerChunk;
  uint64_t cost = 0;
  for (const Use& use : uses) cost += use.cost;
  if (cost * 10 <= plain * kTooMuch) return absl::OkStatus();

  // The emptiest first.
  std::sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) { return a.live * b.cost < b.live * a.cost; });
  std::vector<bool> copied(stretch.chunks().size(), false);
  for (const Use& use : uses) {
    if (cost * 10 <= plain * kEnough) break;
    const uint64_t after = use.live + use.live * kPerChunk / format::kExtentBytes;
    if (after >= use.cost) break;
    copied[use.chunk] = true;
    cost -= use.cost - after;
  }
  std::vector<uint32_t> positions;
  for (uint32_t at = 0; at < stretch.page_count(); ++at) {
    if (copied[stretch.page(at).chunk]) positions.push_back(at);
  }
  for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
    // It will not be one chunk any more, and needs its name.
    if (const auto whole = stretch.WholeChunk(extent); whole.has_value() && copied[*whole])
      stretch.SetName(extent, stretch.chunks()[*whole].name, top_);
  }
  LF_RETURN_IF_ERROR(Locate(stretch));
  const uint32_t per_chunk = format::PagesPerExtent(page_size_);
  for (size_t from = 0; from < positions.size(); from += per_chunk) {
    const size_t end = std::min(positions.size(), from + per_chunk);
    LF_RETURN_IF_ERROR(WriteTogether(
        stretch, {positions.begin() + static_cast<std::ptrdiff_t>(from), positions.begin() + static_cast<std::ptrdiff_t>(end)}));
  }
  return absl::OkStatus();
}

absl::Status DeltaBuilder::WriteTogether(manifest::Stretch& stretch, const std::vector<uint32_t>& positions) {
  Bytes raw;
  raw.reserve(positions.size() * page_size_);
  std::vector<format::PageDigest> digests;
  for (const uint32_t at : positions) {
    LF_ASSIGN_OR_RETURN(const manifest::OpenChunk* const open, chunks_reader_.Open(stretch.chunk_of(at)));
    const auto page = open->raw.begin() + static_cast<std::ptrdiff_t>(size_t{stretch.page(at).index} * page_size_);
    raw.insert(raw.end(), page, page + page_size_);
    digests.push_back((*open->digests)[stretch.page(at).index]);
  }
  LF_ASSIGN_OR_RETURN(const catalog::ArrivedChunk chunk, WriteOwn(raw, digests));
  const auto number = stretch.ChunkNumber(chunk.name, chunk.page_count);
  if (!number.has_value()) return Error(absl::StatusCode::kInternal, "MANIFEST_DAMAGED", "a chunk has two sizes");
  for (uint32_t i = 0; i < positions.size(); ++i) stretch.Place(stretch.first_page() + positions[i], 1, *number, i, top_);
  return absl::OkStatus();
}

absl::StatusOr<catalog::ArrivedChunk> DeltaBuilder::WriteOwn(ByteView raw, std::span<const format::PageDigest> digests) {
  std::string stored;
  LF_ASSIGN_OR_RETURN(const format::Codec codec, scratch_.Take()->compressor.Compress(raw, stored));
  catalog::ArrivedChunk chunk{.name = format::NameChunk(page_size_, digests),
                              .page_size = page_size_,
                              .page_count = static_cast<uint32_t>(digests.size()),
                              .codec = codec,
                              .stored_bytes = static_cast<uint32_t>(stored.size()),
                              .place = std::nullopt};
  LF_ASSIGN_OR_RETURN(
      const store::Placed placed,
      store_.PutChunk(
          {.name = chunk.name, .codec = codec, .page_size = page_size_, .page_count = chunk.page_count, .stored = AsBytes(stored)}));
  LF_RETURN_IF_ERROR(Note(placed));
  chunk.place = catalog::PackPlace{.pack = placed.location.pack, .offset = placed.location.offset};
  own_chunks_.push_back(chunk);
  Arrived(chunk);
  return chunk;
}

absl::StatusOr<bool> DeltaBuilder::CopyMoved(const v1::ChunkOffer& offer) {
  if (offer.sources().empty()) return false;
  const uint32_t base_pages = base_.layout().page_count;
  uint64_t pages = 0;
  for (const v1::PageRun& run : offer.sources()) {
    if (run.first_page() == 0 || run.page_count() == 0 || uint64_t{run.first_page()} + run.page_count() > uint64_t{base_pages} + 1)
      return false;
    pages += run.page_count();
  }
  if (pages > format::PagesPerExtent(page_size_)) return false;
  Bytes raw;
  std::vector<format::PageDigest> digests;
  std::set<format::ChunkName> opened;
  for (const v1::PageRun& run : offer.sources()) {
    for (uint32_t page = run.first_page(); page < run.first_page() + run.page_count(); ++page) {
      const uint32_t number = format::StretchOf(page_size_, page);
      if (!at_base_read_ || at_base_.number() != number) {
        at_base_read_ = false;
        LF_RETURN_IF_ERROR(base_.Read(number, at_base_));
        at_base_read_ = true;
        located_ = false;
      }
      const uint32_t at = page - at_base_.first_page();
      opened.insert(at_base_.chunk_of(at).name);
      if (opened.size() > kMaxSourceChunks) return false;
      LF_RETURN_IF_ERROR(Locate(at_base_));
      LF_ASSIGN_OR_RETURN(const manifest::OpenChunk* const open, chunks_reader_.Open(at_base_.chunk_of(at)));
      const uint32_t index = at_base_.page(at).index;
      if (index >= open->digests->size()) return false;
      const auto content = open->raw.begin() + static_cast<std::ptrdiff_t>(size_t{index} * page_size_);
      raw.insert(raw.end(), content, content + page_size_);
      digests.push_back((*open->digests)[index]);
    }
  }
  if (format::NameChunk(page_size_, digests).AsString() != offer.name()) return false;
  LF_RETURN_IF_ERROR(WriteOwn(raw, digests).status());
  return true;
}

}  // namespace litefleet::ingest
