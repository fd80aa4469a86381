// The reader engine of the page source: pages of a pinned state, at random, through SQLite's own handles.
//
// The last frame of the WAL that belongs to the state, else the database file. Both engines give the same bytes, page 1 included. Not a
// source of a whole backup: that is OpenOnlineSource, which lets SQLite do the reading. In rollback mode writers wait while it lives; in
// WAL mode the WAL grows. Thread safety: none. Ownership: the database must outlive it. Memory: one page. Errors: those of PinnedRead.
// Source: https://www.sqlite.org/walformat.html, https://www.sqlite.org/fileformat2.html section 1.3.8
#ifndef LITEFLEET_AGENT_CAPTURE_PAGE_READER_H_
#define LITEFLEET_AGENT_CAPTURE_PAGE_READER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "common/base/bytes.h"

namespace litefleet::capture {

class PageReader {
 public:
  // Pins the newest state. REQUIRES: no transaction is open on `database`.
  static absl::StatusOr<std::unique_ptr<PageReader>> Begin(UserDatabase& database);
  PageReader(const PageReader&) = delete;
  PageReader& operator=(const PageReader&) = delete;

  uint32_t page_size() const { return read_->page_size(); }
  uint32_t page_count() const { return page_count_; }
  // Nobody waits for this read.
  bool wal() const { return read_->wal(); }
  const std::string& damage() const { return read_->damage(); }
  const PinnedRead& pinned() const { return *read_; }

  // Consecutive pages; what the file does not have, and the lock-byte page, is zeros. REQUIRES: out.size() is a multiple of the page size,
  // first_page > 0.
  absl::Status Read(uint32_t first_page, std::span<std::byte> out);

 private:
  explicit PageReader(UserDatabase& database) : database_(database) {}
  absl::Status CountPages();

  UserDatabase& database_;
  std::unique_ptr<PinnedRead> read_;
  uint32_t page_count_ = 0;
  uint64_t file_bytes_ = 0;
  Bytes frame_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PAGE_READER_H_
