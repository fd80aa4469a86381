// The controller's backups of its own catalog: a file of the store each, on a schedule, the newest so many kept.
//
// What the packs do not hold is in here: operations that have ended, verdicts of checks and drills, when a device was seen last. `rebuild`
// takes these from the newest one that can be read, after everything else came from the packs (controller/catalog/rebuild_history): no
// chunk, snapshot, certificate or token comes back by a catalog's backup, so an old one can neither let a prune delete what is newer than
// it, nor make valid what was revoked.
//
// A backup: SQLite's copy of one moment into the scratch directory, checked there; from it a file `<id>.writing` in blocks, fsync, read
// back, renamed to `<id>.catalog`, fsync of the directory; only then older ones than the newest `keep` go, by their numbers and never by a
// time. A crash leaves a scratch file or a `.writing` one, which the next backup removes.
//
// Thread safety: all members may be called from any thread. Ownership: borrows the clock and the file system. Memory: a page cache and two
// blocks of 256 KiB. The destructor stops a backup that runs.
#ifndef LITEFLEET_CONTROLLER_BACKUP_CATALOG_BACKUPS_H_
#define LITEFLEET_CONTROLLER_BACKUP_CATALOG_BACKUPS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/turn.h"
#include "controller/store/file_system.h"

namespace litefleet::backup {

struct CatalogBackupOptions {
  std::string catalog;  // the file that is backed up
  std::string store;    // the store's directory; the backups are in a directory of it
  std::string scratch;  // for the copy, as large as the catalog
  std::chrono::milliseconds every = std::chrono::hours(24);
  int keep = 7;                       // at least 1
  uint64_t leave_free = 64ull << 20;  // no backup begins where it would leave less free
  // After each backup: counts the catalog on in the packs, so that the copy is known as one. May be empty.
  std::function<absl::Status()> made;
};

class CatalogBackups {
 public:
  CatalogBackups(CatalogBackupOptions options, const Clock& clock, store::FileSystem& files = store::PosixFileSystem())
      : options_(std::move(options)), clock_(clock), files_(files) {}
  ~CatalogBackups();
  CatalogBackups(const CatalogBackups&) = delete;
  CatalogBackups& operator=(const CatalogBackups&) = delete;

  // Begins the schedule: at once where there is none or the newest is older than `every`.
  void Begin();
  // One now, after one that runs. Errors: those of CopyCatalog and the file system; kResourceExhausted DISK_FULL. What was there stays.
  absl::Status BackUp();

  struct Figures {
    int32_t count = 0;
    int64_t bytes = 0;
    std::optional<SystemTime> newest_at;
    std::string last_error;  // of the newest attempt; empty: it was good
    std::chrono::milliseconds every{0};
    int keep = 0;
  };
  // Errors: of the file system.
  absl::StatusOr<Figures> GetFigures() const;

 private:
  absl::Status BackUpInTurn();
  absl::Status WriteFile(const std::string& copy, uint32_t catalog_version, uint64_t id);
  absl::Status RemoveLeftovers(const std::vector<std::string>& names);
  absl::Status RemoveOld();
  std::chrono::milliseconds FirstWait() const;
  void Work();
  std::string directory() const;

  const CatalogBackupOptions options_;
  const Clock& clock_;
  store::FileSystem& files_;
  Turn turn_;  // one backup at a time
  CancelToken stop_token_;
  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::string last_error_ ABSL_GUARDED_BY(mu_);
  std::thread worker_;
};

// Unpacks the newest backup in the store's directory that is whole to `target`. Those that are not are named in `notes`. Errors: kNotFound
// CATALOG_BACKUP_NOT_FOUND where there is none; those of writing `target`.
struct UnpackedCatalog {
  uint64_t id = 0;
  SystemTime made_at;
};
absl::StatusOr<UnpackedCatalog> UnpackNewestCatalog(const std::string& store, const std::string& target, std::vector<std::string>& notes,
                                                    store::FileSystem& files = store::PosixFileSystem());

}  // namespace litefleet::backup

#endif  // LITEFLEET_CONTROLLER_BACKUP_CATALOG_BACKUPS_H_
