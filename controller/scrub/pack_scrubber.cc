#include "controller/scrub/pack_scrubber.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/status.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::scrub {
namespace {

constexpr size_t kComparedAtOnce = 256;
constexpr int kRowsAtOnce = 1000;

bool IsDamage(const absl::Status& status) { return absl::IsDataLoss(status); }

}  // namespace

absl::StatusOr<PackFindings> PackScrubber::Scrub(uint64_t pack, const Pace& pace) {
  PackFindings findings;
  const std::optional<uint64_t> size = SizeOf(pack);
  findings.gone = !size.has_value();
  if (findings.gone) return findings;
  const uint64_t end = *size;
  // Before the scan: what is appended meanwhile is not missed.
  LF_ASSIGN_OR_RETURN(const int64_t expected, catalog_.CountChunks(pack));
  std::vector<Seen> seen;
  std::vector<uint64_t> records;
  int64_t here = 0;
  absl::Status ended = absl::OkStatus();
  store_.ForgetCached(pack);
  const auto scan = store_.ScanPack(pack, [&](const store::Location& location, const format::ScannedRecord& record) -> absl::Status {
    const uint64_t bytes = format::kRecordHeaderBytes + record.payload.size();
    findings.stored_bytes += bytes;
    if (record.header.type == format::RecordType::kChunk) {
      ++findings.chunks;
      findings.logical_bytes += record.header.raw_bytes;
      const bool sound =
          decompressor_
              .Open(record.header.codec, record.payload, record.header.raw_bytes, record.header.page_size, record.header.name, raw_)
              .ok();
      seen.push_back({.name = record.header.name, .offset = location.offset, .sound = sound});
      if (seen.size() >= kComparedAtOnce) ended = Compare(pack, seen, findings, here);
    }
    if (record.header.type == format::RecordType::kSnapshot) records.push_back(location.offset);
    if (ended.ok()) ended = pace(bytes);
    return ended;
  });
  LF_RETURN_IF_ERROR(ended);
  if (!scan.ok() && !IsDamage(scan.status())) return scan.status();
  findings.gone = !SizeOf(pack).has_value();  // a scan may have come to its end all the same
  if (findings.gone) return findings;
  LF_RETURN_IF_ERROR(Compare(pack, seen, findings, here));
  if (!scan.ok() || scan->damaged_bytes > 0 || here < expected) LF_RETURN_IF_ERROR(LookAtRows(pack, end, pace, findings));
  LF_RETURN_IF_ERROR(LookAtRecords(pack, end, records, findings));
  findings.damaged_bytes = scan.ok() ? scan->damaged_bytes : end;
  return findings;
}

std::optional<uint64_t> PackScrubber::SizeOf(uint64_t pack) {
  for (const store::PackInfo& info : store_.Packs())
    if (info.id == pack) return info.size;
  return std::nullopt;
}

absl::Status PackScrubber::Compare(uint64_t pack, std::vector<Seen>& seen, PackFindings& findings, int64_t& here) {
  std::vector<format::ChunkName> names;
  names.reserve(seen.size());
  for (const Seen& each : seen) names.push_back(each.name);
  LF_ASSIGN_OR_RETURN(const auto rows, chunks_.FindChunks(names));
  for (size_t i = 0; i < seen.size(); ++i) {
    // Another copy counts: this one is dead.
    if (!rows[i].has_value() || rows[i]->place.pack != pack || rows[i]->place.offset != seen[i].offset) continue;
    ++here;
    if (!seen[i].sound) findings.bad.push_back({.id = 0, .name = seen[i].name, .place = rows[i]->place});
  }
  seen.clear();
  return absl::OkStatus();
}

absl::Status PackScrubber::LookAtChunk(const catalog::ScrubCatalog::PlacedChunk& chunk) {
  LF_ASSIGN_OR_RETURN(const store::StoredRecord record, store_.Read({.pack = chunk.place.pack, .offset = chunk.place.offset}));
  if (record.header.type != format::RecordType::kChunk || record.header.name != chunk.name)
    return Error(absl::StatusCode::kDataLoss, "CHUNK_MISSING", "another record stands there");
  return decompressor_.Open(record.header.codec, AsBytes(record.payload), record.header.raw_bytes, record.header.page_size, chunk.name,
                            raw_);
}

absl::Status PackScrubber::LookAtRecords(uint64_t pack, uint64_t end, const std::vector<uint64_t>& found, PackFindings& findings) {
  for (int64_t after = -1;;) {
    LF_ASSIGN_OR_RETURN(const auto rows, catalog_.RecordsIn(pack, after, kRowsAtOnce));
    for (const auto& row : rows) {
      after = static_cast<int64_t>(row.place.offset);
      if (row.place.offset >= end) return absl::OkStatus();
      if (std::binary_search(found.begin(), found.end(), row.place.offset)) continue;
      const auto record = store_.Read({.pack = pack, .offset = row.place.offset});
      if (!record.ok() && !IsDamage(record.status())) return record.status();
      storage::v1::SnapshotRecord snapshot;
      const bool sound = record.ok() && record->header.type == format::RecordType::kSnapshot && snapshot.ParseFromString(record->payload) &&
                         snapshot.snapshot_id() == row.snapshot.value();
      if (!sound) findings.without_record.push_back(row);
    }
    if (rows.size() < kRowsAtOnce) return absl::OkStatus();
  }
}

absl::Status PackScrubber::LookAtRows(uint64_t pack, uint64_t end, const Pace& pace, PackFindings& findings) {
  // What comes while this runs is not looked at: an upload could outrun it.
  LF_ASSIGN_OR_RETURN(const int64_t newest, catalog_.NewestChunk());
  const auto known = [&](const format::ChunkName& name) {
    return std::any_of(findings.bad.begin(), findings.bad.end(), [&](const auto& each) { return each.name == name; });
  };
  for (int64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const auto rows, catalog_.ChunksIn(pack, after, kRowsAtOnce));
    for (const auto& row : rows) {
      after = row.id;
      if (row.id > newest) break;
      if (row.place.offset >= end) continue;
      const absl::Status status = LookAtChunk(row);
      if (!status.ok() && !IsDamage(status)) return status;
      if (!status.ok() && !known(row.name)) findings.bad.push_back(row);
      LF_RETURN_IF_ERROR(pace(0));
    }
    if (rows.size() < kRowsAtOnce || after > newest) break;
  }
  for (int64_t after = -1;;) {
    LF_ASSIGN_OR_RETURN(const auto places, catalog_.ManifestPartsIn(pack, after, kRowsAtOnce));
    for (const catalog::PackPlace& place : places) {
      after = static_cast<int64_t>(place.offset);
      if (place.offset >= end) return absl::OkStatus();
      const auto record = store_.Read({.pack = place.pack, .offset = place.offset});
      if (!record.ok() && !IsDamage(record.status())) return record.status();
      storage::v1::ManifestPart part;
      if (record.ok() && record->header.type == format::RecordType::kManifestPart && part.ParseFromString(record->payload)) continue;
      LF_ASSIGN_OR_RETURN(const auto snapshots, catalog_.SnapshotsWithPart(place));
      findings.without_manifest.insert(findings.without_manifest.end(), snapshots.begin(), snapshots.end());
    }
    if (places.size() < kRowsAtOnce) return absl::OkStatus();
  }
}

}  // namespace litefleet::scrub
