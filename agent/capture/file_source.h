// The `file` method: a copy of the database's files that are one consistent set, read at leisure afterwards (design section 5).
//
// The files are copied while SQLite's own locks make them belong together, and the locks are let go; what SQLite makes of the set (a hot
// journal rolled back, a WAL folded in) happens in the copy. So nobody waits for hashing or the network, and no transaction is pinned.
// Where the file system can share blocks between files the copy is made by FICLONE, in milliseconds, and takes no space until the
// application writes; else every byte is written once more, within `max_copy_bytes`. Pages and root are those of the other methods.
//
//   way       when                                                    who waits meanwhile
//   kRollback rollback mode, under SHARED                             whoever commits: rollback_stall
//   kCold     WAL mode, nobody has it open, proved by EXCLUSIVE       an application that starts: rollback_stall
//   kPinned   WAL mode, others have it open, under a read transaction nobody: max_pin
//   kStill    WAL mode, but no lock is to be had (locking_mode=EXCLUSIVE, a read-only medium, no right to write): the WAL was not started
//   over
//             between a look before and one after, or nothing was written for 2.5 s before and until after    nobody
//
// In kCold and kStill not even SQLite's recovery touches the database: a WAL or a journal that a crash has left stays as it is.
//
// Not where the application must not wait at all and blocks cannot be shared: `online` in WAL mode waits for nobody and writes nothing.
// Thread safety: Take blocks; a FileCopy is const afterwards, its sources are as PageSource. Memory: 256 KiB, and CopiedFiles'.
//
// Errors: those of user_database.h, online_source.h, copied_files.h and common/copy/copy_process.h, and
//   SPOOL_FULL    kResourceExhausted  blocks cannot be shared, and the copy may not be so large
//   DISK_FULL     kResourceExhausted  the copy would take from the reserve of its file system
//   COPY_GROWTH   kResourceExhausted  of a source: what applications wrote since took the file system below its reserve
#ifndef LITEFLEET_AGENT_CAPTURE_FILE_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_FILE_SOURCE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/capture/copied_files.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/online_source.h"
#include "agent/capture/page_source.h"

namespace litefleet::capture {

struct FileOptions {
  OnlineOptions database;
  std::string scratch;                     // a directory of the agent's: where bytes are copied that cannot be shared
  uint64_t max_copy_bytes = 256ull << 20;  // of them
  std::string helper = {};                 // empty: looked for
  bool may_share = true;
};

class FileCopy : public std::enable_shared_from_this<FileCopy> {
 public:
  enum class Way { kRollback, kCold, kPinned, kStill };

  // REQUIRES: options.database.clock is set. The copy lives as long as the object and its sources, until those are closed.
  static absl::StatusOr<std::shared_ptr<const FileCopy>> Take(const FileOptions& options);

  // All pages of it; as often as wanted.
  absl::StatusOr<std::unique_ptr<PageSource>> Open() const;
  // It as SQL text, the same that OpenDumpSource has of the original, and with the errors of that. Nobody waits for it: whoever sends the
  // text may take as long as `helper.time`. `helper.cancelled` is options.database.cancelled, whatever it was.
  absl::StatusOr<std::unique_ptr<TextSource>> OpenDump(const dump::DumpOptions& what, dump::HelperOptions helper = {}) const;

  // COPY_GROWTH: blocks that were shared and are written by the application stay here as well. A source asks it while it is read; to be
  // asked by whoever keeps the copy meanwhile.
  absl::Status CheckReserve() const;

  Way way() const { return way_; }
  bool shared() const { return shared_; }
  std::chrono::nanoseconds held() const { return held_; }
  // For people, in an operation's steps.
  std::string Describe() const;

 private:
  friend class FileCopyTaker;
  friend class FileSource;
  friend class FileDump;
  explicit FileCopy(const FileOptions& options) : options_(options) {}
  absl::Status LookAt();
  absl::Status CheckCancelled() const;

  const FileOptions options_;
  std::unique_ptr<CopiedFiles> files_;
  Way way_ = Way::kRollback;
  bool shared_ = false;
  std::chrono::nanoseconds held_{0};
  SourceInfo info_;
  std::string damage_;
  uint64_t file_bytes_ = 0;
  uint64_t free_at_begin_ = 0;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_FILE_SOURCE_H_
