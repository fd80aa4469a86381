// Reads a database's wal-index and WAL frames through SQLite's own handles, beside a connection that has them open.
//
// Not for deciding whether a frame is intact after a crash: that is SQLite's recovery. Not without a connection that has read at least
// once in WAL mode, and never with descriptors of our own (closing one would drop SQLite's locks).
//
//   state   = the wal-index header: generation (salts), last committed frame, size of the database
//   frame n = WAL file at 32 + (n - 1) * (24 + page size): header (page, size after commit, salts, checksums), page
//
// A state that was read before and after the begin of a read transaction and is the same both times is the transaction's state. Its
// frames stay in the WAL while the transaction lasts, with one exception: a reader on mark 0 (everything was in the database file when
// it began) does not keep the WAL from being started over. Then the salts have changed and the page is to be read from the file.
//
// Thread safety: none; used by the connection's thread. Ownership: the handles belong to the connection and must outlive this.
// Errors: kUnavailable WAL_INDEX_BUSY (a writer did not let us see a stable header), kAborted FRAME_DAMAGED, kInternal IO_ERROR.
// Source: https://www.sqlite.org/walformat.html
#ifndef LITEFLEET_AGENT_CAPTURE_WAL_INDEX_H_
#define LITEFLEET_AGENT_CAPTURE_WAL_INDEX_H_

#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace litefleet::capture {

inline constexpr size_t kWalHeaderBytes = 32;
inline constexpr size_t kWalFrameHeaderBytes = 24;

struct WalState {
  std::array<std::byte, 48> raw{};   // the header as it stands in shared memory
  uint32_t page_size = 0;            // 0 as long as nothing was ever written to this WAL
  uint32_t max_frame = 0;            // last committed frame; 0: the WAL holds nothing
  uint32_t page_count = 0;           // after that frame; of no meaning when max_frame is 0
  std::array<std::byte, 8> salts{};  // as in the WAL file

  friend bool operator==(const WalState& a, const WalState& b) { return a.raw == b.raw; }
};

class WalIndex {
 public:
  // REQUIRES: `database` is the SQLITE_FCNTL_FILE_POINTER and `wal` the SQLITE_FCNTL_JOURNAL_POINTER of a connection in WAL mode.
  WalIndex(sqlite3_file* database, sqlite3_file* wal) : database_(database), wal_(wal) {}

  // Both copies of the header equal and their checksum right.
  absl::StatusOr<WalState> ReadState() const;

  // The last frame of `page` at or below state.max_frame; 0 when there is none. Only of use while state.salts are current.
  absl::StatusOr<uint32_t> FindFrame(uint32_t page, const WalState& state) const;

  // How many frames of this generation were copied into the database. Only of use while state.salts are current.
  absl::StatusOr<uint32_t> Backfilled() const;

  // Page `page` as of `state`, if the WAL holds it; nothing when the database file does: no frame of it, or the WAL was started over.
  // REQUIRES: a read transaction on `state` is open, out.size() is the page size. Returns whether `out` was filled.
  absl::StatusOr<bool> ReadPage(uint32_t page, const WalState& state, std::span<std::byte> out) const;

  // What was read of this generation before is what it was: whoever starts the WAL over changes the salts in the wal-index before he
  // overwrites a frame. kAborted FRAME_DAMAGED where they have changed.
  absl::Status NotStartedOver(const WalState& state) const;

  // The WAL that is open is the one that this index is of, by its header and the last frame. False where somebody removed that, and made
  // another one. REQUIRES: state.max_frame > 0.
  absl::StatusOr<bool> IsOfWal(const WalState& state) const;

  // Size of the WAL file.
  absl::StatusOr<uint64_t> FileBytes() const;

 private:
  absl::StatusOr<const volatile std::byte*> Region(int number) const;
  std::optional<WalState> TryReadState(const volatile std::byte* region) const;

  sqlite3_file* const database_;
  sqlite3_file* const wal_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_WAL_INDEX_H_
