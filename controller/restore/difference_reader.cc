// What somebody needs who has a similar database: the names of the extents, and of the pages only those that differ.
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "controller/manifest/chunk_reader.h"
#include "controller/restore/store_snapshot_reader.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

absl::Status Damaged(const std::string& message) {
  return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", message,
               "restore another snapshot of this database; the device still has its own copy");
}

SnapshotGeometry GeometryOf(const catalog::SnapshotLayout& layout) {
  return {.page_size = layout.page_size, .page_count = layout.page_count, .root = layout.root};
}

// Stretches of a manifest, their chunks located.
class Stretches {
 public:
  explicit Stretches(ReaderSource source)
      : source_(std::move(source)), chunks_(source_.catalog, source_.store, nullptr, source_.manifest.layout().page_size) {}

  const catalog::SnapshotLayout& layout() const { return source_.manifest.layout(); }
  uint32_t count() const { return source_.manifest.stretch_count(); }
  // Valid until the next call. Ascending.
  absl::StatusOr<manifest::Stretch*> At(uint32_t number) {
    if (read_ && stretch_.number() == number) return &stretch_;
    LF_RETURN_IF_ERROR(source_.manifest.Read(number, stretch_));
    LF_RETURN_IF_ERROR(chunks_.Locate(stretch_.chunks()));
    read_ = true;
    return &stretch_;
  }
  // A page by its position in the stretch that was read last; valid until the next call.
  struct Page {
    ByteView content;
    format::PageDigest digest;
  };
  absl::StatusOr<Page> Read(uint32_t at) {
    LF_ASSIGN_OR_RETURN(const manifest::OpenChunk* const open, chunks_.Open(stretch_.chunk_of(at)));
    const uint32_t index = stretch_.page(at).index;
    if (index >= open->digests->size())
      return Damaged(fmt::format("chunk {} does not have the page that the manifest names", open->name.Hex()));
    return Page{ByteView(open->raw).subspan(size_t{index} * layout().page_size, layout().page_size), (*open->digests)[index]};
  }
  absl::StatusOr<store::StoredRecord> ReadStored(uint32_t chunk) { return chunks_.ReadStored(stretch_.chunks()[chunk]); }

 private:
  ReaderSource source_;
  manifest::ChunkReader chunks_;
  manifest::Stretch stretch_;
  bool read_ = false;
};

class DifferenceReader final : public SnapshotReader {
 public:
  DifferenceReader(ReaderSource source, std::span<const WantedRun> wanted, std::string have)
      : stretches_(std::move(source)),
        geometry_(GeometryOf(stretches_.layout())),
        wanted_(wanted.begin(), wanted.end()),
        have_(std::move(have)) {}

  const SnapshotGeometry& geometry() const override { return geometry_; }

  absl::StatusOr<std::optional<StoredChunk>> Next() override {
    const uint32_t per_extent = format::PagesPerExtent(geometry_.page_size);
    for (;;) {
      if (ready_.has_value()) return std::exchange(ready_, std::nullopt);
      if (at_ == wanted_.size()) return Flush();
      WantedRun& run = wanted_[at_];
      if (run.page_count == 0) {
        ++at_;
        continue;
      }
      // What of the run is of one extent.
      const uint32_t extent = (run.first_page - 1) / per_extent;
      const uint32_t count = std::min(run.page_count, per_extent - (run.first_page - 1) % per_extent);
      LF_ASSIGN_OR_RETURN(std::optional<StoredChunk> chunk, Compare(extent, run.first_page, count));
      run.first_page += count;
      run.page_count -= count;
      if (chunk.has_value()) return chunk;
    }
  }

 private:
  // Gathers the pages that differ; a chunk where one is full.
  absl::StatusOr<std::optional<StoredChunk>> Compare(uint32_t extent, uint32_t first_page, uint32_t count) {
    LF_ASSIGN_OR_RETURN(const manifest::Stretch* const stretch, stretches_.At(extent / format::kExtentsPerStretch));
    const uint32_t first = first_page - stretch->first_page();
    differs_.clear();
    for (uint32_t i = 0; i < count; ++i) {
      LF_ASSIGN_OR_RETURN(const Stretches::Page page, stretches_.Read(first + i));
      if (page.digest.AsString().substr(0, kHaveBytes) != std::string_view(have_).substr((next_have_ + i) * kHaveBytes, kHaveBytes))
        differs_.push_back(first + i);
    }
    next_have_ += count;
    const uint32_t in_stretch = extent - stretch->first_extent();
    const auto whole = stretch->WholeChunk(in_stretch);
    if (differs_.size() == stretch->PagesIn(in_stretch) && whole.has_value()) return AsStored(*stretch, *whole, first_page);
    std::optional<StoredChunk> full;
    for (const uint32_t at : differs_) {
      if (gathered_.raw.size() + geometry_.page_size > format::kExtentBytes) full = Flush();
      LF_ASSIGN_OR_RETURN(const Stretches::Page page, stretches_.Read(at));
      gathered_.raw.insert(gathered_.raw.end(), page.content.begin(), page.content.end());
      digests_.push_back(page.digest);
      const uint32_t number = stretch->first_page() + at;
      if (gathered_.runs.empty() || gathered_.runs.back().first_page + gathered_.runs.back().page_count != number)
        gathered_.runs.push_back({.first_page = number});
      ++gathered_.runs.back().page_count;
    }
    return full;
  }

