// A store in a local directory: packs that are appended to, fsynced, and sealed by rename. common/format/FORMAT.md has the bytes.
//
// One pack is open at a time for all uploads together, so that one fsync serves all who wait. Appends are serialised by a turn, not by
// a lock: no I/O happens under mu_. Fsync, sealing and removal of the pack from the dirty list are the syncer's, of which there is one
// at a time: whoever finds nobody syncing does it for all.
//
// What a crash leaves (crash points in brackets), and what Open does about it:
//   N.open with a torn tail [store.after_append]      -> cut to the good prefix, appended to again
//   N.open with a footer [store.seal.after_footer, store.seal.after_sync]  -> renamed
//   N.pack whose name was not synced [store.seal.after_rename]             -> either name is fine
//   N.open without a whole header [store.after_create]                     -> removed
// Lock order: mu_ alone; readers_mu_ alone. Memory: a few file descriptors.
#ifndef LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_
#define LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/turn.h"
#include "controller/store/file_system.h"
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
  absl::Status RecoverOpenPack(uint64_t id);
  absl::StatusOr<std::shared_ptr<Pack>> CreatePack(uint64_t id);
  // REQUIRES: the caller has the turn.
  absl::Status WriteFooter(Pack& pack);
  absl::Status SyncPack(Pack& pack);
  absl::Status CheckReserve(uint64_t bytes);
  absl::StatusOr<Placed> Append(const format::RecordHeader& header, ByteView payload, bool respect_reserve);
  absl::StatusOr<Placed> AppendInTurn(const format::RecordHeader& header, ByteView payload);
  absl::StatusOr<Reader> ReaderOf(uint64_t pack);
  void Problem(std::string text) ABSL_LOCKS_EXCLUDED(mu_);
  std::string PathOf(uint64_t id, bool sealed) const;

  const FileStoreOptions options_;
  const std::string packs_directory_;
  const Clock& clock_;
  FileSystem& files_;

  Turn appending_;  // taken before mu_
  Mutex mu_;
  CondVar synced_;
  bool syncing_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<Pack> open_ ABSL_GUARDED_BY(mu_);              // what it points to: the appender, under mu_
  std::list<std::shared_ptr<Pack>> dirty_ ABSL_GUARDED_BY(mu_);  // oldest first; holds open_ when it has unsynced bytes
  uint64_t appended_ ABSL_GUARDED_BY(mu_) = 0;                   // records, since the start
  uint64_t durable_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t next_pack_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, Known> known_ ABSL_GUARDED_BY(mu_);
  uint64_t free_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // estimate, refreshed by time and bytes
  uint64_t free_trusted_ ABSL_GUARDED_BY(mu_) = 0;
  SteadyTime free_read_at_ ABSL_GUARDED_BY(mu_){};
  uint64_t damaged_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> problems_ ABSL_GUARDED_BY(mu_);

  Mutex readers_mu_;
  std::map<uint64_t, Reader> readers_ ABSL_GUARDED_BY(readers_mu_);  // a cache of at most kMaxReaders
  uint64_t reader_uses_ ABSL_GUARDED_BY(readers_mu_) = 0;
};

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_FILE_STORE_H_
