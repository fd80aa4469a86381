// How a FileStore finds its packs again, and how all their records are walked: FORMAT.md, "Torn tails".
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/store_names.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"

namespace litefleet::store {
namespace {

absl::StatusOr<format::PackScanner> Scan(const std::shared_ptr<File>& file, uint64_t size) {
  return format::PackScanner::Open([file](uint64_t offset, std::span<std::byte> out) { return file->ReadAt(offset, out); }, size);
}

}  // namespace

absl::Status FileStore::Recover() {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(packs_directory_));
  std::vector<uint64_t> open;
  uint64_t largest = options_.first_pack_id == 0 ? 0 : options_.first_pack_id - 1;
  for (const std::string& name : names) {
    const auto parsed = format::ParsePackFileName(name);
    if (!parsed.has_value()) {
      Problem(fmt::format("{}/{} is no file of the store", packs_directory_, name));
      continue;
    }
    largest = std::max(largest, parsed->id);
    if (!parsed->sealed) {
      open.push_back(parsed->id);
      continue;
    }
    LF_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files_.OpenForReading(PathOf(parsed->id, true)));
    LF_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    MutexLock lock(mu_);
    known_[parsed->id] = {.sealed = true, .size = size};
  }
  {
    MutexLock lock(mu_);
    next_pack_ = largest + 1;
  }
  std::sort(open.begin(), open.end());
  for (const uint64_t id : open) LF_RETURN_IF_ERROR(Annotate(RecoverOpenPack(id), "recover " + PathOf(id, false)));
  return absl::OkStatus();
}

absl::Status FileStore::RecoverOpenPack(uint64_t id) {
  const std::string path = PathOf(id, false);
  auto pack = std::make_shared<Pack>();
  pack->id = id;
  LF_ASSIGN_OR_RETURN(pack->file, files_.OpenForWriting(path));
  LF_ASSIGN_OR_RETURN(const uint64_t file_bytes, pack->file->Size());
  if (file_bytes < format::kPackHeaderBytes) return files_.Remove(path);  // the crash came before the header was whole

  absl::StatusOr<format::PackScanner> scanner = Scan(pack->file, file_bytes);
  if (!scanner.ok() || scanner->header().pack_id != id) {
    Problem(fmt::format("{} is left alone: {}", path, scanner.ok() ? "its header names another pack" : MessageOf(scanner.status())));
    MutexLock lock(mu_);
    known_[id] = {.sealed = false, .size = file_bytes};
    return absl::OkStatus();
  }
  pack->tag = scanner->header().tag;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const auto record, scanner->Next());
    if (!record.has_value()) break;
    pack->footer = record->header.type == format::RecordType::kFooter;
    pack->records += 1;
    if (record->header.type == format::RecordType::kChunk) pack->chunks += 1;
  }
  pack->size = scanner->end_of_records();
  pack->written_back = pack->size;
  pack->new_name = true;
  const uint64_t damaged = scanner->damaged_bytes();
  if (damaged > 0) Problem(fmt::format("{} has {} damaged bytes", path, damaged));
  if (pack->size < file_bytes) LF_RETURN_IF_ERROR(pack->file->Truncate(pack->size));
  std::shared_ptr<Pack> to_seal = pack;
  {
    MutexLock lock(mu_);
    damaged_bytes_ += damaged;
    known_[id] = {.sealed = false, .size = pack->size};
    // Appended to again, unless something is strange about it; only the newest can stay open.
    if (!pack->footer && damaged == 0) std::swap(open_, to_seal);
  }
  if (to_seal == nullptr) return absl::OkStatus();
  if (!to_seal->footer) LF_RETURN_IF_ERROR(WriteFooter(*to_seal));
  return SyncPack(*to_seal);
}

std::vector<PackInfo> FileStore::Packs() {
  std::vector<PackInfo> packs;
  MutexLock lock(mu_);
  packs.reserve(known_.size());
  for (const auto& [id, known] : known_) packs.push_back({.id = id, .sealed = known.sealed, .held = known.held(), .size = known.size});
  return packs;
}

absl::StatusOr<PackScan> FileStore::ScanPack(uint64_t pack,
                                             absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) {
  uint64_t size = 0;
  {
    MutexLock lock(mu_);
    if (const auto it = known_.find(pack); it != known_.end()) size = it->second.size;
  }
  LF_ASSIGN_OR_RETURN(const Reader reader, ReaderOf(pack));
  LF_ASSIGN_OR_RETURN(format::PackScanner scanner, Scan(reader.file, size));
  PackScan scan;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const auto record, scanner.Next());
    if (!record.has_value()) break;
    if (record->header.type == format::RecordType::kFooter) continue;
    ++scan.records;
    LF_RETURN_IF_ERROR(visit({.pack = pack, .offset = record->offset}, *record));
  }
  scan.damaged_bytes = scanner.damaged_bytes() + (size - std::min(size, scanner.end_of_records()));
  return scan;
}

void FileStore::ForgetCached(uint64_t pack) {
  {
    MutexLock lock(readers_mu_);
    readers_.erase(pack);  // a descriptor may outlive its file: what is proven is what a restart would find
  }
  if (const absl::StatusOr<Reader> reader = ReaderOf(pack); reader.ok()) reader->file->DropCache();
}

absl::Status FileStore::ForEachRecord(absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) {
  for (const PackInfo& pack : Packs()) {
    absl::Status visited = absl::OkStatus();
    const auto scan = ScanPack(pack.id, [&](const Location& location, const format::ScannedRecord& record) {
      visited = visit(location, record);
      return visited;
    });
    if (!visited.ok()) return visited;
    if (!scan.ok()) Problem(fmt::format("pack {:016x} could not be read: {}", pack.id, MessageOf(scan.status())));
  }
  return absl::OkStatus();
}

}  // namespace litefleet::store
