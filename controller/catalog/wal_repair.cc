#include "controller/catalog/wal_repair.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_map.h"
#include "common/base/bytes.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

constexpr size_t kWalHeader = 32;
constexpr size_t kFrameHeader = 24;
constexpr uint32_t kMagic = 0x377f0682;  // its lowest bit: checksums are of big-endian words
constexpr int kIndexRegion = 32 << 10;
constexpr int kCheckpointLock = 1;  // of the wal-index

absl::Status Said(int rc, std::string_view what) { return sqlite::ToStatus(rc, nullptr, what); }

struct Checksum {
  bool big = false;
  uint32_t first = 0;
  uint32_t second = 0;

  void Add(ByteView words) {
    for (size_t at = 0; at + 8 <= words.size(); at += 8) {
      first += Word(words.data() + at) + second;
      second += Word(words.data() + at + 4) + first;
    }
  }
  uint32_t Word(const std::byte* at) const { return big ? LoadBigEndian<uint32_t>(at) : LoadLittleEndian<uint32_t>(at); }
  bool Is(const std::byte* at) const { return LoadBigEndian<uint32_t>(at) == first && LoadBigEndian<uint32_t>(at + 4) == second; }
};

// The wal-index is in the order of the machine's bytes.
struct WalIndex {
  uint32_t frames = 0;      // up to the newest commit
  uint32_t pages = 0;       // of the database, then
  uint32_t backfilled = 0;  // frames that checkpoints have copied
};

absl::StatusOr<WalIndex> ReadIndex(sqlite3_file* database) {
  void volatile* region = nullptr;
  const int rc = database->pMethods->xShmMap(database, 0, kIndexRegion, 0, &region);
  LF_RETURN_IF_ERROR(Said(rc, "look at the catalog's wal-index"));
  if (region == nullptr) return WalIndex();
  const auto* words = static_cast<const volatile uint32_t*>(region);
  return WalIndex{.frames = words[16 / 4], .pages = words[20 / 4], .backfilled = words[96 / 4]};
}

class Repair {
 public:
  Repair(sqlite3_file* database, sqlite3_file* wal, WalIndex index) : database_(database), wal_(wal), index_(index) {}

  absl::Status Run() {
    LF_RETURN_IF_ERROR(WriteWal());
    LF_RETURN_IF_ERROR(Said(wal_->pMethods->xSync(wal_, SQLITE_SYNC_NORMAL), "sync the catalog's WAL anew"));
    if (copied_.empty()) return absl::OkStatus();
    LF_RETURN_IF_ERROR(WriteDatabase());
    return Said(database_->pMethods->xSync(database_, SQLITE_SYNC_NORMAL), "sync the catalog anew");
  }

 private:
  static absl::Status Damaged(std::string_view what) {
    return Error(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                 fmt::format("the disk failed, and {} of the catalog's WAL is not what was written", what),
                 "restart the controller: the catalog goes on with what was durable; look at the disk");
  }
  absl::Status Read(Bytes& bytes, uint64_t at) {
    const int rc = wal_->pMethods->xRead(wal_, bytes.data(), static_cast<int>(bytes.size()), static_cast<sqlite3_int64>(at));
    if (rc == SQLITE_IOERR_SHORT_READ) return Damaged("the end");
    return Said(rc, "read the catalog's WAL");
  }
  absl::Status WriteAgain(const Bytes& bytes, uint64_t at) {
    const int rc = wal_->pMethods->xWrite(wal_, bytes.data(), static_cast<int>(bytes.size()), static_cast<sqlite3_int64>(at));
    return Said(rc, "write the catalog's WAL anew");
  }
  uint64_t PlaceOf(uint32_t frame) const { return kWalHeader + uint64_t{frame - 1} * (kFrameHeader + page_size_); }

  absl::Status WriteWal() {
    Bytes header(kWalHeader);
    LF_RETURN_IF_ERROR(Read(header, 0));
    const auto magic = LoadBigEndian<uint32_t>(header.data());
    page_size_ = LoadBigEndian<uint32_t>(header.data() + 8);
    Checksum sum{.big = (magic & 1) != 0};
    sum.Add(ByteView(header).first(24));
    if ((magic & ~1u) != kMagic || !sum.Is(header.data() + 24) || page_size_ < 512 || page_size_ > 65536) return Damaged("the header");
    LF_RETURN_IF_ERROR(WriteAgain(header, 0));
    Bytes frame(kFrameHeader + page_size_);
    for (uint32_t number = 1; number <= index_.frames; ++number) {
      LF_RETURN_IF_ERROR(Read(frame, PlaceOf(number)));
      const ByteView bytes(frame);
      sum.Add(bytes.first(8));
      sum.Add(bytes.subspan(kFrameHeader));
      const bool same_salts = std::equal(header.begin() + 16, header.begin() + 24, frame.begin() + 8);
      if (!same_salts || !sum.Is(frame.data() + 16)) return Damaged(fmt::format("frame {}", number));
      LF_RETURN_IF_ERROR(WriteAgain(frame, PlaceOf(number)));
      const auto page = LoadBigEndian<uint32_t>(frame.data());
      if (number <= index_.backfilled && page >= 1 && page <= index_.pages) copied_[page] = number;
    }
    return absl::OkStatus();
  }

  absl::Status WriteDatabase() {
    Bytes frame(kFrameHeader + page_size_);
    for (const auto& [page, number] : copied_) {
      LF_RETURN_IF_ERROR(Read(frame, PlaceOf(number)));
      const int rc = database_->pMethods->xWrite(database_, frame.data() + kFrameHeader, static_cast<int>(page_size_),
                                                 static_cast<sqlite3_int64>(uint64_t{page - 1} * page_size_));
      LF_RETURN_IF_ERROR(Said(rc, "write the catalog anew"));
    }
    return absl::OkStatus();
  }

  sqlite3_file* const database_;
  sqlite3_file* const wal_;
  const WalIndex index_;
  uint32_t page_size_ = 0;
  absl::flat_hash_map<uint32_t, uint32_t> copied_;  // the newest of these frames, by page
};

absl::Status RepairInTransaction(sqlite3* db) {
  sqlite3_file* database = nullptr;
  sqlite3_file* wal = nullptr;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &database);
  sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  if (database == nullptr || database->pMethods == nullptr || wal == nullptr || wal->pMethods == nullptr) {
    return Error(absl::StatusCode::kInternal, "IO_ERROR", "the catalog has no WAL");
  }
  const auto lock = [&](int flags) { return database->pMethods->xShmLock(database, kCheckpointLock, 1, flags | SQLITE_SHM_EXCLUSIVE); };
  LF_RETURN_IF_ERROR(Said(lock(SQLITE_SHM_LOCK), "lock the catalog"));
  const auto unlock = absl::MakeCleanup([&] { lock(SQLITE_SHM_UNLOCK); });
  LF_ASSIGN_OR_RETURN(const WalIndex index, ReadIndex(database));
  if (index.frames == 0) return absl::OkStatus();
  return Repair(database, wal, index).Run();
}

}  // namespace

absl::Status MakeDurableAgain(sqlite3* db) {
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "begin immediate"));
  const absl::Status repaired = RepairInTransaction(db);
  const absl::Status ended = sqlite::Execute(db, "rollback");
  return repaired.ok() ? ended : repaired;
}

}  // namespace litefleet::catalog
