// A state of a live target, as a database file of its own beside it: the previous one, or that into which tables are merged.
//
// Thread safety: none. Ownership: borrows the place. Errors: ErrnoError, those of reading the database, kCancelled.
#ifndef LITEFLEET_AGENT_RESTORE_UNDO_COPY_H_
#define LITEFLEET_AGENT_RESTORE_UNDO_COPY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "agent/restore/restorer.h"
#include "agent/restore/target_place.h"
#include "common/io/file.h"

namespace litefleet::restore {

class UndoCopy {
 public:
  // A new file, in place of what has the name.
  static absl::StatusOr<UndoCopy> Create(const TargetPlace& place, const std::string& name);

  // The state that `database` sees. The second time only what differs is written.
  absl::Status Take(capture::UserDatabase& database, const capture::PinnedRead& read, const CancelToken& cancel);
  // The bytes of the file itself. REQUIRES: an exclusive lock, rollback mode.
  absl::Status TakeRaw(capture::UserDatabase& database, const CancelToken& cancel);
  // Bytes 18 and 19 of page 1; nothing where the database is empty.
  absl::Status WriteVersions(std::string_view versions);
  // With the owner and mode of the target, on the disk.
  absl::Status Finish(const CancelToken& cancel);
  void StartWriteBack();

  int fd() const { return fd_.get(); }
  uint64_t bytes() const { return bytes_; }
  std::string path() const { return place_.PathOf(name_); }

 private:
  UndoCopy(const TargetPlace& place, std::string name, io::UniqueFd fd) : place_(place), name_(std::move(name)), fd_(std::move(fd)) {}
  absl::Status Truncate(uint64_t bytes);

  const TargetPlace& place_;
  std::string name_;
  io::UniqueFd fd_;
  uint64_t bytes_ = 0;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_UNDO_COPY_H_
