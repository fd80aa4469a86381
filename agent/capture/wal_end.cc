#include "agent/capture/wal_end.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <string_view>

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

absl::Status NotCertain(uint32_t frame, std::string_view what) {
  return Error(absl::StatusCode::kAborted, "FRAME_DAMAGED", fmt::format("frame {} of the WAL: {}", frame, what));
}

// As much of a frame as `out` holds; false: the file ends before.
absl::StatusOr<bool> ReadFrame(sqlite3_file* wal, uint32_t page_size, uint32_t number, std::span<std::byte> out) {
  const uint64_t at = WalBytes(page_size, number) - kWalFrameHeaderBytes - page_size;
  const int rc = wal->pMethods->xRead(wal, out.data(), static_cast<int>(out.size()), static_cast<sqlite3_int64>(at));
  if (rc == SQLITE_IOERR_SHORT_READ) return false;
  if (rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, fmt::format("read frame {} of the WAL", number));
  return true;
}

// Where the kernel lets no write come between the look at a file's size and its change. ZFS, among others, may cut off what was just
// appended.
bool ExtendsBesideWriters(int fd) {
  struct statfs facts {};
  if (fstatfs(fd, &facts) != 0) return false;
  const auto type = static_cast<uint32_t>(facts.f_type);
  return type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC || type == F2FS_SUPER_MAGIC ||
         type == TMPFS_MAGIC;
}

bool ChecksumIs(ByteView head, const std::array<uint32_t, 2>& sum) {
  return LoadBigEndian<uint32_t>(&head[16]) == sum[0] && LoadBigEndian<uint32_t>(&head[20]) == sum[1];
}

}  // namespace

absl::StatusOr<WalPlace> EndOfGeneration(sqlite3_file* wal, const WalPlace& from) {
  if (wal == nullptr) return Error(absl::StatusCode::kInternal, "IO_ERROR", "there is no WAL open");
  if (from.frame == 0) return NotCertain(0, "nothing of the generation is known");
  WalPlace end = from;
  std::array<uint32_t, 2> sum = from.checksum;
  Bytes frame(kWalFrameHeaderBytes + from.page_size);
  for (uint32_t number = from.frame + 1;; ++number) {
    LF_ASSIGN_OR_RETURN(const bool there, ReadFrame(wal, from.page_size, number, frame));
    // A limit of its size may have cut it off, also just between two commits.
    if (!there) return NotCertain(number, "the file ends here, and may have been cut off");
    const ByteView head = ByteView(frame).first(kWalFrameHeaderBytes);
    if (!std::equal(from.salts.begin(), from.salts.end(), &head[8])) break;
    AddToWalChecksum(from.big_endian, head.first(8), sum);
    AddToWalChecksum(from.big_endian, ByteView(frame).subspan(kWalFrameHeaderBytes), sum);
    // Of a transaction that was rolled back, or a committed one that is damaged.
    if (!ChecksumIs(head, sum)) return NotCertain(number, "it is of the generation, and does not follow from those before");
    if (const uint32_t pages = LoadBigEndian<uint32_t>(&head[4]); pages != 0) {
      end.frame = number;
      end.checksum = sum;
      end.page_count = pages;
    }
  }
  // Whoever overwrites the end comes by this frame first, whichever salts he has and whether he commits or not.
  LF_ASSIGN_OR_RETURN(const bool there, ReadFrame(wal, from.page_size, from.frame, std::span(frame).first(kWalFrameHeaderBytes)));
  const ByteView head = ByteView(frame).first(kWalFrameHeaderBytes);
  if (!there || !std::equal(from.salts.begin(), from.salts.end(), &head[8]) || !ChecksumIs(head, from.checksum))
    return NotCertain(from.frame, "it is there no more");
  return end;
}

bool KeepRoomBehind(const UserDatabase& database, uint64_t end, uint64_t bytes) {
  const std::string path = database.real_path() + "-wal";
  // No lock of SQLite's is on this file, so that closing it again lets go of none.
  const auto file = io::Open(path, O_RDWR | O_NOFOLLOW);
  if (!file.ok()) return false;
  struct stat facts {};
  if (!ExtendsBesideWriters(file->get())) return false;
  if (fstat(file->get(), &facts) != 0 || !S_ISREG(facts.st_mode) || FileIdOf(path) != FileId{facts.st_dev, facts.st_ino} ||
      !database.HasFilesOfPath())
    return false;
  const auto size = static_cast<uint64_t>(facts.st_size), wanted = end + bytes;
  // Somebody cut it: who reads what is missing is told so, and would copy zeros into the database else.
  if (size < end) return false;
  // Never shorter, and no byte that is there is written: writers may be appending.
  return size >= wanted || fallocate(file->get(), 0, facts.st_size, static_cast<off_t>(wanted - size)) == 0;
}

}  // namespace litefleet::capture
