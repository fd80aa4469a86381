#include "controller/ingest/manifest_builder.h"

#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::ingest {
namespace {

absl::Status BadOffer(std::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, "OFFER_INVALID", fmt::format("an offer is wrong: {}", why));
}

}  // namespace

ManifestBuilder::ManifestBuilder(store::Store& store, const SnapshotId& snapshot, uint32_t page_size, uint32_t page_count,
                                 size_t entries_per_part)
    : store_(store), page_size_(page_size), page_count_(page_count), entries_per_part_(entries_per_part), root_(page_size, page_count) {
  part_.set_snapshot_id(snapshot.value());
}

absl::StatusOr<OfferedChunk> ManifestBuilder::Add(const v1::ChunkOffer& offer) {
  const auto name = format::ChunkName::FromBytes(offer.name());
  if (!name.has_value()) return BadOffer(fmt::format("a chunk's name has {} bytes", offer.name().size()));
  if (next_extent_ >= format::ExtentCount(page_size_, page_count_)) return BadOffer(fmt::format("it goes beyond page {}", page_count_));
  const uint32_t first_page = format::FirstPageOf(page_size_, next_extent_);
  const uint32_t pages = format::PagesIn(page_size_, page_count_, next_extent_);
  if (offer.runs_size() != 1 || offer.runs(0).first_page() != first_page || offer.runs(0).page_count() != pages) {
    return BadOffer(fmt::format("the extent of pages {} to {} comes next, as one run", first_page, first_page + pages - 1));
  }
  storage::v1::ManifestEntry& entry = *part_.add_entries();
  entry.set_chunk_name(offer.name());
  storage::v1::ManifestRun& run = *entry.add_runs();
  run.set_first_page(first_page);
  run.set_page_count(pages);
  root_.Add(*name);
  ++next_extent_;
  if (static_cast<size_t>(part_.entries_size()) >= entries_per_part_) LF_RETURN_IF_ERROR(WritePart());
  return OfferedChunk{.name = *name, .page_count = pages};
}

absl::Status ManifestBuilder::WritePart() {
  part_.set_part(static_cast<uint32_t>(places_.size()));
  const std::string payload = part_.SerializeAsString();
  LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(format::RecordType::kManifestPart, AsBytes(payload)));
  bytes_ += static_cast<int64_t>(payload.size());
  mixed_epochs_ |= epoch_.has_value() && *epoch_ != placed.epoch;
  epoch_ = placed.epoch;
  holds_.Add(placed.hold);
  places_.push_back(
      {.first_page = part_.entries(0).runs(0).first_page(), .place = {.pack = placed.location.pack, .offset = placed.location.offset}});
  part_.clear_entries();
  return absl::OkStatus();
}

absl::Status ManifestBuilder::Finish(const format::RootDigest& root) {
  if (const uint32_t extents = format::ExtentCount(page_size_, page_count_); next_extent_ != extents) {
    return Error(absl::StatusCode::kInvalidArgument, "MANIFEST_INCOMPLETE",
                 fmt::format("{} of {} extents were offered", next_extent_, extents));
  }
  if (const format::RootDigest actual = root_.Finish(); actual != root) {
    return Error(absl::StatusCode::kInvalidArgument, "ROOT_MISMATCH",
                 fmt::format("the offered chunks have the root {}, the commit says {}", actual.Hex(), root.Hex()));
  }
  if (part_.entries_size() > 0) return WritePart();
  return absl::OkStatus();
}

catalog::NewManifest ManifestBuilder::TakeManifest() {
  catalog::NewManifest manifest;
  manifest.own = places_;
  manifest.layers.push_back({.id = part_.snapshot_id(), .parts = static_cast<uint32_t>(places_.size()), .bytes = bytes_});
  return manifest;
}

absl::StatusOr<std::optional<uint64_t>> ManifestBuilder::epoch() const {
  if (mixed_epochs_)
    return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed during the upload", "the backup will be tried again");
  return epoch_;
}

}  // namespace litefleet::ingest
