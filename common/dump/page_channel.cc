#include "common/dump/page_channel.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/base/bytes.h"

namespace litefleet::dump {
namespace {

bool ReadWhole(int fd, void* out, size_t bytes) {
  auto* at = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t n = read(fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

bool WriteWhole(int fd, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = write(fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

std::optional<ChannelRequest> DecodeChannelRequest(std::span<const std::byte, kChannelRequestBytes> raw, uint64_t size) {
  const ChannelRequest request{.offset = LoadLittleEndian<uint64_t>(raw.data()), .bytes = LoadLittleEndian<uint32_t>(raw.data() + 8)};
  if (request.bytes == 0 || request.bytes > kMaxChannelRead || request.offset >= size || request.bytes > size - request.offset)
    return std::nullopt;
  return request;
}

bool ChannelReader::Fetch(uint64_t offset, uint32_t bytes) {
  std::array<std::byte, kChannelRequestBytes> request{};
  StoreLittleEndian(offset, request.data());
  StoreLittleEndian(bytes, request.data() + 8);
  std::array<std::byte, 4> answer{};
  held_.clear();
  if (!WriteWhole(fd_, request.data(), request.size()) || !ReadWhole(fd_, answer.data(), answer.size())) return false;
  if (LoadLittleEndian<uint32_t>(answer.data()) != 0) return false;
  held_.resize(bytes);
  held_at_ = offset;
  if (ReadWhole(fd_, held_.data(), bytes)) return true;
  held_.clear();
  return false;
}

int ChannelReader::Read(int64_t offset, void* out, int bytes) {
  if (offset < 0 || bytes < 0) return SQLITE_IOERR_READ;
  auto* at = static_cast<std::byte*>(out);
  auto from = static_cast<uint64_t>(offset);
  auto left = static_cast<uint64_t>(bytes);
  const bool in_order = from == next_;
  next_ = from + left;
  while (left > 0) {
    if (from >= size_) {
      std::memset(at, 0, left);
      return SQLITE_IOERR_SHORT_READ;
    }
    if (from < held_at_ || from >= held_at_ + held_.size()) {
      const uint64_t wanted = in_order ? kMaxChannelRead : std::min<uint64_t>(left, kMaxChannelRead);
      if (!Fetch(from, static_cast<uint32_t>(std::min(wanted, size_ - from)))) return SQLITE_IOERR_READ;
    }
    const uint64_t n = std::min(left, held_at_ + held_.size() - from);
    std::memcpy(at, held_.data() + (from - held_at_), n);
    at += n;
    from += n;
    left -= n;
  }
  return SQLITE_OK;
}

}  // namespace litefleet::dump
