#include "controller/store/file_store.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/store_names.h"
#include "controller/store/pack_footer.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::store {
namespace {

constexpr auto kFreeSpaceAge = std::chrono::milliseconds(500);
constexpr uint64_t kFreeSpaceStretch = 1 << 20;  // others fill the disk too: after so many bytes the file system is asked again
constexpr size_t kMaxProblems = 100;
// A sync that so many asked for at once lets more come: each of them waits for many others anyway.
constexpr size_t kCrowd = 8;
constexpr auto kLinger = std::chrono::milliseconds(3);

absl::Status DiskFull(uint64_t free, uint64_t reserve) {
  return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
               fmt::format("the store has {} MiB free and keeps {} MiB in reserve", free >> 20, reserve >> 20),
               "free some space at the controller, or give the store a larger file system");
}

absl::Status StoreFailed() {
  return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store could not make written data durable",
               "look at the controller's log and disk; the backup will be tried again");
}

}  // namespace

FileStore::FileStore(FileStoreOptions options, const Clock& clock, FileSystem& files)
    : options_(std::move(options)),
      packs_directory_(fmt::format("{}/{}", options_.directory, format::kPacksDirectory)),
      clock_(clock),
      files_(files) {}

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(FileStoreOptions options, const Clock& clock, FileSystem& files) {
  std::unique_ptr<FileStore> store(new FileStore(std::move(options), clock, files));
  LF_RETURN_IF_ERROR(files.MakeDirectory(store->packs_directory_));
  LF_RETURN_IF_ERROR(Annotate(store->Recover(), "open the store " + store->options_.directory));
  return store;
}

std::string FileStore::PathOf(uint64_t id, bool sealed) const { return packs_directory_ + "/" + format::MakePackFileName(id, sealed); }

void FileStore::Problem(std::string text) {
  MutexLock lock(mu_);
  const bool told = std::find(problems_.begin(), problems_.end(), text) != problems_.end();
  if (!told && problems_.size() < kMaxProblems) problems_.push_back(std::move(text));
}

absl::StatusOr<std::shared_ptr<FileStore::Pack>> FileStore::CreatePack(uint64_t id) {
  auto pack = std::make_shared<Pack>();
  pack->id = id;
  const std::string path = PathOf(id, false);
  LF_ASSIGN_OR_RETURN(pack->file, files_.Create(path));
  LF_CRASH_POINT("store.after_create");
  std::array<std::byte, sizeof pack->tag> random;
  RandomBytes(random);
  pack->tag = LoadLittleEndian<uint64_t>(random.data());
  std::array<std::byte, format::kPackHeaderBytes> header;
  format::EncodePackHeader({.features = 0, .pack_id = id, .tag = pack->tag, .created_at_ms = ToUnixMillis(clock_.Now())}, header);
  if (const absl::Status status = pack->file->WriteAt(0, header, {}); !status.ok()) {
    files_.Remove(path).IgnoreError();  // else the next start removes it
    return status;
  }
  pack->size = header.size();
  pack->written_back = 0;
  pack->new_name = true;
  return pack;
}

absl::StatusOr<Placed> FileStore::PutChunk(const ChunkToPut& chunk) {
  format::RecordHeader header;
  header.type = format::RecordType::kChunk;
  header.codec = chunk.codec;
  header.stored_bytes = static_cast<uint32_t>(chunk.stored.size());
  header.raw_bytes = chunk.page_size * chunk.page_count;
  header.page_size = chunk.page_size;
  header.page_count = chunk.page_count;
  header.name = chunk.name;
  if (chunk.stored.size() > format::kMaxChunkPayload) {
    return Error(absl::StatusCode::kInvalidArgument, "CHUNK_TOO_LARGE", fmt::format("a chunk of {} bytes", chunk.stored.size()));
  }
  return Append(header, chunk.stored, /*respect_reserve=*/!chunk.may_use_reserve);
}

