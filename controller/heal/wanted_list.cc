#include "controller/heal/wanted_list.h"

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/status.h"
#include "controller/manifest/chunk_reader.h"
#include "controller/manifest/manifest_reader.h"

namespace litefleet::heal {
namespace {

// Where the pages of a chunk are in one stretch; 0: not known.
struct Pages {
  std::vector<uint32_t> at;
  uint32_t missing = 0;
};

class Finder {
 public:
  explicit Finder(std::span<const catalog::HealCatalog::WantedChunk> chunks) : chunks_(chunks), found_(chunks.size()) {
    for (size_t i = 0; i < chunks.size(); ++i) numbers_.emplace(chunks[i].name, i);
  }
  bool complete() const { return found_count_ == chunks_.size(); }
  const std::optional<std::vector<uint32_t>>& found(size_t chunk) const { return found_[chunk]; }

  void Look(const manifest::Stretch& stretch) {
    std::vector<std::optional<size_t>> wanted(stretch.chunks().size());
    bool any = false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto at = numbers_.find(stretch.chunks()[i].name);
      if (at == numbers_.end() || found_[at->second].has_value()) continue;
      wanted[i] = at->second;
      any = true;
    }
    if (!any) return;
    for (uint32_t at = 0; at < stretch.page_count(); ++at) {
      const manifest::PageRef& ref = stretch.page(at);
      if (ref.chunk == manifest::kNoChunk || !wanted[ref.chunk].has_value()) continue;
      const size_t chunk = *wanted[ref.chunk];
      // A chunk may stand in several stretches; its pages are taken from one.
      Pages& pages = partial_[{chunk, stretch.number()}];
      if (pages.at.empty()) {
        pages.at.resize(chunks_[chunk].page_count, 0);
        pages.missing = chunks_[chunk].page_count;
      }
      if (ref.index >= pages.at.size() || pages.at[ref.index] != 0) continue;
      pages.at[ref.index] = stretch.first_page() + at;
      if (--pages.missing > 0 || found_[chunk].has_value()) continue;
      found_[chunk] = pages.at;
      ++found_count_;
    }
  }

 private:
  const std::span<const catalog::HealCatalog::WantedChunk> chunks_;
  absl::flat_hash_map<format::ChunkName, size_t> numbers_;
  std::map<std::pair<size_t, uint32_t>, Pages> partial_;
  std::vector<std::optional<std::vector<uint32_t>>> found_;
  size_t found_count_ = 0;
};

void AddRuns(const std::vector<uint32_t>& pages, v1::WantedPages& out) {
  for (const uint32_t page : pages) {
    if (out.runs_size() > 0) {
      v1::PageRun& last = *out.mutable_runs(out.runs_size() - 1);
      if (last.first_page() + last.page_count() == page) {
        last.set_page_count(last.page_count() + 1);
        continue;
      }
    }
    v1::PageRun& run = *out.add_runs();
    run.set_first_page(page);
    run.set_page_count(1);
  }
}

// Which chunks of a stretch are not there.
absl::StatusOr<std::vector<bool>> BadChunks(const catalog::IngestCatalog& catalog, const manifest::Stretch& stretch) {
  std::vector<format::ChunkName> names;
  for (const manifest::ChunkRef& chunk : stretch.chunks()) names.push_back(chunk.name);
  LF_ASSIGN_OR_RETURN(const auto rows, catalog.FindChunks(names));
  std::vector<bool> bad;
  for (const auto& row : rows) bad.push_back(!row.has_value() || !row->good);
  return bad;
}

// Extents of one snapshot that show pages of wanted chunks, put into an order.
class ExtentLister {
 public:
  ExtentLister(const catalog::IngestCatalog& catalog, store::Store& store, uint32_t page_size, v1::HealOrder& order)
      : catalog_(catalog), reader_(catalog, store, nullptr, page_size), order_(order) {}

  // `shown` gets the wanted chunks that the stretch shows. False: there is no more room.
  absl::StatusOr<bool> Look(const manifest::Stretch& stretch, const absl::flat_hash_map<format::ChunkName, size_t>& wanted,
                            std::set<size_t>& shown) {
    bool any = false;
    for (const manifest::ChunkRef& chunk : stretch.chunks()) any |= wanted.contains(chunk.name);
    if (!any) return true;
    LF_ASSIGN_OR_RETURN(const std::vector<bool> bad, BadChunks(catalog_, stretch));
    LF_RETURN_IF_ERROR(reader_.Locate(stretch.chunks()));
    for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
      bool here = false;
      const uint32_t first = stretch.FirstOf(extent);
      const uint32_t count = stretch.PagesIn(extent);
      for (uint32_t at = first; at < first + count; ++at) {
        const auto is_wanted = wanted.find(stretch.chunk_of(at).name);
        if (is_wanted == wanted.end()) continue;
        here = true;
        shown.insert(is_wanted->second);
      }
      if (!here) continue;
      if (pages_ + count > kMaxExtentPages) return false;
      v1::WantedPages entry;
      LF_ASSIGN_OR_RETURN(const bool possible, Describe(stretch, extent, bad, entry));
      if (!possible) continue;
      pages_ += count;
      *order_.add_wanted() = std::move(entry);
    }
    return true;
  }

