// Which locks make a database's files one consistent set, and their copy under them: the first half of FileCopy::Take, which alone uses
// this.
//
// Order, each step undone by the destructor of what it made: the database is opened (no lock), the helper process opens it too, a rehearsal
// shares the blocks without a lock (so that the one that counts has little to do, or shows that it cannot be done), the lock, the look that
// the helper has the file that is locked, the copy, the unlock. Thread safety: none.
#ifndef LITEFLEET_AGENT_CAPTURE_FILE_COPY_TAKER_H_
#define LITEFLEET_AGENT_CAPTURE_FILE_COPY_TAKER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/file_source.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "common/copy/copy_process.h"

namespace litefleet::capture {

class FileCopyTaker {
 public:
  // `copy` gets files, way, times; it outlives this.
  explicit FileCopyTaker(FileCopy& copy) : copy_(copy), options_(copy.options_.database) {}
  absl::Status Take();

 private:
  // A helper, with files to copy into, and whether they share blocks with the database.
  absl::Status Prepare();
  absl::Status PrepareIn(const std::string& directory);
  absl::Status CheckSpace() const;
  absl::Status Locked();  // one of the ways below
  absl::Status TakeRollback();
  absl::Status TakeCold();
  absl::Status TakePinned();
  absl::Status TakeStill(bool locked_out);
  absl::StatusOr<bool> TakeStillOnce(bool locked_out);
  // Notes the moment of the state, and looks that it is still the same file.
  absl::Status Begin(FileCopy::Way way);
  absl::Status SameFile() const;
  void End();
  absl::Status CopyDatabase();
  absl::Status CopySide(CopiedFiles::Which which);
  absl::Status GoingOn(uint64_t done) const;
  // The lock was held for too long.
  absl::Status Stalled(std::chrono::nanoseconds held, double done) const;
  std::string SidePath(CopiedFiles::Which which) const;

  FileCopy& copy_;
  const OnlineOptions& options_;
  std::unique_ptr<UserDatabase> database_;
  std::unique_ptr<copy::CopyProcess> process_;
  std::unique_ptr<PinnedRead> read_;  // kPinned
  bool wal_missing_ = false;          // kStill: somebody keeps all others out, and there is none
  uint64_t database_bytes_ = 0;
  bool held_ = false;
  SteadyTime since_{};
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_FILE_COPY_TAKER_H_