absl::StatusOr<Placed> FileStore::PutRecord(format::RecordType type, ByteView payload) {
  if (payload.size() > format::kMaxRecordPayload) {
    return Error(absl::StatusCode::kInvalidArgument, "RECORD_TOO_LARGE", fmt::format("a record of {} bytes", payload.size()));
  }
  format::RecordHeader header;
  header.type = type;
  header.stored_bytes = header.raw_bytes = static_cast<uint32_t>(payload.size());
  return Append(header, payload, /*respect_reserve=*/type == format::RecordType::kManifestPart);
}

absl::Status FileStore::CheckReserve(uint64_t bytes) {
  const SteadyTime now = clock_.Steady();
  {
    MutexLock lock(mu_);
    if (now - free_read_at_ < kFreeSpaceAge && free_trusted_ >= bytes && free_bytes_ >= options_.reserve_bytes + bytes) {
      free_bytes_ -= bytes;
      free_trusted_ -= bytes;
      return absl::OkStatus();
    }
  }
  const absl::StatusOr<uint64_t> found = files_.FreeBytes(packs_directory_);
  if (!found.ok()) {
    return Error(absl::StatusCode::kInternal, "STORE_UNREACHABLE",
                 fmt::format("the store's directory cannot be used: {}", MessageOf(found.status())),
                 "mount it or put it back; what was acknowledged is in it, and backups go on at their next try");
  }
  const uint64_t free = *found;
  MutexLock lock(mu_);
  free_bytes_ = free;
  free_read_at_ = now;
  free_trusted_ = kFreeSpaceStretch;
  if (free < options_.reserve_bytes + bytes) return DiskFull(free, options_.reserve_bytes);
  free_bytes_ -= bytes;
  return absl::OkStatus();
}

absl::Status FileStore::CheckSpace() { return CheckReserve(0); }

absl::StatusOr<Placed> FileStore::Append(const format::RecordHeader& header, ByteView payload, bool respect_reserve) {
  format::RecordHeader complete = header;
  complete.payload_crc = format::Crc32c(payload);
  if (respect_reserve) LF_RETURN_IF_ERROR(CheckReserve(payload.size() + format::kRecordHeaderBytes));
  const Turn::Holder turn(appending_);
  return AppendInTurn(complete, payload);
}

absl::StatusOr<Placed> FileStore::AppendInTurn(const format::RecordHeader& header, ByteView payload) {
  const uint64_t need = format::kRecordHeaderBytes + payload.size();
  std::shared_ptr<Pack> pack;
  uint64_t epoch;
  uint64_t next_id;
  {
    MutexLock lock(mu_);
    pack = open_;
    epoch = epoch_;
    next_id = next_pack_;
  }
  if (pack != nullptr && pack->records > 0 && (pack->size + need > options_.seal_bytes || pack->records >= options_.seal_records)) {
    LF_RETURN_IF_ERROR(WriteFooter(*pack));
    LF_CRASH_POINT("store.seal.after_footer");
    MutexLock lock(mu_);
    if (open_ == pack) {
      open_ = nullptr;
      if (std::find(dirty_.begin(), dirty_.end(), pack) == dirty_.end()) dirty_.push_back(pack);
    }
    pack = nullptr;
  }
  if (pack == nullptr) {
    {
      // Also where it fails: what is left of the file may stay, and must not be in the way of the next one.
      MutexLock lock(mu_);
      next_pack_ = next_id + 1;
    }
    LF_ASSIGN_OR_RETURN(pack, CreatePack(next_id));
    MutexLock lock(mu_);
    open_ = pack;
    known_[pack->id] = {.sealed = false, .size = pack->size, .tag = pack->tag};
  }
  std::array<std::byte, format::kRecordHeaderBytes> bytes;
  format::EncodeRecordHeader(header, pack->tag, bytes);
  // A failed write leaves bytes behind the end, which the next one overwrites and a recovery cuts off.
  LF_RETURN_IF_ERROR(pack->file->WriteAt(pack->size, bytes, payload));
  LF_CRASH_POINT("store.after_append");
  Placed placed{.location = {.pack = pack->id, .offset = pack->size}, .epoch = epoch, .hold = {}};
  uint64_t back_from = 0;
  uint64_t back_size = 0;
  {
    MutexLock lock(mu_);
    if (epoch_ != epoch) return StoreFailed();  // this pack was given up while we wrote
    pack->size += need;
    pack->records += 1;
    if (header.type == format::RecordType::kChunk) pack->chunks += 1;
    Known& known = known_[pack->id];
    known.size = pack->size;
    placed.hold = known.hold;
    if (std::find(dirty_.begin(), dirty_.end(), pack) == dirty_.end()) dirty_.push_back(pack);
    ++appended_;
    if (pack->size - pack->written_back >= options_.writeback_bytes) {
      back_from = pack->written_back;
      back_size = (pack->size - back_from) & ~uint64_t{4095};
      pack->written_back += back_size;
    }
  }
  if (back_size > 0) pack->file->StartWriteback(back_from, back_size);
  return placed;
}

