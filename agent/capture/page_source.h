// A consistent sequence of all pages of a database, in order, without a temporary copy on the device's flash.
//
// Not for reading single pages. Thread safety: none; one instance per backup, used by one thread at a time. Ownership: it owns its
// connection and its locks, and lets go of them in Close() or the destructor. Memory: constant.
#ifndef LITEFLEET_AGENT_CAPTURE_PAGE_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_PAGE_SOURCE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/wal_index.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"

namespace litefleet::capture {

// Known from the moment at which the state was pinned.
struct SourceInfo {
  uint32_t page_size = 0;
  uint32_t page_count = 0;                           // 0: an empty file
  bool wal = false;                                  // header bytes 18 and 19
  bool detached = false;                             // a copy is read: no lock is held, nobody waits, and it can be read again
  std::optional<WalState> wal_state = std::nullopt;  // where there is a wal-index
  SystemTime pinned_at;                              // device clock
  std::chrono::nanoseconds pinned_since_boot{0};
};

struct ExtentPages {
  uint32_t extent = 0;  // from 0, ascending, without holes
  ByteView data;        // whole pages; valid until the next call
};

class PageSource {
 public:
  virtual ~PageSource() = default;
  virtual const SourceInfo& info() const = 0;
  // The next extent; nothing at the end. Errors end the backup; nothing of the user's has changed.
  // WRITER_STALL, PIN_TOO_LONG, WAL_GROWTH, DATABASE_BUSY, DATABASE_DAMAGED, SOURCE_CHANGED, ...
  virtual absl::StatusOr<std::optional<ExtentPages>> Next() = 0;
  // Lets go of every lock, and of a copy that is read; idempotent. An error here does not spoil what was read, and what the other members
  // say of it stays.
  virtual absl::Status Close() = 0;
  // What SQLite said about damage while it read, empty if it did not complain.
  virtual const std::string& damage() const = 0;
  // How long the read transaction was held, so far or altogether.
  virtual std::chrono::nanoseconds pinned_for() const = 0;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PAGE_SOURCE_H_
