#include "agent/capture/wal_index.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

// Layout of the wal-index: regions of 32 KiB, the first one with two headers of 48 bytes and 40 bytes of checkpoint information in front
// of its page numbers. Each region has 4096 page numbers (the first 34 fewer) and a hash table of 8192 16-bit slots in its second half.
// Integers are in the machine's byte order.
constexpr int kRegionBytes = 32768;
constexpr size_t kStateBytes = 48;
constexpr size_t kSaltsInHeader = 16;  // of the WAL file
constexpr size_t kSaltsInFrame = 8;
constexpr size_t kFirstRegionHead = 136;
constexpr size_t kHashOffset = 16384;
constexpr uint32_t kHashSlots = 8192;
constexpr uint32_t kFramesInRegion = 4096;
constexpr uint32_t kFramesInFirstRegion = kFramesInRegion - kFirstRegionHead / 4;
constexpr uint32_t kWalIndexVersion = 3007000;

template <class T>
T Load(const volatile std::byte* at) {
  std::byte copy[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) copy[i] = at[i];
  T value;
  std::memcpy(&value, copy, sizeof value);
  return value;
}

template <class T>
T Native(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

bool ChecksumMatches(const std::array<std::byte, kStateBytes>& raw) {
  uint32_t first = 0, second = 0;
  for (size_t i = 0; i < 40; i += 8) {
    first += Native<uint32_t>(&raw[i]) + second;
    second += Native<uint32_t>(&raw[i + 4]) + first;
  }
  return first == Native<uint32_t>(&raw[40]) && second == Native<uint32_t>(&raw[44]);
}

int RegionOf(uint32_t frame) {
  return frame <= kFramesInFirstRegion ? 0 : static_cast<int>((frame - kFramesInFirstRegion - 1) / kFramesInRegion) + 1;
}

}  // namespace

absl::StatusOr<const volatile std::byte*> WalIndex::Region(int number) const {
  void volatile* region = nullptr;
  const int rc = database_->pMethods->xShmMap(database_, number, kRegionBytes, 0, &region);
  // SQLITE_READONLY: mapped, but not for writing.
  if ((rc != SQLITE_OK && rc != SQLITE_READONLY) || region == nullptr) {
    return sqlite::ToStatus(rc == SQLITE_OK || rc == SQLITE_READONLY ? SQLITE_IOERR_SHMMAP : rc, nullptr,
                            fmt::format("map region {} of the wal-index", number));
  }
  return static_cast<const volatile std::byte*>(region);
}

std::optional<WalState> WalIndex::TryReadState(const volatile std::byte* region) const {
  WalState state;
  std::array<std::byte, kStateBytes> second;
  for (size_t i = 0; i < kStateBytes; ++i) state.raw[i] = region[i];
  database_->pMethods->xShmBarrier(database_);
  for (size_t i = 0; i < kStateBytes; ++i) second[i] = region[kStateBytes + i];
  if (state.raw != second || !ChecksumMatches(state.raw)) return std::nullopt;
  if (Native<uint32_t>(&state.raw[0]) != kWalIndexVersion || state.raw[12] == std::byte{0}) return std::nullopt;
  const uint32_t size = Native<uint16_t>(&state.raw[14]);
  state.page_size = size == 1 ? 65536 : size;
  state.max_frame = Native<uint32_t>(&state.raw[16]);
  state.page_count = Native<uint32_t>(&state.raw[20]);
  std::copy_n(&state.raw[32], state.salts.size(), state.salts.begin());
  return state;
}