absl::Status FileStore::WriteFooter(Pack& pack) {
  format::RecordHeader header;
  header.type = format::RecordType::kFooter;
  storage::v1::PackFooter footer;
  footer.set_records(pack.records);
  footer.set_chunks(pack.chunks);
  footer.set_bytes(pack.size);
  footer.set_sealed_at_ms(ToUnixMillis(clock_.Now()));
  const std::string payload = footer.SerializeAsString();
  header.stored_bytes = header.raw_bytes = static_cast<uint32_t>(payload.size());
  header.payload_crc = format::Crc32c(AsBytes(payload));
  std::array<std::byte, format::kRecordHeaderBytes> bytes;
  format::EncodeRecordHeader(header, pack.tag, bytes);
  LF_RETURN_IF_ERROR(pack.file->WriteAt(pack.size, bytes, AsBytes(payload)));
  // A write that failed may have left more behind it: in a sealed pack that would count as damage for ever.
  LF_RETURN_IF_ERROR(pack.file->Truncate(pack.size + bytes.size() + payload.size()));
  MutexLock lock(mu_);
  pack.size += bytes.size() + payload.size();
  pack.footer = true;
  known_[pack.id].size = pack.size;
  return absl::OkStatus();
}

absl::Status FileStore::SyncPack(Pack& pack) {
  bool footer;
  bool new_name;
  uint64_t size;
  {
    MutexLock lock(mu_);
    footer = pack.footer && !pack.renamed;
    new_name = pack.new_name;
    size = pack.size;
  }
  LF_CRASH_POINT("store.before_sync");
  LF_RETURN_IF_ERROR(pack.file->Sync());
  {
    MutexLock lock(mu_);
    known_[pack.id].synced = size;
  }
  if (footer) {
    LF_CRASH_POINT("store.seal.after_sync");
    LF_RETURN_IF_ERROR(files_.Rename(PathOf(pack.id, false), PathOf(pack.id, true)));
    LF_CRASH_POINT("store.seal.after_rename");
    MutexLock lock(mu_);
    pack.renamed = true;
    known_[pack.id].sealed = true;
  }
  if (footer || new_name) LF_RETURN_IF_ERROR(files_.SyncDirectory(packs_directory_));
  LF_CRASH_POINT("store.after_sync");
  MutexLock lock(mu_);
  pack.new_name = false;
  return absl::OkStatus();
}

absl::Status FileStore::Sync(uint64_t epoch) {
  std::list<std::shared_ptr<Pack>> batch;
  uint64_t upto = 0;
  {
    MutexLock lock(mu_);
    const uint64_t target = appended_;
    ++callers_;
    for (;;) {
      if (epoch_ != epoch) return StoreFailed();
      if (durable_ >= target) return absl::OkStatus();
      if (!syncing_) break;
      synced_[(sync_number_ + (target <= sync_upto_ ? 0 : 1)) % 2].Wait(mu_);
    }
    syncing_ = true;
    sync_upto_ = UINT64_MAX;
    // Where many came together the last time some more are on their way: they share this one. Who is alone waits for nobody.
    if (last_callers_ >= kCrowd) {
      const auto until = std::chrono::steady_clock::now() + kLinger;
      while (std::chrono::steady_clock::now() < until) lingering_.WaitUntil(mu_, until);
    }
    last_callers_ = std::exchange(callers_, 0);
    sync_upto_ = upto = appended_;
    batch.swap(dirty_);
  }
  absl::Status status = absl::OkStatus();
  for (const auto& pack : batch) {
    if (status.ok()) status = SyncPack(*pack);
  }
  if (!status.ok()) Problem("sync of the store failed: " + MessageOf(status));
  MutexLock lock(mu_);
  syncing_ = false;
  if (status.ok()) {
    durable_ = upto;
  } else {
    // What the kernel could not write it may have forgotten: nothing of these packs is believed beyond what was durable before.
    ++epoch_;
    if (open_ != nullptr) dirty_.push_back(std::exchange(open_, nullptr));
    dirty_.splice(dirty_.end(), batch);
    for (const auto& pack : dirty_)
      if (!pack->renamed) given_up_.insert(pack->id);
    dirty_.clear();
    durable_ = appended_;
  }
  // Those that it was for; and of those that came too late for it one, who does the next for all of them.
  synced_[sync_number_ % 2].SignalAll();
  ++sync_number_;
  status.ok() ? synced_[sync_number_ % 2].Signal() : synced_[sync_number_ % 2].SignalAll();
  return status.ok() ? status : Annotate(StoreFailed(), MessageOf(status));
}

