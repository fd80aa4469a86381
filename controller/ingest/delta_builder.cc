#include "controller/ingest/delta_builder.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::ingest {
namespace {

absl::Status BadOffer(std::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, "OFFER_INVALID", fmt::format("an offer is wrong: {}", why));
}

// The manifest of a snapshot without pages.
manifest::ManifestReader Nothing(store::Store& store, uint32_t page_size) {
  catalog::SnapshotLayout layout;
  layout.page_size = page_size;
  layout.root_version = format::kRootVersion;
  layout.manifest_kind = 1;
  const auto no_parts = [](uint32_t, uint32_t) -> absl::StatusOr<std::vector<catalog::ManifestPlace>> {
    return std::vector<catalog::ManifestPlace>();
  };
  return *manifest::ManifestReader::Open(no_parts, store, std::move(layout));
}

}  // namespace

DeltaBuilder::DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache,
                           Scratch<WriteScratch>& scratch, const SnapshotId& snapshot, uint32_t page_count, manifest::ManifestReader base)
    : DeltaBuilder(catalog, store, cache, scratch, snapshot, page_count, std::move(base), /*compacts=*/true) {}

DeltaBuilder::DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache,
                           Scratch<WriteScratch>& scratch, const SnapshotId& snapshot, uint32_t page_size, uint32_t page_count)
    : DeltaBuilder(catalog, store, cache, scratch, snapshot, page_count, Nothing(store, page_size), /*compacts=*/false) {}

DeltaBuilder::DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache,
                           Scratch<WriteScratch>& scratch, const SnapshotId& snapshot, uint32_t page_count, manifest::ManifestReader base,
                           bool compacts)
    : catalog_(catalog),
      store_(store),
      scratch_(scratch),
      snapshot_(snapshot),
      page_size_(base.layout().page_size),
      page_count_(page_count),
      base_(std::move(base)),
      compacts_(compacts),
      chunks_reader_(catalog, store, &cache, page_size_),
      writer_(store, snapshot),
      top_(static_cast<uint8_t>(base_.layout().layers.size())) {}

absl::StatusOr<bool> DeltaBuilder::FindInBase(uint32_t extent, uint32_t& position) {
  const catalog::SnapshotLayout& base = base_.layout();
  if (extent >= format::ExtentCount(page_size_, base.page_count) ||
      format::PagesIn(page_size_, base.page_count, extent) != format::PagesIn(page_size_, page_count_, extent)) {
    return false;
  }
  const uint32_t number = extent / format::kExtentsPerStretch;
  if (!at_base_read_ || at_base_.number() != number) {
    at_base_read_ = false;
    LF_RETURN_IF_ERROR(base_.Read(number, at_base_));
    at_base_read_ = true;
    located_ = false;
  }
  position = extent - at_base_.first_extent();
  return true;
}

absl::StatusOr<DeltaBuilder::Checked> DeltaBuilder::Check(const v1::ChunkOffer& offer) {
  const auto name = format::ChunkName::FromBytes(offer.name());
  if (!name.has_value()) return BadOffer(fmt::format("a chunk's name has {} bytes", offer.name().size()));
  if (offer.runs_size() == 0) return BadOffer("it names no page");
  uint64_t next = 1;
  uint64_t pages = 0;
  for (const v1::PageRun& run : offer.runs()) {
    if (run.first_page() < next || run.page_count() == 0 || uint64_t{run.first_page()} + run.page_count() > uint64_t{page_count_} + 1) {
      return BadOffer(fmt::format("pages {} and {} following are not in order, or not in a database of {} pages", run.first_page(),
                                  run.page_count(), page_count_));
    }
    next = uint64_t{run.first_page()} + run.page_count();
    pages += run.page_count();
  }
  if (pages > format::PagesPerExtent(page_size_)) return BadOffer(fmt::format("{} pages are too many for a chunk", pages));
  const uint32_t first = offer.runs(0).first_page();
  if (format::StretchOf(page_size_, first) != format::StretchOf(page_size_, static_cast<uint32_t>(next - 1))) {
    return BadOffer("its pages are of several stretches");
  }
  Checked checked{.chunk = {.name = *name, .page_count = static_cast<uint32_t>(pages)}};
  const uint32_t extent = (first - 1) / format::PagesPerExtent(page_size_);
  if (offer.runs_size() != 1 || first != format::FirstPageOf(page_size_, extent) ||
      pages != format::PagesIn(page_size_, page_count_, extent)) {
    return checked;
  }
  uint32_t position = 0;
  LF_ASSIGN_OR_RETURN(const bool in_base, FindInBase(extent, position));
  if (!in_base) return checked;
  const auto whole = at_base_.WholeChunk(position);
  const std::optional<format::ChunkName> base_name =
      whole.has_value() ? std::optional(at_base_.chunks()[*whole].name) : at_base_.given_name(position);
  checked.same = base_name == *name;
  checked.comparable = !checked.same;
  return checked;
}