absl::StatusOr<WalState> WalIndex::ReadState() const {
  LF_ASSIGN_OR_RETURN(const volatile std::byte* region, Region(0));
  // A writer changes the header within microseconds; one that was stopped in between leaves a header that a later recovery repairs.
  for (int attempt = 0; attempt < 200; ++attempt) {
    if (const auto state = TryReadState(region)) return *state;
    if (attempt < 20) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return Error(absl::StatusCode::kUnavailable, "WAL_INDEX_BUSY", "the header of the wal-index did not come to rest", "try again later");
}

absl::StatusOr<uint32_t> WalIndex::FindFrame(uint32_t page, const WalState& state) const {
  if (state.max_frame == 0) return 0u;
  for (int number = RegionOf(state.max_frame); number >= 0; --number) {
    LF_ASSIGN_OR_RETURN(const volatile std::byte* region, Region(number));
    const volatile std::byte* pages = region + (number == 0 ? kFirstRegionHead : 0);
    const uint32_t frames_before = number == 0 ? 0 : kFramesInFirstRegion + (static_cast<uint32_t>(number) - 1) * kFramesInRegion;
    const uint32_t frames_here = number == 0 ? kFramesInFirstRegion : kFramesInRegion;
    uint32_t found = 0;
    uint32_t slot = (page * 383) & (kHashSlots - 1);
    for (uint32_t probes = 0;; ++probes, slot = (slot + 1) & (kHashSlots - 1)) {
      const uint32_t entry = Load<uint16_t>(region + kHashOffset + 2 * slot);
      if (entry == 0) break;
      // The table is at most half full: more probes than slots, or a number that cannot be, is a damaged index.
      if (probes >= kHashSlots || entry > frames_here) {
        return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", "the hash table of the wal-index is damaged");
      }
      const uint32_t frame = frames_before + entry;
      if (frame <= state.max_frame && Load<uint32_t>(pages + 4 * (entry - 1)) == page) found = std::max(found, frame);
    }
    if (found != 0) return found;
  }
  return 0u;
}

absl::StatusOr<uint32_t> WalIndex::Backfilled() const {
  LF_ASSIGN_OR_RETURN(const volatile std::byte* region, Region(0));
  database_->pMethods->xShmBarrier(database_);
  return Load<uint32_t>(region + 2 * kStateBytes);
}

absl::StatusOr<bool> WalIndex::ReadPage(uint32_t page, const WalState& state, std::span<std::byte> out) const {
  const absl::StatusOr<uint32_t> looked_up = FindFrame(page, state);
  const uint32_t frame = looked_up.value_or(0);
  bool intact = false;
  if (frame != 0) {
    const auto at = static_cast<sqlite3_int64>(kWalHeaderBytes + (frame - uint64_t{1}) * (kWalFrameHeaderBytes + out.size()));
    std::array<std::byte, kWalFrameHeaderBytes> head{};
    int rc = wal_->pMethods->xRead(wal_, head.data(), static_cast<int>(head.size()), at);
    if (rc == SQLITE_OK) rc = wal_->pMethods->xRead(wal_, out.data(), static_cast<int>(out.size()), at + static_cast<int>(head.size()));
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ)
      return sqlite::ToStatus(rc, nullptr, fmt::format("read frame {} of the WAL", frame));
    intact =
        rc == SQLITE_OK && LoadBigEndian<uint32_t>(head.data()) == page && std::equal(state.salts.begin(), state.salts.end(), &head[8]);
  }
  // Whoever starts the WAL over changes the salts in the wal-index before he writes the first frame: looked at after the read they prove
  // it.
  LF_ASSIGN_OR_RETURN(const WalState now, ReadState());
  if (now.salts != state.salts) return false;
  LF_RETURN_IF_ERROR(looked_up.status());
  if (frame != 0 && !intact) {
    return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
                 fmt::format("frame {} of the WAL is not the one of page {}", frame, page));
  }
  return frame != 0;
}

absl::Status WalIndex::NotStartedOver(const WalState& state) const {
  LF_ASSIGN_OR_RETURN(const WalState now, ReadState());
  if (now.salts == state.salts) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "FRAME_DAMAGED", "the WAL was started over while it was read");
}

absl::StatusOr<bool> WalIndex::IsOfWal(const WalState& state) const {
  std::array<std::byte, kWalHeaderBytes> head{};
  std::array<std::byte, kWalFrameHeaderBytes> last{};
  const auto last_at =
      static_cast<sqlite3_int64>(kWalHeaderBytes + (state.max_frame - uint64_t{1}) * (kWalFrameHeaderBytes + state.page_size));
  int rc = wal_->pMethods->xRead(wal_, head.data(), static_cast<int>(head.size()), 0);
  if (rc == SQLITE_OK) rc = wal_->pMethods->xRead(wal_, last.data(), static_cast<int>(last.size()), last_at);
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return sqlite::ToStatus(rc, nullptr, "read the WAL");
  const bool same = std::equal(state.salts.begin(), state.salts.end(), &head[kSaltsInHeader]) &&
                    std::equal(state.salts.begin(), state.salts.end(), &last[kSaltsInFrame]) &&
                    LoadBigEndian<uint32_t>(last.data() + 4) == state.page_count;
  if (rc == SQLITE_OK && same) return true;
  // Whoever starts it over changes the index before the file.
  LF_ASSIGN_OR_RETURN(const WalState now, ReadState());
  return now.salts != state.salts;
}

absl::StatusOr<uint64_t> WalIndex::FileBytes() const {
  sqlite3_int64 size = 0;
  if (const int rc = wal_->pMethods->xFileSize(wal_, &size); rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, "size of the WAL");
  return static_cast<uint64_t>(size);
}

}  // namespace litefleet::capture
