#include "agent/capture/wal_end.h"

#include <algorithm>
#include <string_view>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

absl::Status NotCertain(uint32_t frame, std::string_view what) {
  return Error(absl::StatusCode::kAborted, "FRAME_DAMAGED", fmt::format("frame {} of the WAL: {}", frame, what));
}

}  // namespace

absl::StatusOr<WalPlace> EndOfGeneration(sqlite3_file* wal, const WalPlace& from, const std::array<std::byte, 8>& next) {
  if (wal == nullptr) return Error(absl::StatusCode::kInternal, "IO_ERROR", "there is no WAL open");
  WalPlace end = from;
  std::array<uint32_t, 2> sum = from.checksum;
  Bytes frame(kWalFrameHeaderBytes + from.page_size);
  for (uint32_t number = from.frame + 1;; ++number) {
    const uint64_t at = WalBytes(from.page_size, number) - frame.size();
    const int rc = wal->pMethods->xRead(wal, frame.data(), static_cast<int>(frame.size()), static_cast<sqlite3_int64>(at));
    if (rc == SQLITE_IOERR_SHORT_READ) {
      sqlite3_int64 size = 0;
      if (wal->pMethods->xFileSize(wal, &size) != SQLITE_OK || static_cast<uint64_t>(size) != WalBytes(from.page_size, end.frame))
        return NotCertain(number, "the file was cut off within the generation");
      return end;
    }
    if (rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, fmt::format("read frame {} of the WAL", number));
    const ByteView head = ByteView(frame).first(kWalFrameHeaderBytes);
    if (std::equal(next.begin(), next.end(), &head[8])) return NotCertain(number, "the next generation is there already");
    AddToWalChecksum(from.big_endian, head.first(8), sum);
    AddToWalChecksum(from.big_endian, ByteView(frame).subspan(kWalFrameHeaderBytes), sum);
    if (!std::equal(from.salts.begin(), from.salts.end(), &head[8]) || sum[0] != LoadBigEndian<uint32_t>(&head[16]) ||
        sum[1] != LoadBigEndian<uint32_t>(&head[20]))
      return end;
    if (const uint32_t pages = LoadBigEndian<uint32_t>(&head[4]); pages != 0) {
      end.frame = number;
      end.checksum = sum;
      end.page_count = pages;
    }
  }
}

}  // namespace litefleet::capture
