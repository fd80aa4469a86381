#include "agent/capture/page_reader.h"

#include <algorithm>

#include "agent/capture/database_header.h"
#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::capture {

absl::StatusOr<std::unique_ptr<PageReader>> PageReader::Begin(UserDatabase& database) {
  std::unique_ptr<PageReader> reader(new PageReader(database));
  LF_ASSIGN_OR_RETURN(reader->read_, PinnedRead::Begin(database));
  LF_RETURN_IF_ERROR(reader->CountPages());
  return reader;
}

// As SQLite counts when a read transaction begins.
absl::Status PageReader::CountPages() {
  if (read_->empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(file_bytes_, database_.FileBytes());
  uint64_t pages = (file_bytes_ + page_size() - 1) / page_size();
  if (read_->wal_index() != nullptr && read_->wal_state().max_frame != 0) pages = read_->wal_state().page_count;
  const auto header = ParseHeader(read_->first_page());
  if (header && header->page_count_valid) pages = std::min<uint64_t>(pages, header->page_count);
  page_count_ = static_cast<uint32_t>(std::min<uint64_t>(pages, format::kMaxPageCount));
  return absl::OkStatus();
}

absl::Status PageReader::Read(uint32_t first_page, std::span<std::byte> out) {
  const size_t page_size = this->page_size();
  const uint64_t offset = (uint64_t{first_page} - 1) * page_size;
  const auto in_file = static_cast<size_t>(std::min<uint64_t>(out.size(), file_bytes_ > offset ? file_bytes_ - offset : 0));
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(in_file), out.end(), std::byte{0});
  // The file does not change under this transaction where it counts: whoever folds the WAL in stops at the frames that it may see.
  if (in_file > 0) {
    sqlite3_file* const file = database_.file();
    const int rc = file == nullptr ? SQLITE_CANTOPEN
                                   : file->pMethods->xRead(file, out.data(), static_cast<int>(in_file), static_cast<sqlite3_int64>(offset));
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return database_.ErrorFor(rc, "read");
  }
  const uint32_t lock_byte = format::LockBytePage(read_->page_size());
  const WalIndex* const wal = read_->wal_index();
  for (size_t at = 0; at < out.size(); at += page_size) {
    const auto page = first_page + static_cast<uint32_t>(at / page_size);
    const auto place = out.subspan(at, page_size);
    if (page == lock_byte) {
      std::fill(place.begin(), place.end(), std::byte{0});
      continue;
    }
    if (wal == nullptr || read_->wal_state().max_frame == 0) continue;
    // Not into its place at once: where the WAL was started over meanwhile the file's content counts.
    frame_.resize(page_size);
    LF_ASSIGN_OR_RETURN(const bool found, wal->ReadPage(page, read_->wal_state(), frame_));
    if (found) std::copy(frame_.begin(), frame_.end(), place.begin());
  }
  return absl::OkStatus();
}

}  // namespace litefleet::capture
