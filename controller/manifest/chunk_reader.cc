#include "controller/manifest/chunk_reader.h"

#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::manifest {
namespace {

constexpr size_t kOpenedCap = 28 << 20;

absl::Status Damaged(std::string_view reason, const std::string& message) {
  return Error(absl::StatusCode::kDataLoss, reason, message,
               "restore another snapshot of this database; the device still has its own copy");
}

}  // namespace

absl::Status ChunkReader::Locate(const std::vector<ChunkRef>& chunks) {
  places_.clear();
  std::vector<format::ChunkName> names;
  names.reserve(chunks.size());
  for (const ChunkRef& chunk : chunks) names.push_back(chunk.name);
  LF_ASSIGN_OR_RETURN(const auto rows, catalog_.FindChunks(names));
  for (const auto& row : rows) {
    if (row.has_value() && row->good) places_.emplace(row->name, store::Location{.pack = row->place.pack, .offset = row->place.offset});
  }
  return absl::OkStatus();
}

absl::StatusOr<store::StoredRecord> ChunkReader::ReadStored(const ChunkRef& chunk) {
  const store::Location* place = nullptr;
  if (const auto it = places_.find(chunk.name); it != places_.end()) {
    place = &it->second;
  } else if (const auto known = known_.find(chunk.name); known != known_.end()) {
    place = &known->second;
  }
  if (place == nullptr) return Damaged("CHUNK_MISSING", fmt::format("chunk {} is not in the store", chunk.name.Hex()));
  absl::StatusOr<store::StoredRecord> record = store_.Read(*place);
  if (ReasonOf(record.status()) == "CHUNK_MISSING") {
    // Its pack may have been rewritten since it was located: the place is looked up again, once.
    const format::ChunkName names[] = {chunk.name};
    LF_ASSIGN_OR_RETURN(const auto rows, catalog_.FindChunks(names));
    if (rows[0].has_value() && rows[0]->good) {
      const store::Location now{.pack = rows[0]->place.pack, .offset = rows[0]->place.offset};
      if (now != *place) record = store_.Read(now);
    }
  }
  if (!record.ok()) return Annotate(record.status(), fmt::format("read chunk {}", chunk.name.Hex()));
  if (record->header.type != format::RecordType::kChunk || record->header.name != chunk.name) {
    return Damaged("CHUNK_MISSING", fmt::format("chunk {} is not where the catalog says", chunk.name.Hex()));
  }
  if (record->header.page_size != page_size_ || record->header.page_count != chunk.page_count) {
    return Damaged("CHUNK_DAMAGED", fmt::format("chunk {} has another geometry than its snapshot", chunk.name.Hex()));
  }
  return record;
}

absl::Status ChunkReader::OpenInto(const ChunkRef& chunk, Bytes& raw, std::vector<format::PageDigest>* digests) {
  LF_ASSIGN_OR_RETURN(const store::StoredRecord record, ReadStored(chunk));
  return decompressor_.Open(record.header.codec, AsBytes(record.payload), record.header.raw_bytes, page_size_, chunk.name, raw, digests);
}

const OpenChunk* ChunkReader::Opened(const ChunkRef& chunk) {
  const auto it = index_.find(chunk.name);
  if (it == index_.end()) return nullptr;
  opened_.splice(opened_.begin(), opened_, it->second);
  return &*it->second;
}

const OpenChunk* ChunkReader::Keep(OpenChunk opened) {
  opened_bytes_ += opened.raw.capacity();
  const format::ChunkName name = opened.name;
  opened_.push_front(std::move(opened));
  index_.insert_or_assign(name, opened_.begin());
  while (opened_bytes_ > kOpenedCap && opened_.size() > 1) {
    opened_bytes_ -= opened_.back().raw.capacity();
    spare_ = std::move(opened_.back().raw);
    if (const auto it = index_.find(opened_.back().name); it != index_.end() && &*it->second == &opened_.back()) index_.erase(it);
    opened_.pop_back();
  }
  return &opened_.front();
}

absl::StatusOr<const OpenChunk*> ChunkReader::Open(const ChunkRef& chunk) {
  if (const OpenChunk* const known = Opened(chunk); known != nullptr && known->digests != nullptr) return known;
  OpenChunk opened{.name = chunk.name, .raw = std::exchange(spare_, {}), .digests = nullptr};
  auto digests = std::make_shared<std::vector<format::PageDigest>>();
  LF_RETURN_IF_ERROR(OpenInto(chunk, opened.raw, digests.get()));
  opened.digests = std::move(digests);
  if (cache_ != nullptr) cache_->Put(chunk.name, opened.digests);
  return Keep(std::move(opened));
}

absl::StatusOr<const OpenChunk*> ChunkReader::Content(const ChunkRef& chunk) {
  if (const OpenChunk* const known = Opened(chunk); known != nullptr) return known;
  OpenChunk opened{.name = chunk.name, .raw = std::exchange(spare_, {}), .digests = nullptr};
  LF_ASSIGN_OR_RETURN(const store::StoredRecord record, ReadStored(chunk));
  LF_RETURN_IF_ERROR(decompressor_.Decompress(record.header.codec, AsBytes(record.payload), record.header.raw_bytes, opened.raw));
  return Keep(std::move(opened));
}

PageDigests ChunkReader::CachedDigests(const ChunkRef& chunk) {
  PageDigests digests = cache_ == nullptr ? nullptr : cache_->Find(chunk.name);
  return digests != nullptr && digests->size() == chunk.page_count ? digests : nullptr;
}

absl::StatusOr<PageDigests> ChunkReader::Digests(const ChunkRef& chunk) {
  if (PageDigests cached = CachedDigests(chunk); cached != nullptr) return cached;
  auto digests = std::make_shared<std::vector<format::PageDigest>>();
  LF_RETURN_IF_ERROR(OpenInto(chunk, scratch_, digests.get()));
  if (cache_ != nullptr) cache_->Put(chunk.name, digests);
  return digests;
}

}  // namespace litefleet::manifest
