// Frames of a WAL one after the other, each proven by salts and running checksum, up to a commit that the wal-index names.
//
// Not for telling what is committed: that is the header's word (WalIndex::ReadState). REQUIRES of all reading: a read transaction is open
// that keeps the frames where they are (agent/follow/README.md). Thread safety: none. Memory: one frame. Errors: kAborted FRAME_DAMAGED
// when a frame is not what it has to be; those of reading. Source: https://www.sqlite.org/fileformat2.html section 4
#ifndef LITEFLEET_AGENT_CAPTURE_WAL_FRAMES_H_
#define LITEFLEET_AGENT_CAPTURE_WAL_FRAMES_H_

#include <array>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/wal_index.h"
#include "common/base/bytes.h"

namespace litefleet::capture {

// A committed state as a place in a WAL.
struct WalPlace {
  std::array<std::byte, 8> salts{};  // the generation
  uint32_t frame = 0;                // the last one of the state; 0: before the first
  std::array<uint32_t, 2> checksum{};
  bool big_endian = false;  // how checksums are made
  uint32_t page_size = 0;
  uint32_t page_count = 0;  // of no meaning where frame is 0

  friend bool operator==(const WalPlace&, const WalPlace&) = default;
};

WalPlace PlaceOf(const WalState& state);

// Of a WAL file with so many frames; 0 without any.
constexpr uint64_t WalBytes(uint32_t page_size, uint32_t frames) {
  return frames == 0 ? 0 : kWalHeaderBytes + uint64_t{frames} * (kWalFrameHeaderBytes + page_size);
}

// Goes on with the running checksum of a WAL. REQUIRES: data.size() is a multiple of 8.
void AddToWalChecksum(bool big_endian, ByteView data, std::array<uint32_t, 2>& sum);

struct WalFrame {
  uint32_t number = 0;
  uint32_t page = 0;
  // The frame ends a transaction, and the database has so many pages then; 0: it does not.
  uint32_t commit_pages = 0;
};

class WalFrames {
 public:
  // Frames behind `from` up to `to`. They are of one generation, or `from` counts as before the first frame of that of `to`.
  // `wal` is the connection's handle and outlives this.
  static absl::StatusOr<WalFrames> Open(sqlite3_file* wal, const WalPlace& from, const WalPlace& to);

  bool done() const { return next_ > to_.frame; }
  // Proven. REQUIRES: !done(). At the last one it is proven that it is the state `to`.
  absl::StatusOr<WalFrame> Next();
  // The page of the frame that Next() has just proven: what was read then, whatever the file has by now.
  ByteView page() const { return ByteView(frame_).subspan(kWalFrameHeaderBytes); }
  // The content of a frame that was proven, read once more: of use as long as the WAL was not started over since. REQUIRES: out.size() is
  // the page size.
  absl::Status ReadPage(uint32_t frame, std::span<std::byte> out) const;
  // Of frames.
  uint64_t bytes_read() const { return bytes_read_; }
  uint32_t page_size() const { return to_.page_size; }

 private:
  WalFrames(sqlite3_file* wal, const WalPlace& to) : wal_(wal), to_(to) {}
  absl::Status ReadHeader();

  sqlite3_file* wal_;
  WalPlace to_;
  uint32_t next_ = 1;
  std::array<uint32_t, 2> sum_{};
  uint64_t bytes_read_ = 0;
  Bytes frame_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_WAL_FRAMES_H_
