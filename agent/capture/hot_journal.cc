#include "agent/capture/hot_journal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "common/base/bytes.h"
#include "common/io/file.h"

namespace litefleet::capture {
namespace {

// Of the header: magic, count of records, nonce, pages that the database had, sector size, page size. It fills a sector.
constexpr size_t kNonceAt = 12;
constexpr size_t kOriginalPagesAt = 16;
constexpr size_t kSectorSizeAt = 20;
constexpr size_t kPageSizeAt = 24;
constexpr uint64_t kLeastBytes = 512;  // what SQLite takes for a sector before it has read how large one is

struct Start {
  FileId file;
  uint64_t bytes = 0;                  // of the file
  std::array<std::byte, 28> header{};  // zeros where it is shorter
};

std::optional<Start> ReadStart(const std::string& path) {
  const absl::StatusOr<io::UniqueFd> fd = io::Open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  struct stat st {};
  if (!fd.ok() || fstat(fd->get(), &st) != 0 || !S_ISREG(st.st_mode)) return std::nullopt;
  Start start{{st.st_dev, st.st_ino}, static_cast<uint64_t>(st.st_size), {}};
  const auto there = std::span(start.header).first(static_cast<size_t>(std::min<uint64_t>(start.header.size(), start.bytes)));
  if (!io::PreadAll(fd->get(), there, 0, path).ok()) return std::nullopt;
  return start;
}

bool PowerOfTwo(uint32_t value, uint32_t least) { return value >= least && value <= 65536 && std::has_single_bit(value); }

}  // namespace

std::optional<JournalId> FindHotJournal(const std::string& path) {
  const std::optional<Start> start = ReadStart(path);
  if (!start.has_value() || start->header[0] == std::byte{0}) return std::nullopt;
  JournalId id{start->file, {}};
  std::copy_n(start->header.begin() + kNonceAt, id.header.size(), id.header.begin());
  return id;
}

bool IsOfFirstTransaction(const std::string& path) {
  const std::optional<Start> start = ReadStart(path);
  if (!start.has_value() || !std::equal(kJournalMagic.begin(), kJournalMagic.end(), start->header.begin())) return false;
  const auto at = [&](size_t offset) { return LoadBigEndian<uint32_t>(&start->header[offset]); };
  // Where SQLite does not believe the header it takes the journal away and leaves the file as it is.
  return PowerOfTwo(at(kSectorSizeAt), 32) && PowerOfTwo(at(kPageSizeAt), 512) &&
         start->bytes >= std::max<uint64_t>(at(kSectorSizeAt), kLeastBytes) && at(kOriginalPagesAt) == 0;
}

}  // namespace litefleet::capture
