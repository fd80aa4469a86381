// A database that the helper reads through a socket: its parent has the file, the locks and the rights, the helper has the parser.
//
//   helper -> parent: u64 offset, u32 bytes (1 to 64 KiB)
//   parent -> helper: u32 0, then so many bytes; or u32 1: it cannot be read
//
// Integers are little-endian. One request at a time. Thread safety: none.
#ifndef LITEFLEET_COMMON_DUMP_PAGE_CHANNEL_H_
#define LITEFLEET_COMMON_DUMP_PAGE_CHANNEL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace litefleet::dump {

inline constexpr uint32_t kMaxChannelRead = 64 << 10;
inline constexpr size_t kChannelRequestBytes = 12;

struct ChannelRequest {
  uint64_t offset = 0;
  uint32_t bytes = 0;
};
// Nothing where it is not one of a database of `size` bytes.
std::optional<ChannelRequest> DecodeChannelRequest(std::span<const std::byte, kChannelRequestBytes> raw, uint64_t size);

// The helper's end: what follows on what was read is read ahead.
class ChannelReader {
 public:
  ChannelReader(int fd, uint64_t size) : fd_(fd), size_(size) {}
  // An SQLite result code, as ReadAt of common/check/read_only_vfs.h.
  int Read(int64_t offset, void* out, int bytes);

 private:
  bool Fetch(uint64_t offset, uint32_t bytes);

  const int fd_;
  const uint64_t size_;
  std::vector<std::byte> held_;
  uint64_t held_at_ = 0;
  uint64_t next_ = 0;  // behind the last read
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_PAGE_CHANNEL_H_
