// How a FileStore finds its packs again, and how all their records are walked: FORMAT.md, "Torn tails".
#include <algorithm>
#include <array>
#include <utility>

#include "common/base/status.h"
#include "common/format/store_names.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"

namespace litefleet::store {
namespace {

constexpr uint64_t kUnsyncedBytes = 4096;  // of a pack that is lost to a power cut without a word: not much more than its header

bool IsAllZeros(File& file, uint64_t size) {
  Bytes bytes(256 << 10);
  for (uint64_t at = 0; at < size; at += bytes.size()) {
    const absl::StatusOr<size_t> got = file.ReadAt(at, bytes);
    if (!got.ok()) return false;
    const ByteView read = ByteView(bytes).first(*got);
    if (std::any_of(read.begin(), read.end(), [](std::byte b) { return b != std::byte{0}; })) return false;
  }
  return true;
}

}  // namespace

format::PackScanner::ReadAt FileStore::Around(const std::shared_ptr<File>& file, uint64_t pack, Gaps& gaps) {
  return [this, file, pack, &gaps](uint64_t offset, std::span<std::byte> out) {
    return ReadAround(
        *file, offset, out, [&] { return Answers(*file, pack); }, gaps);
  };
}

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
    absl::StatusOr<std::unique_ptr<File>> file = files_.OpenForReading(PathOf(parsed->id, true));
    absl::StatusOr<uint64_t> size = file.ok() ? (*file)->Size() : file.status();
    if (!size.ok()) size = CannotBeOpened(PathOf(parsed->id, true), size.status());
    MutexLock lock(mu_);
    known_[parsed->id] = {.sealed = true, .size = *size};
  }
  {
    MutexLock lock(mu_);
    next_pack_ = largest + 1;
  }
  std::sort(open.begin(), open.end());
  for (const uint64_t id : open) LF_RETURN_IF_ERROR(Annotate(RecoverOpenPack(id, false), "recover " + PathOf(id, false)));
  // What is newer stands behind what is older: nothing is appended to a pack while there is a larger one.
  MutexLock lock(mu_);
  if (open_ != nullptr && open_->id != known_.rbegin()->first) given_up_.insert(std::exchange(open_, nullptr)->id);
  return absl::OkStatus();
}

// What is in it counts for all who ask how much there is, and can be read once it may be opened.
uint64_t FileStore::CannotBeOpened(const std::string& path, const absl::Status& why) {
  Problem(fmt::format("{} cannot be opened: {}", path, MessageOf(why)));
  return files_.SizeOf(path).value_or(options_.seal_bytes);
}

absl::Status FileStore::RecoverOpenPack(uint64_t id, bool seal) {
  const std::string path = PathOf(id, false);
  auto pack = std::make_shared<Pack>();
  pack->id = id;
  absl::StatusOr<std::unique_ptr<File>> file = files_.OpenForWriting(path);
  // A file system that has become read-only, or a right that is missing: what is there can be read.
  absl::Status written = absl::IsNotFound(file.status()) ? absl::OkStatus() : file.status();
  if (!written.ok()) file = files_.OpenForReading(path);
  absl::StatusOr<uint64_t> opened = file.ok() ? (*file)->Size() : file.status();
  if (!opened.ok()) {
    if (seal && !IsUnsealed(id)) return absl::OkStatus();  // it was sealed or removed meanwhile
    const uint64_t size = CannotBeOpened(path, opened.status());
    MutexLock lock(mu_);
    known_[id].size = size;
    given_up_.insert(id);
    return absl::OkStatus();
  }
  pack->file = *std::move(file);
  const uint64_t file_bytes = *opened;
  const auto remove = [&] {
    if (const absl::Status removed = files_.Remove(path); !removed.ok())
      Problem(fmt::format("{} holds nothing and cannot be removed: {}", path, MessageOf(removed)));
    MutexLock lock(mu_);
    known_.erase(id);
    return absl::OkStatus();
  };
  if (file_bytes < format::kPackHeaderBytes) return remove();  // the crash came before the header was whole

  Gaps gaps;  // places that the disk cannot read
  absl::StatusOr<format::PackScanner> scanner = format::PackScanner::Open(Around(pack->file, id, gaps), file_bytes);
  if (!scanner.ok() && !absl::IsDataLoss(scanner.status()) && !absl::IsFailedPrecondition(scanner.status())) return scanner.status();
  if (!scanner.ok() || scanner->header().pack_id != id) {
    // A power cut may leave the size of a file without what was written to it.
    if (!gaps.any && absl::IsDataLoss(scanner.status()) && IsAllZeros(*pack->file, file_bytes)) {
      if (file_bytes > kUnsyncedBytes) {
        Problem(fmt::format("{} held {} bytes of zeros: nothing that was written to it has reached the disk", path, file_bytes));
        MutexLock lock(mu_);
        cut_bytes_ += file_bytes;
      }
      return remove();
    }
    Problem(fmt::format("{} is left alone: {}", path, scanner.ok() ? "its header names another pack" : MessageOf(scanner.status())));
    MutexLock lock(mu_);
    known_[id].size = known_[id].synced = file_bytes;  // nothing was written to it
    return absl::OkStatus();
  }
  // A failed sync of an earlier start may have lost what is still cached, and the kernel says nothing of it any more: whatever counts
  // from here on is written again, as it was proven, and synced.
  pack->tag = scanner->header().tag;
  std::array<std::byte, format::kPackHeaderBytes> header;
  format::EncodePackHeader(scanner->header(), header);
  if (written.ok()) written = pack->file->WriteAt(0, header, {});
  for (;;) {
    LF_ASSIGN_OR_RETURN(const auto record, scanner->Next());
    if (!record.has_value()) break;
    std::array<std::byte, format::kRecordHeaderBytes> bytes;
    format::EncodeRecordHeader(record->header, pack->tag, bytes);
    if (written.ok()) written = pack->file->WriteAt(record->offset, bytes, record->payload);
    pack->footer = record->header.type == format::RecordType::kFooter;
    pack->records += 1;
    if (record->header.type == format::RecordType::kChunk) pack->chunks += 1;
  }
  pack->size = scanner->end_of_records();
  uint64_t damaged = scanner->damaged_bytes();
  if (gaps.any && !pack->footer) {
    // What cannot be read at the end may have been acknowledged: that is no torn tail.
    damaged += file_bytes - pack->size;
    pack->size = file_bytes;
  }
  pack->written_back = pack->size;
  pack->new_name = true;
  if (damaged > 0) Problem(fmt::format("{} has {} damaged bytes", path, damaged));
  if (written.ok() && pack->size < file_bytes) written = pack->file->Truncate(pack->size);
  {
    MutexLock lock(mu_);
    Known& known = known_[id];  // who holds it goes on
    if (!std::exchange(known.counted, true)) {
      damaged_bytes_ += damaged;
      cut_bytes_ += file_bytes - pack->size;
    }
    known.size = pack->size;
    known.tag = pack->tag;
  }
  if (written.ok()) written = KeepOrSeal(pack, seal || damaged > 0);
  if (!written.ok()) GiveUp(*pack, written);
  return absl::OkStatus();
}