absl::Status FileStore::NoSuchPack(uint64_t id) {
  return Error(absl::StatusCode::kDataLoss, "CHUNK_MISSING", fmt::format("pack {:016x} is not in the store", id),
               "bring the file back, or run a scrub to see which snapshots are affected");
}

absl::StatusOr<FileStore::Reader> FileStore::ReaderOf(uint64_t id) {
  {
    MutexLock lock(readers_mu_);
    if (const auto it = readers_.find(id); it != readers_.end()) {
      it->second.used = ++reader_uses_;
      return it->second;
    }
  }
  bool sealed;
  {
    MutexLock lock(mu_);
    const auto it = known_.find(id);
    sealed = it == known_.end() || it->second.sealed;
  }
  absl::StatusOr<std::unique_ptr<File>> file = files_.OpenForReading(PathOf(id, sealed));
  if (absl::IsNotFound(file.status())) {
    sealed = !sealed;  // at this moment
    file = files_.OpenForReading(PathOf(id, sealed));
  }
  if (absl::IsNotFound(file.status())) return NoSuchPack(id);
  if (!file.ok()) return file.status();
  LF_ASSIGN_OR_RETURN(const uint64_t tag, TagOf(**file, id, sealed));
  constexpr size_t kMaxReaders = 64;
  Reader reader{.file = *std::move(file), .tag = tag, .used = 0};
  {
    MutexLock lock(readers_mu_);
    if (readers_.size() >= kMaxReaders) {
      readers_.erase(
          std::min_element(readers_.begin(), readers_.end(), [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    }
    reader.used = ++reader_uses_;
    readers_[id] = reader;
  }
  // RemovePack may have looked for a reader before this one was there: then the pack is not known any more.
  bool removed;
  {
    MutexLock lock(mu_);
    removed = !known_.contains(id);
  }
  MutexLock lock(readers_mu_);
  if (removed) readers_.erase(id);
  return reader;
}

absl::StatusOr<uint64_t> FileStore::TagOf(File& file, uint64_t id, bool sealed) {
  std::array<std::byte, format::kPackHeaderBytes> bytes;
  const absl::StatusOr<size_t> got = ReadSound(file, id, 0, bytes);
  const auto header = got.ok() ? format::DecodePackHeader(ByteView(bytes).first(*got)) : absl::StatusOr<format::PackHeader>(got.status());
  if (header.ok() && header->pack_id != id) {
    return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED",
                 fmt::format("the file of pack {:016x} holds pack {:016x}", id, header->pack_id));
  }
  if (header.ok()) return header->tag;
  if (!absl::IsDataLoss(header.status())) return header.status();
  std::optional<uint64_t> tag;
  {
    MutexLock lock(mu_);
    if (const auto it = known_.find(id); it != known_.end()) tag = it->second.tag;
  }
  if (!tag.has_value() && sealed) tag = TagFromFooter(file);
  if (!tag.has_value()) return header.status();
  return *tag;
}

bool FileStore::Answers(File& file, uint64_t id) {
  constexpr size_t kOthers = 4;
  // A page of the cache, or several that it keeps together: it is let go only where none of it is to be written.
  constexpr uint64_t kCached = 64 << 10;
  struct Place {
    uint64_t pack;
    bool sealed;
    uint64_t middle;  // a second place, where the first is bad
  };
  bool ask_this = true;
  uint64_t middle = 0;
  std::vector<Place> others;
  {
    MutexLock lock(mu_);
    for (const auto& [other, known] : known_) {
      const uint64_t on_disk = known.sealed ? known.size : known.synced;
      const bool asked = known.sealed || on_disk >= kCached;
      if (other == id) {
        ask_this = asked;
        middle = on_disk / 2;
      } else if (asked) {
        others.push_back({.pack = other, .sealed = known.sealed, .middle = on_disk / 2});
      }
    }
  }
  std::array<std::byte, format::kPackHeaderBytes> bytes;
  const auto gives = [&bytes](File& asked, uint64_t second) {
    asked.DropCache();  // the disk is asked, not the cache
    return asked.ReadAt(0, bytes).ok() || (second > 0 && asked.ReadAt(second, bytes).ok());
  };
  if (ask_this && middle == 0) middle = file.Size().value_or(0) / 2;
  if (ask_this && gives(file, middle)) return true;
  // The bad places may be there.
  if (others.size() > kOthers) others.erase(others.begin(), others.end() - static_cast<std::ptrdiff_t>(kOthers));
  return std::any_of(others.begin(), others.end(), [&](const Place& place) {
    const auto other = files_.OpenForReading(PathOf(place.pack, place.sealed));
    return other.ok() && gives(**other, place.middle);
  });
}

absl::StatusOr<size_t> FileStore::ReadSound(File& file, uint64_t pack, uint64_t offset, std::span<std::byte> out) {
  Gaps gaps;
  LF_ASSIGN_OR_RETURN(const size_t got, ReadAround(
                                            file, offset, out, [&] { return Answers(file, pack); }, gaps));
  if (gaps.any) return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "the disk cannot read it any more", "look at the disk");
  return got;
}

absl::StatusOr<StoredRecord> FileStore::Read(const Location& location) {
  LF_ASSIGN_OR_RETURN(const Reader reader, ReaderOf(location.pack));
  const auto where = [&location] { return fmt::format("pack {:016x} at {}", location.pack, location.offset); };
  std::array<std::byte, format::kRecordHeaderBytes> bytes;
  absl::StatusOr<size_t> got = ReadSound(*reader.file, location.pack, location.offset, bytes);
  if (!got.ok()) return Annotate(got.status(), where());
  if (*got != bytes.size()) return Error(absl::StatusCode::kDataLoss, "CHUNK_MISSING", where() + " is behind the end of the file");
  StoredRecord record;
  absl::StatusOr<format::RecordHeader> header = format::DecodeRecordHeader(bytes, reader.tag);
  if (!header.ok()) return WithReason(Annotate(header.status(), where()), "CHUNK_DAMAGED");
  record.header = *header;
  record.payload.resize(record.header.stored_bytes);
  got = ReadSound(*reader.file, location.pack, location.offset + bytes.size(), std::as_writable_bytes(std::span(record.payload)));
  if (!got.ok()) return Annotate(got.status(), where());
  if (*got != record.payload.size()) return Error(absl::StatusCode::kDataLoss, "CHUNK_MISSING", where() + " is cut off");
  if (const absl::Status status = format::CheckPayload(record.header, AsBytes(record.payload)); !status.ok()) {
    return WithReason(Annotate(status, where()), "CHUNK_DAMAGED");
  }
  return record;
}

absl::StatusOr<StoreStats> FileStore::Stats() {
  StoreStats stats;
  LF_ASSIGN_OR_RETURN(stats.free_bytes, files_.FreeBytes(packs_directory_));
  stats.reserve_bytes = options_.reserve_bytes;
  MutexLock lock(mu_);
  stats.packs = known_.size();
  for (const auto& [id, pack] : known_) stats.stored_bytes += pack.size;
  stats.damaged_bytes = damaged_bytes_;
  stats.cut_bytes = cut_bytes_;
  stats.problems = problems_;
  return stats;
}

}  // namespace litefleet::store
