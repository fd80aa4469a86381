#include "controller/restore/store_snapshot_reader.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::restore {
namespace {

constexpr uint32_t kPartsAtOnce = 64;
constexpr size_t kChunksAtOnce = 64;  // looked up in one transaction
constexpr uint32_t kBaseManifest = 1;

absl::Status Damaged(std::string_view reason, const std::string& message) {
  return Error(absl::StatusCode::kDataLoss, reason, message,
               "restore another snapshot of this database; the device still has its own copy");
}

struct Entry {
  format::ChunkName name;
  uint32_t first_page = 0;
  uint32_t page_count = 0;
  store::Location location;
};

class StoreSnapshotReader final : public SnapshotReader {
 public:
  StoreSnapshotReader(const catalog::IngestCatalog& catalog, store::Store& store, const catalog::SnapshotLayout& layout, SnapshotId id,
                      std::span<const WantedRun> wanted, std::shared_ptr<SnapshotPins> pins)
      : catalog_(catalog),
        store_(store),
        layout_(layout),
        geometry_{.page_size = layout.page_size, .page_count = layout.page_count, .root = layout.root},
        id_(std::move(id)),
        wanted_(wanted.begin(), wanted.end()),
        full_(wanted.empty()),
        pins_(std::move(pins)),
        root_(layout.page_size, layout.page_count) {
    pins_->Add(id_);
  }
  ~StoreSnapshotReader() override { pins_->Remove(id_); }

  const SnapshotGeometry& geometry() const override { return geometry_; }

  absl::StatusOr<std::optional<StoredChunk>> Next() override {
    if (failed_) return Error(absl::StatusCode::kFailedPrecondition, "READER_FAILED", "this reader has failed before");
    absl::StatusOr<std::optional<StoredChunk>> chunk = Advance();
    failed_ = !chunk.ok();
    return chunk;
  }

 private:
  absl::StatusOr<std::optional<StoredChunk>> Advance() {
    while (ready_.empty()) {
      LF_ASSIGN_OR_RETURN(const bool more, Fill());
      if (!more) return Finish();
    }
    const Entry entry = ready_.front();
    ready_.pop_front();
    absl::StatusOr<store::StoredRecord> record = store_.Read(entry.location);
    if (!record.ok()) return Annotate(record.status(), fmt::format("read chunk {} of snapshot {}", entry.name.Hex(), id_.value()));
    if (record->header.type != format::RecordType::kChunk || record->header.name != entry.name) {
      return Damaged("CHUNK_MISSING", fmt::format("chunk {} is not where the catalog says", entry.name.Hex()));
    }
    if (record->header.page_size != layout_.page_size || record->header.page_count != entry.page_count) {
      return Damaged("CHUNK_DAMAGED", fmt::format("chunk {} has another geometry than its snapshot", entry.name.Hex()));
    }
    StoredChunk chunk;
    chunk.name = entry.name;
    chunk.codec = record->header.codec;
    chunk.raw_bytes = record->header.raw_bytes;
    chunk.data = std::move(record->payload);
    chunk.first_page = entry.first_page;
    chunk.page_count = entry.page_count;
    LF_RETURN_IF_ERROR(
        Annotate(decompressor_.Open(chunk.codec, AsBytes(chunk.data), chunk.raw_bytes, layout_.page_size, chunk.name, chunk.raw),
                 "snapshot " + id_.value()));
    return chunk;
  }

  // At the end of a full read everything has passed by: the root proves it.
  absl::StatusOr<std::optional<StoredChunk>> Finish() {
    if (full_ && !proven_) {
      if (uint64_t{next_page_} != uint64_t{layout_.page_count} + 1) {
        return Damaged("CHUNK_MISSING",
                       fmt::format("the manifest of snapshot {} ends at page {} of {}", id_.value(), next_page_ - 1, layout_.page_count));
      }
      if (root_.Finish() != layout_.root)
        return Damaged("ROOT_MISMATCH", fmt::format("snapshot {} does not have its root digest", id_.value()));
      proven_ = true;
    }
    return std::nullopt;
  }

