// A store in a local directory: packs that are appended to, fsynced, and sealed by rename. common/format/FORMAT.md has the bytes.
//
// One pack is open at a time for all uploads together, so that one fsync serves all who wait. Appends are serialised by a turn, not by
// a lock: no I/O happens under mu_. Fsync, sealing and removal of the pack from the dirty list are the syncer's, of which there is one
// at a time: whoever finds nobody syncing does it for all.
//
// What a crash leaves (crash points in brackets), and what Open does about it, once it has written again and synced what it found:
//   N.open with a torn tail [store.after_append]      -> cut to the good prefix, appended to again
//   N.open with a footer [store.seal.after_footer, store.seal.after_sync]  -> renamed
//   N.pack whose name was not synced [store.seal.after_rename]             -> either name is fine
//   N.open without a whole header [store.after_create], or of nothing but zeros  -> removed
//   N.open of which a place cannot be read                                 -> sealed as it is
//   N.open, N.pack that cannot be opened                                   -> known, and told
// Lock order: mu_ alone; readers_mu_ alone. Memory: a few file descriptors.
#ifndef LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_
#define LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/turn.h"
#include "controller/store/file_system.h"
#include "controller/store/read_around.h"
#include "controller/store/store.h"

namespace litefleet::store {

struct FileStoreOptions {
  std::string directory;  // DATA/store; made when missing
  uint64_t seal_bytes = 128ull << 20;
  uint64_t seal_records = 131072;
  uint64_t reserve_bytes = 512ull << 20;  // of free space that ingest does not eat
  uint64_t writeback_bytes = 4ull << 20;  // the kernel is told to write after so many
  uint64_t first_pack_id = 1;             // at least this: what the catalog knows of may be gone from the disk
};

class FileStore final : public Store {
 public:
  // Recovers the open packs. `clock` and `files` outlive the store. Errors: of the file system; a pack that cannot be used is not one.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(FileStoreOptions options, const Clock& clock,
                                                         FileSystem& files = PosixFileSystem());
  // What is not durable may be lost. REQUIRES: no call is running.
  ~FileStore() override = default;

  absl::StatusOr<Placed> PutChunk(const ChunkToPut& chunk) override;
  absl::StatusOr<Placed> PutRecord(format::RecordType type, ByteView payload) override;
  absl::Status Sync(uint64_t epoch) override;
  absl::StatusOr<StoredRecord> Read(const Location& location) override;
  absl::Status ForEachRecord(absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) override;
  std::vector<PackInfo> Packs() override;
  absl::StatusOr<PackScan> ScanPack(uint64_t pack,
                                    absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) override;
  absl::Status SealOpenPack() override;
  void SealGivenUpPacks() override;
  absl::Status RemovePack(uint64_t pack) override;
  void ForgetCached(uint64_t pack) override;
  absl::Status CheckSpace() override;
  absl::StatusOr<StoreStats> Stats() override;

 private:
  struct Pack {
    uint64_t id = 0;
    uint64_t tag = 0;
    std::shared_ptr<File> file;
    uint64_t size = 0;  // the end of the last good record
    uint64_t records = 0;
    uint64_t chunks = 0;
    uint64_t written_back = 0;
    bool new_name = false;  // the directory must be synced with it
    bool footer = false;    // to be renamed after the next fsync
    bool renamed = false;   // a pack may be in two batches of syncs when it is sealed beside one
  };
  struct Known {
    bool sealed = false;
    uint64_t size = 0;
    std::optional<uint64_t> tag = std::nullopt;  // of one that was open here
    uint64_t synced = 0;   // of one that is not sealed: its first bytes, which are on the disk and not written any more
    bool counted = false;  // what is damaged in it, or was cut off it, is among the bytes below
    PackHold hold = std::make_shared<char>();
    bool held() const { return hold.use_count() > 1; }
  };
  struct Reader {
    std::shared_ptr<File> file;
    uint64_t tag = 0;
    uint64_t used = 0;
  };