 private:
  absl::StatusOr<bool> Describe(const manifest::Stretch& stretch, uint32_t extent, const std::vector<bool>& bad, v1::WantedPages& out) {
    const auto whole = stretch.WholeChunk(extent);
    const auto name = whole.has_value() ? std::optional(stretch.chunks()[*whole].name) : stretch.given_name(extent);
    if (!name.has_value()) return false;
    out.set_name(std::string(name->AsString()));
    const uint32_t first = stretch.FirstOf(extent);
    v1::PageRun& run = *out.add_runs();
    run.set_first_page(stretch.first_page() + first);
    run.set_page_count(stretch.PagesIn(extent));
    for (uint32_t i = 0; i < stretch.PagesIn(extent); ++i) {
      const manifest::PageRef& ref = stretch.page(first + i);
      if (bad[ref.chunk]) continue;
      const auto digests = reader_.Digests(stretch.chunks()[ref.chunk]);
      if (absl::IsDataLoss(digests.status())) return false;  // damage that scrub has not found yet
      LF_RETURN_IF_ERROR(digests.status());
      out.add_known_positions(i);
      out.mutable_known_digests()->append((**digests)[ref.index].AsString());
    }
    return true;
  }

  const catalog::IngestCatalog& catalog_;
  manifest::ChunkReader reader_;
  v1::HealOrder& order_;
  uint32_t pages_ = 0;
};

}  // namespace

absl::StatusOr<WantedList> MakePagesList(const catalog::IngestCatalog& catalog, store::Store& store,
                                         std::span<const catalog::HealCatalog::WantedChunk> chunks, std::span<const SnapshotId> snapshots) {
  WantedList list;
  if (chunks.empty()) return list;
  const uint32_t page_size = chunks[0].page_size;
  absl::flat_hash_map<format::ChunkName, size_t> wanted;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i].page_size == page_size) wanted.emplace(chunks[i].name, i);
  }
  list.order.set_page_size(page_size);
  ExtentLister lister(catalog, store, page_size, list.order);
  manifest::Stretch stretch;
  bool room = true;
  for (const SnapshotId& snapshot : snapshots) {
    if (wanted.empty() || !room) break;
    absl::StatusOr<catalog::SnapshotLayout> layout = catalog.GetLayout(snapshot);
    if (absl::IsNotFound(layout.status())) continue;
    LF_RETURN_IF_ERROR(layout.status());
    if (layout->page_size != page_size) continue;
    absl::StatusOr<manifest::ManifestReader> reader = manifest::ManifestReader::Open(catalog, store, *std::move(layout));
    absl::Status status = reader.status();
    std::set<size_t> shown;
    for (uint32_t number = 0; room && status.ok() && number < reader->stretch_count(); ++number) {
      status = reader->Read(number, stretch);
      if (!status.ok()) break;
      const absl::StatusOr<bool> looked = lister.Look(stretch, wanted, shown);
      status = looked.status();
      if (looked.ok()) room = *looked;
    }
    if (!status.ok() && !absl::IsDataLoss(status) && !absl::IsNotFound(status) && !absl::IsUnimplemented(status)) return status;
    for (const size_t chunk : shown) {
      // Where there was no room for all of its extents the rest is asked for when these have been answered.
      list.asked.push_back(chunks[chunk].id);
      wanted.erase(chunks[chunk].name);
    }
  }
  if (room) {
    for (const auto& [name, chunk] : wanted) list.unknown.push_back(chunks[chunk].id);
  }
  if (list.order.wanted().empty()) {
    list.unknown.insert(list.unknown.end(), list.asked.begin(), list.asked.end());
    list.asked.clear();
  }
  return list;
}

absl::StatusOr<WantedList> MakeWantedList(const catalog::IngestCatalog& catalog, store::Store& store,
                                          std::span<const catalog::HealCatalog::WantedChunk> chunks,
                                          std::span<const SnapshotId> snapshots) {
  WantedList list;
  std::vector<catalog::HealCatalog::WantedChunk> taken;
  uint32_t pages = 0;
  for (const auto& chunk : chunks) {
    if (chunk.page_size != chunks[0].page_size) continue;
    if (pages + chunk.page_count > kMaxPages) break;
    pages += chunk.page_count;
    taken.push_back(chunk);
  }
  Finder finder(taken);
  manifest::Stretch stretch;
  for (const SnapshotId& snapshot : snapshots) {
    if (finder.complete()) break;
    absl::StatusOr<catalog::SnapshotLayout> layout = catalog.GetLayout(snapshot);
    if (absl::IsNotFound(layout.status())) continue;
    LF_RETURN_IF_ERROR(layout.status());
    if (taken.empty() || layout->page_size != taken[0].page_size) continue;
    absl::StatusOr<manifest::ManifestReader> reader = manifest::ManifestReader::Open(catalog, store, *std::move(layout));
    absl::Status status = reader.status();
    for (uint32_t number = 0; status.ok() && number < reader->stretch_count() && !finder.complete(); ++number) {
      status = reader->Read(number, stretch);
      if (status.ok()) finder.Look(stretch);
    }
    if (!status.ok() && !absl::IsDataLoss(status) && !absl::IsNotFound(status) && !absl::IsUnimplemented(status)) return status;
  }
  for (size_t i = 0; i < taken.size(); ++i) {
    if (!finder.found(i).has_value()) {
      list.unknown.push_back(taken[i].id);
      continue;
    }
    list.order.set_page_size(taken[i].page_size);
    v1::WantedPages& wanted = *list.order.add_wanted();
    wanted.set_name(std::string(taken[i].name.AsString()));
    AddRuns(*finder.found(i), wanted);
    list.asked.push_back(taken[i].id);
  }
  return list;
}

}  // namespace litefleet::heal
