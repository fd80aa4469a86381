#include "controller/manifest/layer_writer.h"

#include <algorithm>
#include <string>

#include "common/base/status.h"

namespace litefleet::manifest {
namespace {

constexpr size_t kPartBytes = 256 << 10;

}  // namespace

absl::Status LayerWriter::Add(const Stretch& stretch, uint8_t lowest) {
  struct Open {
    uint32_t chunk = 0;
    std::vector<uint32_t> places;
    uint32_t end = 0;  // of the last run, as a page number
  };
  std::vector<Open> entries;  // in the order of their first pages
  std::vector<uint32_t> entry_of(stretch.chunks().size(), UINT32_MAX);
  for (uint32_t at = 0; at < stretch.page_count();) {
    const PageRef ref = stretch.page(at);
    if (ref.chunk == kNoChunk || ref.layer < lowest) {
      ++at;
      continue;
    }
    uint32_t count = 1;
    for (; at + count < stretch.page_count(); ++count) {
      const PageRef& next = stretch.page(at + count);
      if (next.chunk != ref.chunk || next.layer < lowest || next.index != ref.index + count) break;
    }
    if (entry_of[ref.chunk] == UINT32_MAX) {
      entry_of[ref.chunk] = static_cast<uint32_t>(entries.size());
      entries.push_back({.chunk = ref.chunk, .places = {}});
    }
    Open& entry = entries[entry_of[ref.chunk]];
    const uint32_t page = stretch.first_page() + at;
    entry.places.insert(entry.places.end(), {page - entry.end, count, ref.index});
    entry.end = page + count;
    at += count;
  }
  for (const Open& open : entries) {
    if (size_ > kPartBytes) LF_RETURN_IF_ERROR(WritePart());
    if (first_page_ == 0) first_page_ = open.places[0];
    const ChunkRef& chunk = stretch.chunks()[open.chunk];
    storage::v1::ManifestEntry& entry = *part_.add_entries();
    entry.set_chunk_name(std::string(chunk.name.AsString()));
    uint32_t pages = 0;
    for (size_t i = 1; i < open.places.size(); i += 3) pages += open.places[i];
    if (pages != chunk.page_count) entry.set_chunk_pages(chunk.page_count);
    entry.mutable_places()->Add(open.places.begin(), open.places.end());
    size_ += 44 + open.places.size() * 2;
  }
  for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
    if (!stretch.given_name(extent).has_value() || stretch.name_layer(extent) < lowest || stretch.WholeChunk(extent).has_value()) continue;
    if (size_ > kPartBytes) LF_RETURN_IF_ERROR(WritePart());
    const uint32_t number = stretch.first_extent() + extent;
    if (first_page_ == 0) first_page_ = format::FirstPageOf(stretch.page_size(), number);
    part_.add_extents(number - last_extent_);
    part_.mutable_extent_names()->append(stretch.given_name(extent)->AsString());
    last_extent_ = number;
    size_ += 34;
  }
  return absl::OkStatus();
}

absl::Status LayerWriter::Finish() {
  if (first_page_ == 0) return absl::OkStatus();
  return WritePart();
}

absl::Status LayerWriter::WritePart() {
  part_.set_part(static_cast<uint32_t>(places_.size()));
  const std::string payload = part_.SerializeAsString();
  LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(format::RecordType::kManifestPart, AsBytes(payload)));
  mixed_epochs_ |= epoch_.has_value() && *epoch_ != placed.epoch;
  epoch_ = placed.epoch;
  holds_.Add(placed.hold);
  places_.push_back({.first_page = first_page_, .place = {.pack = placed.location.pack, .offset = placed.location.offset}});
  bytes_ += static_cast<int64_t>(payload.size());
  part_.clear_entries();
  part_.clear_extents();
  part_.clear_extent_names();
  first_page_ = last_extent_ = 0;
  size_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<uint64_t>> LayerWriter::epoch() const {
  if (mixed_epochs_)
    return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed during the upload", "the backup will be tried again");
  return epoch_;
}

}  // namespace litefleet::manifest
