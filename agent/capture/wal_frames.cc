#include "agent/capture/wal_frames.h"

#include <algorithm>
#include <cstring>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

constexpr uint32_t kMagicLittle = 0x377f0682;
constexpr uint32_t kMagicBig = 0x377f0683;

absl::Status Damaged(uint32_t frame, std::string_view what) {
  return Error(absl::StatusCode::kAborted, "FRAME_DAMAGED", fmt::format("frame {} of the WAL: {}", frame, what));
}

absl::Status ReadAt(sqlite3_file* wal, std::span<std::byte> out, uint64_t at, uint32_t frame) {
  const int rc = wal->pMethods->xRead(wal, out.data(), static_cast<int>(out.size()), static_cast<sqlite3_int64>(at));
  if (rc == SQLITE_OK) return absl::OkStatus();
  if (rc == SQLITE_IOERR_SHORT_READ) return Damaged(frame, "the file ends before it");
  return sqlite::ToStatus(rc, nullptr, fmt::format("read frame {} of the WAL", frame));
}

uint32_t Native32(const std::byte* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

WalPlace PlaceOf(const WalState& state) {
  WalPlace place;
  place.salts = state.salts;
  place.frame = state.max_frame;
  place.checksum = {Native32(&state.raw[24]), Native32(&state.raw[28])};
  place.big_endian = state.raw[13] != std::byte{0};
  place.page_size = state.page_size;
  place.page_count = state.page_count;
  return place;
}

void AddToWalChecksum(bool big_endian, ByteView data, std::array<uint32_t, 2>& sum) {
  uint32_t first = sum[0], second = sum[1];
  const auto add = [&](auto load) {
    for (size_t at = 0; at + 8 <= data.size(); at += 8) {
      first += load(&data[at]) + second;
      second += load(&data[at + 4]) + first;
    }
  };
  if (big_endian) {
    add([](const std::byte* at) { return LoadBigEndian<uint32_t>(at); });
  } else {
    add([](const std::byte* at) { return LoadLittleEndian<uint32_t>(at); });
  }
  sum = {first, second};
}

absl::StatusOr<WalFrames> WalFrames::Open(sqlite3_file* wal, const WalPlace& from, const WalPlace& to) {
  if (wal == nullptr) return Error(absl::StatusCode::kInternal, "IO_ERROR", "there is no WAL open");
  WalFrames frames(wal, to);
  if (to.frame == 0) return frames;
  if (!format::IsPageSize(to.page_size)) return Damaged(0, fmt::format("{} is no page size", to.page_size));
  frames.frame_.resize(kWalFrameHeaderBytes + to.page_size);
  if (from.salts == to.salts && from.frame > 0) {
    frames.next_ = from.frame + 1;
    frames.sum_ = from.checksum;
    return frames;
  }
  LF_RETURN_IF_ERROR(frames.ReadHeader());
  return frames;
}

absl::Status WalFrames::ReadHeader() {
  std::array<std::byte, kWalHeaderBytes> header;
  LF_RETURN_IF_ERROR(ReadAt(wal_, header, 0, 0));
  const uint32_t magic = LoadBigEndian<uint32_t>(header.data());
  if (magic != (to_.big_endian ? kMagicBig : kMagicLittle)) return Damaged(0, "the file's header does not begin as one");
  if (LoadBigEndian<uint32_t>(&header[8]) != to_.page_size || !std::equal(to_.salts.begin(), to_.salts.end(), &header[16]))
    return Damaged(0, "the file's header is of another generation");
  std::array<uint32_t, 2> sum{};
  AddToWalChecksum(to_.big_endian, ByteView(header).first(24), sum);
  if (sum[0] != LoadBigEndian<uint32_t>(&header[24]) || sum[1] != LoadBigEndian<uint32_t>(&header[28]))
    return Damaged(0, "the checksum of the file's header is wrong");
  sum_ = sum;
  return absl::OkStatus();
}

absl::StatusOr<WalFrame> WalFrames::Next() {
  const uint32_t number = next_;
  LF_RETURN_IF_ERROR(ReadAt(wal_, frame_, WalBytes(to_.page_size, number - 1) + (number == 1 ? kWalHeaderBytes : 0), number));
  const ByteView head = ByteView(frame_).first(kWalFrameHeaderBytes);
  const WalFrame frame{number, LoadBigEndian<uint32_t>(&head[0]), LoadBigEndian<uint32_t>(&head[4])};
  if (frame.page == 0) return Damaged(number, "it names no page");
  if (!std::equal(to_.salts.begin(), to_.salts.end(), &head[8])) return Damaged(number, "it is of another generation");
  AddToWalChecksum(to_.big_endian, head.first(8), sum_);
  AddToWalChecksum(to_.big_endian, ByteView(frame_).subspan(kWalFrameHeaderBytes), sum_);
  if (sum_[0] != LoadBigEndian<uint32_t>(&head[16]) || sum_[1] != LoadBigEndian<uint32_t>(&head[20]))
    return Damaged(number, "its checksum is wrong");
  if (number == to_.frame && (frame.commit_pages != to_.page_count || frame.commit_pages == 0 || sum_ != to_.checksum))
    return Damaged(number, "it is not the commit that the wal-index names");
  bytes_read_ += frame_.size();
  ++next_;
  return frame;
}

absl::Status WalFrames::ReadPage(uint32_t frame, std::span<std::byte> out) const {
  const uint64_t at = kWalHeaderBytes + (frame - uint64_t{1}) * (kWalFrameHeaderBytes + to_.page_size) + kWalFrameHeaderBytes;
  return ReadAt(wal_, out, at, frame);
}

}  // namespace litefleet::capture
