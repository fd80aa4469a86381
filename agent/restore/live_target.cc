// Looks at a live target, and care for it, after the copy.
#include <fcntl.h>

#include <algorithm>
#include <chrono>

#include "agent/capture/interrupt_watch.h"
#include "agent/restore/apply.h"
#include "agent/restore/page_stream.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr int kCheckpointRounds = 3;
constexpr std::chrono::milliseconds kCheckpointWait{1000};

}  // namespace

void CheckpointLive(const TargetPlace& place, const ApplyOptions& options, storage::v1::RestoreState& state, const CancelToken& cancel) {
  const auto database = OpenTarget(place, options, cancel);
  if (!database.ok() || !(*database)->BeginRead().ok()) return;
  (*database)->EndRead();
  if ((*database)->wal_file() == nullptr) return;
  sqlite3* const db = (*database)->db();
  sqlite3_exec(db, "pragma query_only=0", nullptr, nullptr, nullptr);
  // The restore is over: a cancel that comes now ends this alone, and what is not folded yet the application folds.
  const capture::InterruptWatch watch(**database, [&] { return cancel.cancelled(); });
  // The first round copies the bulk while writers go on; TRUNCATE reads the header under the write lock, and gives the space back.
  sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  sqlite3_busy_timeout(db, static_cast<int>(kCheckpointWait.count()));
  for (int round = 0; round < kCheckpointRounds && !cancel.cancelled(); ++round) {
    if (sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) == SQLITE_OK) {
      state.add_steps("folded the write-ahead log");
      return;
    }
  }
  state.add_steps(cancel.cancelled() ? "the write-ahead log was not folded to its end: a cancel came, and the application does it"
                                     : "the write-ahead log stays large until its readers let go: it is reused from then on");
}

absl::StatusOr<LiveDifference> CompareLive(const TargetPlace& place, const ApplyOptions& options, const StagingFile& staging,
                                           storage::v1::RestoreState& state, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const auto database, OpenTarget(place, options, cancel, /*interrupted=*/true));
  LF_ASSIGN_OR_RETURN(const auto pinned, capture::PinnedRead::Begin(*database));  // rolls an unfinished transaction back
  LF_ASSIGN_OR_RETURN(const io::UniqueFd undo, place.Open(TargetPlace::TemporaryUndoName(state.operation_id()), O_RDONLY));
  struct stat undo_stat {};
  if (fstat(undo.get(), &undo_stat) != 0) return ErrnoError(errno, "look at the undo of " + place.path());
  LiveDifference different;
  uint64_t bytes = 0;
  Bytes is_new, is_old;
  const auto read = [](int fd, uint64_t file_bytes, uint64_t offset, size_t size, Bytes& out) -> absl::Status {
    out.resize(offset >= file_bytes ? 0 : std::min<uint64_t>(size, file_bytes - offset));
    return io::PreadAll(fd, out, offset, "a kept state");
  };
  LF_RETURN_IF_ERROR(StreamPages(*database, *pinned, cancel, [&](const StreamedExtent& at) -> absl::Status {
    const uint64_t offset = static_cast<uint64_t>(at.extent) * format::kExtentBytes;
    LF_RETURN_IF_ERROR(read(staging.fd(), staging.bytes(), offset, at.pages.size(), is_new));
    LF_RETURN_IF_ERROR(read(undo.get(), static_cast<uint64_t>(undo_stat.st_size), offset, at.pages.size(), is_old));
    different.from_new += CountDifferent(at.extent, at.page_size, at.pages, is_new);
    different.from_old += CountDifferent(at.extent, at.page_size, at.pages, is_old);
    bytes += at.pages.size();
    return absl::OkStatus();
  }));
  // Pages beyond its end are missing as well.
  if (staging.bytes() > bytes) different.from_new += (staging.bytes() - bytes) / staging.page_size();
  if (static_cast<uint64_t>(undo_stat.st_size) > bytes)
    different.from_old += (static_cast<uint64_t>(undo_stat.st_size) - bytes) / staging.page_size();
  pinned->End();
  state.add_steps(fmt::format("after the interruption the database differs in {} pages from the snapshot and in {} from its previous state",
                              different.from_new, different.from_old));
  return different;
}

}  // namespace litefleet::restore