  // Nothing of an extent is there: as it is stored, behind what was gathered.
  absl::StatusOr<std::optional<StoredChunk>> AsStored(const manifest::Stretch& stretch, uint32_t number, uint32_t first_page) {
    LF_ASSIGN_OR_RETURN(store::StoredRecord record, stretches_.ReadStored(number));
    StoredChunk chunk;
    chunk.name = stretch.chunks()[number].name;
    chunk.codec = record.header.codec;
    chunk.raw_bytes = record.header.raw_bytes;
    chunk.data = std::move(record.payload);
    chunk.first_page = first_page;
    chunk.page_count = stretch.chunks()[number].page_count;
    std::optional<StoredChunk> before = Flush();
    if (!before.has_value()) return chunk;
    ready_ = std::move(chunk);
    return before;
  }

  std::optional<StoredChunk> Flush() {
    if (gathered_.raw.empty()) return std::nullopt;
    StoredChunk chunk = std::exchange(gathered_, {});
    chunk.name = format::NameChunk(geometry_.page_size, digests_);
    chunk.raw_bytes = static_cast<uint32_t>(chunk.raw.size());
    chunk.first_page = chunk.runs.front().first_page;
    chunk.page_count = static_cast<uint32_t>(digests_.size());
    digests_.clear();
    return chunk;
  }

  Stretches stretches_;
  const SnapshotGeometry geometry_;
  std::vector<WantedRun> wanted_;  // what is left of them, from at_ on
  size_t at_ = 0;
  const std::string have_;
  size_t next_have_ = 0;
  std::vector<uint32_t> differs_;
  StoredChunk gathered_;
  std::vector<format::PageDigest> digests_;  // of gathered_
  std::optional<StoredChunk> ready_;
};

class StoreNameReader final : public NameReader {
 public:
  explicit StoreNameReader(ReaderSource source) : stretches_(std::move(source)), geometry_(GeometryOf(stretches_.layout())) {}

  const SnapshotGeometry& geometry() const override { return geometry_; }

  absl::StatusOr<std::vector<format::ChunkName>> Next() override {
    std::vector<format::ChunkName> names;
    if (next_ == stretches_.count()) return names;
    LF_ASSIGN_OR_RETURN(const manifest::Stretch* const stretch, stretches_.At(next_++));
    names.reserve(stretch->extent_count());
    for (uint32_t extent = 0; extent < stretch->extent_count(); ++extent) {
      if (const auto whole = stretch->WholeChunk(extent); whole.has_value()) {
        names.push_back(stretch->chunks()[*whole].name);
      } else if (stretch->given_name(extent).has_value()) {
        names.push_back(*stretch->given_name(extent));
      } else {
        LF_ASSIGN_OR_RETURN(names.emplace_back(), NameOf(*stretch, extent));
      }
    }
    return names;
  }

 private:
  absl::StatusOr<format::ChunkName> NameOf(const manifest::Stretch& stretch, uint32_t extent) {
    std::vector<format::PageDigest> digests;
    const uint32_t first = stretch.FirstOf(extent);
    for (uint32_t at = first; at < first + stretch.PagesIn(extent); ++at) {
      LF_ASSIGN_OR_RETURN(const Stretches::Page page, stretches_.Read(at));
      digests.push_back(page.digest);
    }
    return format::NameChunk(geometry_.page_size, digests);
  }

  Stretches stretches_;
  const SnapshotGeometry geometry_;
  uint32_t next_ = 0;
};

}  // namespace

std::unique_ptr<SnapshotReader> MakeDifferenceReader(ReaderSource source, std::span<const WantedRun> wanted, std::string have) {
  return std::make_unique<DifferenceReader>(std::move(source), wanted, std::move(have));
}
std::unique_ptr<NameReader> MakeNameReader(ReaderSource source) { return std::make_unique<StoreNameReader>(std::move(source)); }

}  // namespace litefleet::restore