  // More of ready_; false at the end.
  absl::StatusOr<bool> Fill() {
    while (entries_.empty()) {
      LF_ASSIGN_OR_RETURN(const bool more, ReadPart());
      if (!more) return false;
    }
    std::vector<Entry> batch;
    while (!entries_.empty() && batch.size() < kChunksAtOnce) {
      batch.push_back(entries_.front());
      entries_.pop_front();
    }
    std::vector<format::ChunkName> names;
    names.reserve(batch.size());
    for (const Entry& entry : batch) names.push_back(entry.name);
    LF_ASSIGN_OR_RETURN(const auto rows, catalog_.FindChunks(names));
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!rows[i].has_value() || !rows[i]->good) {
        return Damaged("CHUNK_MISSING", fmt::format("chunk {} of snapshot {} is not in the store", batch[i].name.Hex(), id_.value()));
      }
      batch[i].location = {.pack = rows[i]->place.pack, .offset = rows[i]->place.offset};
      ready_.push_back(batch[i]);
    }
    return true;
  }

  // The wanted entries of the next part into entries_; false when there is none.
  absl::StatusOr<bool> ReadPart() {
    if (next_in_places_ == places_.size()) {
      if (next_part_ >= layout_.manifest_parts) return false;
      LF_ASSIGN_OR_RETURN(places_, catalog_.ManifestParts(layout_.key, next_part_, kPartsAtOnce));
      next_in_places_ = 0;
      if (places_.empty())
        return Damaged("CHUNK_MISSING",
                       fmt::format("part {} of the manifest of snapshot {} is not in the catalog", next_part_, id_.value()));
    }
    const catalog::PackPlace place = places_[next_in_places_].place;
    // Whole parts that end before the next wanted page are not read.
    const bool skip =
        !full_ && (next_wanted_ == wanted_.size() ||
                   (next_in_places_ + 1 < places_.size() && places_[next_in_places_ + 1].first_page <= wanted_[next_wanted_].first_page));
    const uint32_t part = next_part_++;
    ++next_in_places_;
    if (skip) return true;
    absl::StatusOr<store::StoredRecord> record = store_.Read({.pack = place.pack, .offset = place.offset});
    if (!record.ok()) return Annotate(record.status(), fmt::format("read the manifest of snapshot {}", id_.value()));
    storage::v1::ManifestPart manifest;
    if (record->header.type != format::RecordType::kManifestPart || !manifest.ParseFromString(record->payload) ||
        manifest.snapshot_id() != id_.value() || manifest.part() != part) {
      return Damaged("CHUNK_DAMAGED",
                     fmt::format("part {} of the manifest of snapshot {} is not where the catalog says", part, id_.value()));
    }
    for (const storage::v1::ManifestEntry& entry : manifest.entries()) LF_RETURN_IF_ERROR(AddEntry(entry));
    return true;
  }

  absl::Status AddEntry(const storage::v1::ManifestEntry& entry) {
    const auto name = format::ChunkName::FromBytes(entry.chunk_name());
    const bool sound = name.has_value() && entry.runs_size() == 1 && entry.runs(0).page_count() > 0 && entry.runs(0).first_page() > 0 &&
                       uint64_t{entry.runs(0).first_page()} + entry.runs(0).page_count() <= uint64_t{layout_.page_count} + 1 &&
                       (full_ ? entry.runs(0).first_page() == next_page_ : entry.runs(0).first_page() >= next_page_);
    if (!sound)
      return Damaged("CHUNK_DAMAGED",
                     fmt::format("the manifest of snapshot {} makes no sense behind page {}", id_.value(), next_page_ - 1));
    const uint32_t first = entry.runs(0).first_page();
    const uint32_t count = entry.runs(0).page_count();
    next_page_ = first + count;
    if (full_) {
      root_.Add(*name);
    } else {
      while (next_wanted_ < wanted_.size() && wanted_[next_wanted_].first_page + (wanted_[next_wanted_].page_count - 1) < first)
        ++next_wanted_;
      if (next_wanted_ == wanted_.size() || wanted_[next_wanted_].first_page >= next_page_) return absl::OkStatus();
    }
    entries_.push_back({.name = *name, .first_page = first, .page_count = count, .location = {}});
    return absl::OkStatus();
  }

  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  const catalog::SnapshotLayout layout_;
  const SnapshotGeometry geometry_;
  const SnapshotId id_;
  const std::vector<WantedRun> wanted_;
  const bool full_;
  const std::shared_ptr<SnapshotPins> pins_;

  format::RootBuilder root_;
  format::ChunkDecompressor decompressor_;
  std::vector<catalog::ManifestPlace> places_;  // of the parts from next_part_ - next_in_places_ on
  size_t next_in_places_ = 0;
  uint32_t next_part_ = 0;
  uint32_t next_page_ = 1;
  size_t next_wanted_ = 0;
  std::deque<Entry> entries_;  // of one part, not yet looked up
  std::deque<Entry> ready_;    // with their locations
  bool proven_ = false;
  bool failed_ = false;
};

}  // namespace

void SnapshotPins::Add(const SnapshotId& snapshot) {
  MutexLock lock(mu_);
  ++pins_[snapshot];
}
void SnapshotPins::Remove(const SnapshotId& snapshot) {
  MutexLock lock(mu_);
  if (const auto it = pins_.find(snapshot); it != pins_.end() && --it->second == 0) pins_.erase(it);
}
bool SnapshotPins::IsPinned(const SnapshotId& snapshot) const {
  MutexLock lock(mu_);
  return pins_.count(snapshot) != 0;
}

absl::StatusOr<std::unique_ptr<SnapshotReader>> StoreSnapshotReaderFactory::Open(const SnapshotId& snapshot,
                                                                                 std::span<const WantedRun> wanted) {
  LF_ASSIGN_OR_RETURN(const catalog::SnapshotLayout layout, catalog_.GetLayout(snapshot));
  if (layout.manifest_kind != kBaseManifest || layout.root_version != format::kRootVersion) {
    return Error(absl::StatusCode::kUnimplemented, "MANIFEST_UNKNOWN",
                 fmt::format("snapshot {} was made by a newer controller", snapshot.value()),
                 "install the newer litefleet-controller again");
  }
  uint64_t next = 1;
  for (const WantedRun& run : wanted) {
    if (run.page_count == 0 || run.first_page < next || uint64_t{run.first_page} + run.page_count > uint64_t{layout.page_count} + 1) {
      return Error(absl::StatusCode::kInvalidArgument, "RUNS_INVALID",
                   fmt::format("pages {} and {} following are not wanted in order, or not there", run.first_page, run.page_count));
    }
    next = uint64_t{run.first_page} + run.page_count;
  }
  return std::make_unique<StoreSnapshotReader>(catalog_, store_, layout, snapshot, wanted, pins_);
}

}  // namespace litefleet::restore
