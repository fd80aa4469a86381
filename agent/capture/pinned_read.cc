#include "agent/capture/pinned_read.h"

#include <algorithm>

#include "agent/capture/database_header.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

constexpr int kPinAttempts = 1000;

}  // namespace

absl::StatusOr<std::unique_ptr<PinnedRead>> PinnedRead::Begin(UserDatabase& database) {
  std::unique_ptr<PinnedRead> read(new PinnedRead(database));
  LF_RETURN_IF_ERROR(read->BeginTransaction());
  LF_ASSIGN_OR_RETURN(const Bytes start, database.ReadStart(kHeaderBytes));
  if (start.empty()) return read;
  const auto header = ParseHeader(start);
  // A WAL that lies there counts, whatever the header in the file says: its page 1 may be another one, of another page size.
  const bool uses_wal = database.UsesWal();
  if (!header && !uses_wal) {
    return Error(absl::StatusCode::kDataLoss, "NOT_A_DATABASE", fmt::format("{} has no valid header of SQLite's", database.path()),
                 "its header says a page size that no database has: check the path, or restore it from a snapshot");
  }
  LF_ASSIGN_OR_RETURN(read->page_size_, database.PageSize());
  if (uses_wal || (header->wal && !database.immutable())) {
    sqlite3_file* const wal = database.wal_file();
    if (wal == nullptr)
      return Error(absl::StatusCode::kInternal, "IO_ERROR", fmt::format("{} is in WAL mode but has no WAL open", database.path()));
    read->wal_index_.emplace(database.file(), wal);
    bool pinned = false;
    for (int attempt = 0; !pinned; ++attempt) {
      if (attempt == kPinAttempts) {
        return Error(absl::StatusCode::kAborted, "SOURCE_CHANGED",
                     fmt::format("{}: commits come faster than a state can be pinned", database.path()), "try again later");
      }
      LF_ASSIGN_OR_RETURN(pinned, read->PinWalState());
    }
    LF_ASSIGN_OR_RETURN(read->wal_bytes_, read->wal_index_->FileBytes());
  }
  LF_RETURN_IF_ERROR(read->ReadFirstPage());
  return read;
}

absl::Status PinnedRead::BeginTransaction() {
  absl::Status status = database_.BeginRead();
  if (ReasonOf(status) == "DATABASE_DAMAGED") {
    // The header promises more pages than the file has: what is there can be read all the same.
    database_.TolerateTruncation();
    if (const absl::Status second = database_.BeginRead(); second.ok()) {
      damage_ = "the file is shorter than its header says";
      status = second;
    }
  }
  open_ = status.ok();
  return status;
}

absl::StatusOr<bool> PinnedRead::PinWalState() {
  End();
  // The same header before and after the begin: the transaction sees just this state. The connection keeps its lock on the database
  // in between, so that the mode cannot change.
  LF_ASSIGN_OR_RETURN(const WalState before, wal_index_->ReadState());
  LF_RETURN_IF_ERROR(database_.BeginRead());
  open_ = true;
  LF_ASSIGN_OR_RETURN(const WalState after, wal_index_->ReadState());
  wal_state_ = after;
  return before == after;
}

absl::Status PinnedRead::ReadFirstPage() {
  first_page_.assign(page_size_, std::byte{0});
  bool from_wal = false;
  if (wal_index_) {
    if (wal_state_.max_frame != 0 && wal_state_.page_size != page_size_) {
      return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
                   fmt::format("{} has pages of {} bytes, its WAL of {}", database_.path(), page_size_, wal_state_.page_size),
                   "its WAL is damaged, or that of another database: restore it from a snapshot");
    }
    LF_ASSIGN_OR_RETURN(from_wal, wal_index_->ReadPage(1, wal_state_, first_page_));
  }
  if (!from_wal) {
    LF_ASSIGN_OR_RETURN(const Bytes start, database_.ReadStart(page_size_));
    std::fill(std::copy(start.begin(), start.end(), first_page_.begin()), first_page_.end(), std::byte{0});
  }
  const auto header = ParseHeader(first_page_);
  if (!header || header->page_size != page_size_) {
    return Error(absl::StatusCode::kAborted, "SOURCE_CHANGED", fmt::format("{}: page 1 is not the one that was pinned", database_.path()));
  }
  wal_mode_ = header->wal;
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, database_.FileBytes());
  LF_ASSIGN_OR_RETURN(const bool torn, EndsWithinPage(bytes));
  if (torn) {
    if (!damage_.empty()) damage_ += "; ";
    damage_ += fmt::format("the file ends within a page, at byte {}", bytes);
  }
  return absl::OkStatus();
}

// A checkpoint that a power cut has ended may leave a piece of a page that the WAL has whole, or that the state has not any more.
absl::StatusOr<bool> PinnedRead::EndsWithinPage(uint64_t bytes) const {
  if (bytes % page_size_ == 0) return false;
  if (!wal_index_ || wal_state_.max_frame == 0) return true;
  const auto page = static_cast<uint32_t>(bytes / page_size_ + 1);
  if (page > wal_state_.page_count) return false;
  Bytes whole(page_size_);
  LF_ASSIGN_OR_RETURN(const bool from_wal, wal_index_->ReadPage(page, wal_state_, whole));
  return !from_wal;
}

absl::StatusOr<uint64_t> PinnedRead::WalGrowth() const {
  if (!wal_index_) return uint64_t{0};
  LF_ASSIGN_OR_RETURN(const uint64_t now, wal_index_->FileBytes());
  return now > wal_bytes_ ? now - wal_bytes_ : 0;
}

void PinnedRead::End() {
  if (open_) database_.EndRead();
  open_ = false;
}

}  // namespace litefleet::capture