absl::StatusOr<std::string> DeltaBuilder::DigestPrefixes(const v1::ChunkOffer& offer) {
  uint32_t position = 0;
  LF_ASSIGN_OR_RETURN(const bool in_base, FindInBase((offer.runs(0).first_page() - 1) / format::PagesPerExtent(page_size_), position));
  std::string prefixes;
  if (!in_base) return prefixes;
  const uint32_t first = at_base_.FirstOf(position);
  for (uint32_t at = first; at < first + at_base_.PagesIn(position); ++at) {
    LF_ASSIGN_OR_RETURN(const manifest::PageDigests digests, DigestsOf(at_base_, at_base_.chunk_of(at)));
    prefixes += (*digests)[at_base_.page(at).index].AsString().substr(0, kDigestPrefix);
  }
  return prefixes;
}

absl::Status DeltaBuilder::Take(const v1::ChunkOffer& offer) {
  if (runs_.size() + static_cast<size_t>(offer.runs_size()) > kMaxRuns) {
    return Error(absl::StatusCode::kFailedPrecondition, "DELTA_TOO_LARGE",
                 fmt::format("the upload has more than {} runs of changed pages", kMaxRuns), "upload all extents, without a base");
  }
  uint32_t index = 0;
  for (const v1::PageRun& run : offer.runs()) {
    runs_.push_back(
        {.first_page = run.first_page(), .page_count = run.page_count(), .chunk = static_cast<uint32_t>(chunks_.size()), .index = index});
    index += run.page_count();
  }
  chunks_.push_back({.name = *format::ChunkName::FromBytes(offer.name()), .page_count = index});
  return absl::OkStatus();
}

absl::Status DeltaBuilder::SetPageCount(uint32_t page_count) {
  const auto beyond = [&](const Run& run) { return uint64_t{run.first_page} + run.page_count > uint64_t{page_count} + 1; };
  if (page_count > page_count_ || std::any_of(runs_.begin(), runs_.end(), beyond)) {
    return Error(absl::StatusCode::kInvalidArgument, "COMMIT_INVALID",
                 fmt::format("the commit says {} pages, which is less than was offered or more than is accepted", page_count));
  }
  page_count_ = page_count;
  return absl::OkStatus();
}

size_t DeltaBuilder::LayersToKeep() const {
  const std::vector<catalog::ManifestLayer>& layers = base_.layout().layers;
  // About what the new layer takes: names of chunks, runs, names of extents.
  const uint32_t extents = format::ExtentCount(page_size_, page_count_);
  auto size = static_cast<int64_t>(chunks_.size() * 44 + runs_.size() * 5 + std::min<size_t>(runs_.size() + 1, extents) * 34);
  size_t keep = layers.size();
  while (keep > 0 && layers[keep - 1].bytes <= 2 * size) size += layers[--keep].bytes;
  return keep > 0 && size * 4 >= layers[0].bytes ? 0 : keep;
}

absl::Status DeltaBuilder::Finish(const format::RootDigest& root) {
  const catalog::SnapshotLayout& base = base_.layout();
  std::sort(runs_.begin(), runs_.end(), [](const Run& a, const Run& b) { return a.first_page < b.first_page; });
  for (const Run& run : runs_) pages_changed_ += run.page_count;
  keep_ = runs_.empty() && page_count_ == base.page_count ? base.layers.size() : LayersToKeep();
  const auto lowest = static_cast<uint8_t>(keep_);
  format::RootBuilder proof(page_size_, page_count_);
  manifest::Stretch stretch;
  std::vector<bool> touched;
  size_t next_run = 0;
  for (uint32_t number = 0; number < manifest::StretchCount(page_size_, page_count_); ++number) {
    if (number < base_.stretch_count()) {
      LF_RETURN_IF_ERROR(base_.ReadFor(page_count_, number, stretch));
    } else {
      stretch.Reset(page_size_, page_count_, number);
    }
    located_ = false;
    const size_t first_run = next_run;
    LF_RETURN_IF_ERROR(PlaceRuns(stretch, next_run, touched));
    if (!stretch.Complete()) {
      return Error(absl::StatusCode::kInvalidArgument, "MANIFEST_INCOMPLETE",
                   fmt::format("pages behind page {} were not offered", base.page_count));
    }
    LF_RETURN_IF_ERROR(NameExtents(stretch, touched, proof));
    if (compacts_ && next_run != first_run) LF_RETURN_IF_ERROR(Compact(stretch));
    if (keep_ < base.layers.size() || std::find(touched.begin(), touched.end(), true) != touched.end())
      LF_RETURN_IF_ERROR(writer_.Add(stretch, lowest));
  }
  if (const format::RootDigest actual = proof.Finish(); actual != root) {
    return Error(absl::StatusCode::kInvalidArgument, "ROOT_MISMATCH",
                 fmt::format("the base and the offered chunks have the root {}, the commit says {}", actual.Hex(), root.Hex()));
  }
  return writer_.Finish();
}

