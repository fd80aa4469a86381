// One read transaction on a user's database whose state is known exactly: mode, page size, page 1 byte by byte, and in WAL mode the
// last frame that belongs to it.
//
// In rollback mode it holds SQLite's SHARED lock: writers cannot commit until End(). In WAL mode nobody waits for it; the WAL grows.
// Not for more than one state: begin another one. Thread safety: none. Ownership: the database must outlive it.
// Errors: those of UserDatabase; SOURCE_CHANGED (kAborted) when commits came too fast to name the state.
#ifndef LITEFLEET_AGENT_CAPTURE_PINNED_READ_H_
#define LITEFLEET_AGENT_CAPTURE_PINNED_READ_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_index.h"
#include "common/base/bytes.h"

namespace litefleet::capture {

class PinnedRead {
 public:
  // REQUIRES: no transaction is open on `database`.
  static absl::StatusOr<std::unique_ptr<PinnedRead>> Begin(UserDatabase& database);
  ~PinnedRead() { End(); }
  PinnedRead(const PinnedRead&) = delete;
  PinnedRead& operator=(const PinnedRead&) = delete;

  // By the header, that of page 1 as it is in this state.
  bool wal() const { return wal_mode_; }
  uint32_t page_size() const { return page_size_; }  // of an empty file: the one that SQLite would give it
  bool empty() const { return first_page_.empty(); }
  ByteView first_page() const { return first_page_; }
  // Nobody waits for this read: a WAL is in use, or nobody is there.
  bool holds_nobody_up() const { return wal_mode_ || wal_index_; }
  // Null where no WAL is in use: in rollback mode, but beside a WAL that was left there, and for an immutable database.
  const WalIndex* wal_index() const { return wal_index_ ? &*wal_index_ : nullptr; }
  // Of meaning where there is a wal_index().
  const WalState& wal_state() const { return wal_state_; }
  // By how much the WAL file has grown since; 0 outside WAL mode.
  absl::StatusOr<uint64_t> WalGrowth() const;
  // What is wrong with sizes; empty when nothing is.
  const std::string& damage() const { return damage_; }

  // Idempotent.
  void End();

 private:
  explicit PinnedRead(UserDatabase& database) : database_(database) {}
  absl::Status BeginTransaction();
  // False: a commit came in between, try again.
  absl::StatusOr<bool> PinWalState();
  absl::Status ReadFirstPage();
  absl::StatusOr<bool> EndsWithinPage(uint64_t bytes) const;

  UserDatabase& database_;
  bool open_ = false;
  uint32_t page_size_ = 4096;
  Bytes first_page_;
  bool wal_mode_ = false;
  std::optional<WalIndex> wal_index_;
  WalState wal_state_;
  uint64_t wal_bytes_ = 0;
  std::string damage_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PINNED_READ_H_