bool FileStore::IsUnsealed(uint64_t id) {
  MutexLock lock(mu_);
  const auto at = known_.find(id);
  return at != known_.end() && !at->second.sealed;
}

// It is read, as one that a failed sync ended.
void FileStore::GiveUp(const Pack& pack, const absl::Status& why) {
  Problem(fmt::format("{} is not appended to: {}", PathOf(pack.id, false), MessageOf(why)));
  MutexLock lock(mu_);
  if (!pack.renamed) given_up_.insert(pack.id);
}

absl::Status FileStore::KeepOrSeal(const std::shared_ptr<Pack>& pack, bool seal) {
  std::shared_ptr<Pack> to_seal = pack;
  // Appended to again, unless something is strange about it; only the newest can stay open.
  if (!pack->footer && !seal) {
    LF_RETURN_IF_ERROR(SyncPack(*pack));
    MutexLock lock(mu_);
    std::swap(open_, to_seal);
  }
  if (to_seal == nullptr) return absl::OkStatus();
  absl::Status sealed = to_seal->footer ? absl::OkStatus() : WriteFooter(*to_seal);
  if (sealed.ok()) sealed = SyncPack(*to_seal);
  if (sealed.ok() || to_seal == pack) return sealed;
  GiveUp(*to_seal, sealed);  // that is the older one's trouble: this one is open
  return absl::OkStatus();
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
    const auto it = known_.find(pack);
    if (it == known_.end()) return NoSuchPack(pack);
    size = it->second.size;
  }
  LF_ASSIGN_OR_RETURN(const Reader reader, ReaderOf(pack));
  Gaps gaps;  // they are damage, and counted as such
  const format::PackScanner::ReadAt read = Around(reader.file, pack, gaps);
  absl::StatusOr<format::PackScanner> opened = format::PackScanner::Open(read, size);
  // A header says nothing that is not known by now.
  const bool headless = absl::IsDataLoss(opened.status());
  if (headless) opened = format::PackScanner::OpenBehindHeader(read, size, {.pack_id = pack, .tag = reader.tag});
  LF_ASSIGN_OR_RETURN(format::PackScanner scanner, std::move(opened));
  PackScan scan;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const auto record, scanner.Next());
    if (!record.has_value()) break;
    if (record->header.type == format::RecordType::kFooter) continue;
    ++scan.records;
    LF_RETURN_IF_ERROR(visit({.pack = pack, .offset = record->offset}, *record));
  }
  scan.damaged_bytes = scanner.damaged_bytes() + (size - std::min(size, scanner.end_of_records()));
  scan.unknown_bytes = scan.damaged_bytes - scanner.damaged_in_chunks();
  if (headless) scan.damaged_bytes += format::kPackHeaderBytes;
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
