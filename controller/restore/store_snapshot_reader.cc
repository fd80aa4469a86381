#include "controller/restore/store_snapshot_reader.h"

#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "controller/manifest/chunk_reader.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

absl::Status Damaged(std::string_view reason, const std::string& message) {
  return Error(absl::StatusCode::kDataLoss, reason, message,
               "restore another snapshot of this database; the device still has its own copy");
}

// The number of pages wanted.
absl::StatusOr<uint64_t> CheckRuns(const catalog::SnapshotLayout& layout, std::span<const WantedRun> wanted) {
  uint64_t next = 1;
  uint64_t pages = 0;
  for (const WantedRun& run : wanted) {
    if (run.page_count == 0 || run.first_page < next || uint64_t{run.first_page} + run.page_count > uint64_t{layout.page_count} + 1) {
      return Error(absl::StatusCode::kInvalidArgument, "RUNS_INVALID",
                   fmt::format("pages {} and {} following are not wanted in order, or not there", run.first_page, run.page_count));
    }
    next = uint64_t{run.first_page} + run.page_count;
    pages += run.page_count;
  }
  return pages;
}

format::ChunkName NameOf(ByteView raw, uint32_t page_size) {
  std::vector<format::PageDigest> digests;
  format::DigestPages(page_size, raw, digests);
  return format::NameChunk(page_size, digests);
}

class StoreSnapshotReader final : public SnapshotReader {
 public:
  StoreSnapshotReader(ReaderSource source, std::span<const WantedRun> wanted)
      : source_(std::move(source)),
        layout_(source_.manifest.layout()),
        chunks_(source_.catalog, source_.store, nullptr, layout_.page_size),
        geometry_{.page_size = layout_.page_size, .page_count = layout_.page_count, .root = layout_.root},
        wanted_(wanted.begin(), wanted.end()),
        full_(wanted.empty()),
        root_(layout_.page_size, layout_.page_count) {}

  const SnapshotGeometry& geometry() const override { return geometry_; }

  absl::StatusOr<std::optional<StoredChunk>> Next() override {
    if (failed_) return Error(absl::StatusCode::kFailedPrecondition, "READER_FAILED", "this reader has failed before");
    absl::StatusOr<std::optional<StoredChunk>> chunk = Advance();
    failed_ = !chunk.ok();
    return chunk;
  }

 private:
  absl::StatusOr<std::optional<StoredChunk>> Advance() {
    const uint32_t extents = format::ExtentCount(layout_.page_size, layout_.page_count);
    while (next_extent_ < extents && !IsWanted(next_extent_)) ++next_extent_;
    if (next_extent_ >= extents) return Finish();
    const uint32_t number = next_extent_ / format::kExtentsPerStretch;
    if (!read_ || stretch_.number() != number) {
      LF_RETURN_IF_ERROR(source_.manifest.Read(number, stretch_));
      LF_RETURN_IF_ERROR(chunks_.Locate(stretch_.chunks()));
      read_ = true;
    }
    const uint32_t extent = next_extent_++ - stretch_.first_extent();
    StoredChunk chunk;
    chunk.first_page = stretch_.first_page() + stretch_.FirstOf(extent);
    chunk.page_count = stretch_.PagesIn(extent);
    const auto whole = stretch_.WholeChunk(extent);
    const absl::Status read = whole.has_value() ? ReadWhole(stretch_.chunks()[*whole], chunk) : PutTogether(extent, chunk);
    if (!read.ok()) return Annotate(read, "snapshot " + layout_.id.value());
    if (full_) root_.Add(chunk.name);
    return chunk;
  }

  // Wanted runs and extents are ascending.
  bool IsWanted(uint32_t extent) {
    if (full_) return true;
    const uint32_t first = format::FirstPageOf(layout_.page_size, extent);
    const uint64_t end = uint64_t{first} + format::PagesIn(layout_.page_size, layout_.page_count, extent);
    while (next_wanted_ < wanted_.size() && wanted_[next_wanted_].first_page + (wanted_[next_wanted_].page_count - 1) < first)
      ++next_wanted_;
    return next_wanted_ < wanted_.size() && wanted_[next_wanted_].first_page < end;
  }

  absl::Status ReadWhole(const manifest::ChunkRef& ref, StoredChunk& chunk) {
    LF_ASSIGN_OR_RETURN(store::StoredRecord record, chunks_.ReadStored(ref));
    chunk.name = ref.name;
    chunk.codec = record.header.codec;
    chunk.raw_bytes = record.header.raw_bytes;
    chunk.data = std::move(record.payload);
    return absl::OkStatus();
  }