  FileStore(FileStoreOptions options, const Clock& clock, FileSystem& files);
  absl::Status Recover();
  // `seal`: it is not appended to again.
  absl::Status RecoverOpenPack(uint64_t id, bool seal);
  // Tells it; how large the file is, or at most.
  uint64_t CannotBeOpened(const std::string& path, const absl::Status& why);
  absl::Status KeepOrSeal(const std::shared_ptr<Pack>& pack, bool seal);
  void GiveUp(const Pack& pack, const absl::Status& why);
  static absl::Status NoSuchPack(uint64_t id);
  bool IsUnsealed(uint64_t pack) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<Pack>> CreatePack(uint64_t id);
  // REQUIRES: the caller has the turn, or nobody else writes to the pack any more.
  absl::Status WriteFooter(Pack& pack);
  absl::Status SyncPack(Pack& pack);
  absl::Status CheckReserve(uint64_t bytes);
  absl::StatusOr<Placed> Append(const format::RecordHeader& header, ByteView payload, bool respect_reserve);
  absl::StatusOr<Placed> AppendInTurn(const format::RecordHeader& header, ByteView payload);
  absl::StatusOr<Reader> ReaderOf(uint64_t pack);
  // Whether the disk gives anything, of this pack's file or another: not while it is gone, whatever is cached.
  bool Answers(File& file, uint64_t pack);
  // As ReadAt; bytes that the disk cannot give, while it gives others, are kDataLoss CHUNK_DAMAGED.
  absl::StatusOr<size_t> ReadSound(File& file, uint64_t pack, uint64_t offset, std::span<std::byte> out);
  // What the disk cannot give is damage to the scanner, and `gaps` knows of it. `gaps` outlives the scanner.
  format::PackScanner::ReadAt Around(const std::shared_ptr<File>& file, uint64_t pack, Gaps& gaps);
  // Of a pack whose file this is; where its header is damaged, by what else says it.
  absl::StatusOr<uint64_t> TagOf(File& file, uint64_t pack, bool sealed);
  void Problem(std::string text) ABSL_LOCKS_EXCLUDED(mu_);
  std::string PathOf(uint64_t id, bool sealed) const;

  const FileStoreOptions options_;
  const std::string packs_directory_;
  const Clock& clock_;
  FileSystem& files_;

  Turn appending_;  // taken before mu_
  Mutex mu_;
  // Whoever needs the sync that runs waits on one of them, and who came too late for it on the other.
  std::array<CondVar, 2> synced_;
  CondVar lingering_;  // nobody signals it
  bool syncing_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t sync_number_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sync_upto_ ABSL_GUARDED_BY(mu_) = 0;                  // what the one that runs makes durable
  size_t callers_ ABSL_GUARDED_BY(mu_) = 0;                      // since the last one began
  size_t last_callers_ ABSL_GUARDED_BY(mu_) = 0;                 // of the last one
  std::shared_ptr<Pack> open_ ABSL_GUARDED_BY(mu_);              // what it points to: the appender, under mu_
  std::list<std::shared_ptr<Pack>> dirty_ ABSL_GUARDED_BY(mu_);  // oldest first; holds open_ when it has unsynced bytes
  uint64_t appended_ ABSL_GUARDED_BY(mu_) = 0;                   // records, since the start
  uint64_t durable_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t next_pack_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, Known> known_ ABSL_GUARDED_BY(mu_);
  std::set<uint64_t> given_up_ ABSL_GUARDED_BY(mu_);  // not sealed, and not appended to any more
  uint64_t free_bytes_ ABSL_GUARDED_BY(mu_) = 0;      // estimate, refreshed by time and bytes
  uint64_t free_trusted_ ABSL_GUARDED_BY(mu_) = 0;
  SteadyTime free_read_at_ ABSL_GUARDED_BY(mu_){};
  uint64_t damaged_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t cut_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> problems_ ABSL_GUARDED_BY(mu_);

  Mutex readers_mu_;
  std::map<uint64_t, Reader> readers_ ABSL_GUARDED_BY(readers_mu_);  // a cache of at most kMaxReaders
  uint64_t reader_uses_ ABSL_GUARDED_BY(readers_mu_) = 0;
};

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_