absl::Status DeltaBuilder::PlaceRuns(manifest::Stretch& stretch, size_t& next_run, std::vector<bool>& touched) const {
  const uint32_t per_extent = format::PagesPerExtent(page_size_);
  touched.assign(stretch.extent_count(), false);
  // An extent that has become longer or shorter has another name.
  const uint32_t base_pages = base_.layout().page_count;
  if (base_pages != page_count_ && std::min(base_pages, page_count_) > 0) {
    const uint32_t last = (std::min(base_pages, page_count_) - 1) / per_extent;
    if (last >= stretch.first_extent() && last - stretch.first_extent() < stretch.extent_count())
      touched[last - stretch.first_extent()] = true;
  }
  for (; next_run < runs_.size(); ++next_run) {
    const Run& run = runs_[next_run];
    if (run.first_page >= uint64_t{stretch.first_page()} + stretch.page_count()) break;
    if (next_run > 0 && runs_[next_run - 1].first_page + runs_[next_run - 1].page_count > run.first_page)
      return BadOffer(fmt::format("page {} was offered twice", run.first_page));
    const auto chunk = stretch.ChunkNumber(chunks_[run.chunk].name, chunks_[run.chunk].page_count);
    if (!chunk.has_value()) return BadOffer("a chunk with the name of another one");
    stretch.Place(run.first_page, run.page_count, *chunk, run.index, top_);
    const uint32_t first = (run.first_page - stretch.first_page()) / per_extent;
    const uint32_t last = (run.first_page - stretch.first_page() + run.page_count - 1) / per_extent;
    for (uint32_t extent = first; extent <= last; ++extent) touched[extent] = true;
  }
  return absl::OkStatus();
}

absl::Status DeltaBuilder::Locate(const manifest::Stretch& stretch) {
  if (std::exchange(located_, true)) return absl::OkStatus();
  return chunks_reader_.Locate(stretch.chunks());
}

absl::StatusOr<manifest::PageDigests> DeltaBuilder::DigestsOf(const manifest::Stretch& stretch, const manifest::ChunkRef& chunk) {
  if (manifest::PageDigests cached = chunks_reader_.CachedDigests(chunk); cached != nullptr) return cached;
  LF_RETURN_IF_ERROR(Locate(stretch));
  return chunks_reader_.Digests(chunk);
}

void DeltaBuilder::Arrived(const catalog::ArrivedChunk& chunk) {
  if (chunk.place.has_value()) chunks_reader_.Know(chunk.name, {.pack = chunk.place->pack, .offset = chunk.place->offset});
}

absl::Status DeltaBuilder::NameExtents(manifest::Stretch& stretch, const std::vector<bool>& touched, format::RootBuilder& root) {
  std::vector<manifest::PageDigests> digests(stretch.chunks().size());
  std::vector<format::PageDigest> pages;
  for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
    if (const auto whole = stretch.WholeChunk(extent); whole.has_value()) {
      root.Add(stretch.chunks()[*whole].name);
      continue;
    }
    if (touched[extent] || !stretch.given_name(extent).has_value()) {
      pages.clear();
      const uint32_t first = stretch.FirstOf(extent);
      for (uint32_t at = first; at < first + stretch.PagesIn(extent); ++at) {
        const manifest::PageRef& ref = stretch.page(at);
        if (digests[ref.chunk] == nullptr) {
          LF_ASSIGN_OR_RETURN(digests[ref.chunk], DigestsOf(stretch, stretch.chunks()[ref.chunk]));
        }
        if (ref.index >= digests[ref.chunk]->size())
          return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "a manifest names a page that its chunk does not have");
        pages.push_back((*digests[ref.chunk])[ref.index]);
      }
      stretch.SetName(extent, format::NameChunk(page_size_, pages), top_);
    }
    root.Add(*stretch.given_name(extent));
  }
  return absl::OkStatus();
}

absl::Status DeltaBuilder::Note(const store::Placed& placed) {
  if (epoch_.has_value() && *epoch_ != placed.epoch) {
    return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed during the upload", "the backup will be tried again");
  }
  epoch_ = placed.epoch;
  holds_.Add(placed.hold);
  return absl::OkStatus();
}

catalog::NewManifest DeltaBuilder::TakeManifest() {
  const catalog::SnapshotLayout& base = base_.layout();
  catalog::NewManifest manifest;
  manifest.base = base.id;
  manifest.layers.assign(base.layers.begin(), base.layers.begin() + static_cast<std::ptrdiff_t>(keep_));
  for (const catalog::ManifestLayer& layer : manifest.layers) manifest.kept_parts += layer.parts;
  manifest.own = writer_.places();
  if (!manifest.own.empty() || manifest.layers.empty()) {
    manifest.layers.push_back({.id = snapshot_.value(),
                               .parts = static_cast<uint32_t>(manifest.own.size()),
                               .bytes = writer_.bytes(),
                               .first_part = manifest.kept_parts});
  }
  return manifest;
}

absl::StatusOr<std::optional<uint64_t>> DeltaBuilder::epoch() const {
  LF_ASSIGN_OR_RETURN(const std::optional<uint64_t> parts, writer_.epoch());
  if (parts.has_value() && epoch_.has_value() && *parts != *epoch_) {
    return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed during the upload", "the backup will be tried again");
  }
  return epoch_.has_value() ? epoch_ : parts;
}

}  // namespace litefleet::ingest