  absl::Status PutTogether(uint32_t extent, StoredChunk& chunk) {
    const uint32_t page_size = layout_.page_size;
    chunk.raw_bytes = chunk.page_count * page_size;
    chunk.raw.reserve(chunk.raw_bytes);
    const uint32_t first = stretch_.FirstOf(extent);
    for (uint32_t at = first; at < first + chunk.page_count; ++at) {
      LF_ASSIGN_OR_RETURN(const manifest::OpenChunk* const open, chunks_.Content(stretch_.chunk_of(at)));
      const size_t begin = size_t{stretch_.page(at).index} * page_size;
      if (begin + page_size > open->raw.size())
        return Damaged("CHUNK_DAMAGED", fmt::format("chunk {} does not have the page that the manifest names", open->name.Hex()));
      const auto page = open->raw.begin() + static_cast<std::ptrdiff_t>(begin);
      chunk.raw.insert(chunk.raw.end(), page, page + page_size);
    }
    const auto& given = stretch_.given_name(extent);
    chunk.name = given.has_value() ? *given : NameOf(chunk.raw, page_size);
    return absl::OkStatus();
  }

  // At the end of a full read all extents have passed by: the root says whether they are the right ones.
  absl::StatusOr<std::optional<StoredChunk>> Finish() {
    if (full_ && !std::exchange(proven_, true) && root_.Finish() != layout_.root)
      return Damaged("ROOT_MISMATCH", fmt::format("snapshot {} does not have its root digest", layout_.id.value()));
    return std::nullopt;
  }

  ReaderSource source_;
  const catalog::SnapshotLayout& layout_;  // of the source
  manifest::ChunkReader chunks_;
  const SnapshotGeometry geometry_;
  const std::vector<WantedRun> wanted_;
  const bool full_;

  format::RootBuilder root_;
  manifest::Stretch stretch_;
  bool read_ = false;  // stretch_ holds one
  uint32_t next_extent_ = 0;
  size_t next_wanted_ = 0;
  bool proven_ = false;
  bool failed_ = false;
};

}  // namespace

absl::Status Pack(StoredChunk& chunk, format::ChunkCompressor& compressor) {
  if (!chunk.data.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(chunk.codec, compressor.Compress(chunk.raw, chunk.data));
  return absl::OkStatus();
}

absl::Status Unpack(StoredChunk& chunk, uint32_t page_size, format::ChunkDecompressor& decompressor) {
  if (!chunk.raw.empty()) {
    if (NameOf(chunk.raw, page_size) == chunk.name) return absl::OkStatus();
    return Damaged("CHUNK_DAMAGED", fmt::format("the extent from page {} on is not what its name says", chunk.first_page));
  }
  return decompressor.Open(chunk.codec, AsBytes(chunk.data), chunk.raw_bytes, page_size, chunk.name, chunk.raw);
}

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

absl::StatusOr<ReaderSource> StoreSnapshotReaderFactory::Find(const SnapshotId& snapshot) const {
  // Pinned before its state is looked at: whoever removes it looks at the pins after it was put into the trash.
  SnapshotPin pin(pins_, snapshot);
  LF_ASSIGN_OR_RETURN(catalog::SnapshotLayout found, catalog_.GetLayout(snapshot));
  if (found.in_trash) {
    return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_IN_TRASH", fmt::format("snapshot {} was deleted", snapshot.value()),
                 fmt::format("take it out of the trash first: litefleet store trash restore {}", snapshot.value()));
  }
  LF_ASSIGN_OR_RETURN(manifest::ManifestReader manifest, manifest::ManifestReader::Open(catalog_, store_, std::move(found)));
  return ReaderSource{catalog_, store_, std::move(manifest), std::move(pin)};
}

absl::StatusOr<std::unique_ptr<SnapshotReader>> StoreSnapshotReaderFactory::Open(const SnapshotId& snapshot,
                                                                                 std::span<const WantedRun> wanted) {
  LF_ASSIGN_OR_RETURN(ReaderSource source, Find(snapshot));
  LF_RETURN_IF_ERROR(CheckRuns(source.manifest.layout(), wanted).status());
  return std::make_unique<StoreSnapshotReader>(std::move(source), wanted);
}

absl::StatusOr<std::unique_ptr<SnapshotReader>> StoreSnapshotReaderFactory::OpenDifferent(const SnapshotId& snapshot,
                                                                                          std::span<const WantedRun> wanted,
                                                                                          std::string have) {
  LF_ASSIGN_OR_RETURN(ReaderSource source, Find(snapshot));
  LF_ASSIGN_OR_RETURN(const uint64_t pages, CheckRuns(source.manifest.layout(), wanted));
  if (have.size() != pages * kHaveBytes) {
    return Error(absl::StatusCode::kInvalidArgument, "RUNS_INVALID",
                 fmt::format("{} bytes of digests for {} pages, {} are needed for each", have.size(), pages, kHaveBytes));
  }
  return MakeDifferenceReader(std::move(source), wanted, std::move(have));
}

absl::StatusOr<std::unique_ptr<NameReader>> StoreSnapshotReaderFactory::OpenNames(const SnapshotId& snapshot) {
  LF_ASSIGN_OR_RETURN(ReaderSource source, Find(snapshot));
  return MakeNameReader(std::move(source));
}

}  // namespace litefleet::restore
