// The other end of SQLite's Online Backup API: a database that is never written anywhere, but handed on extent by extent.
//
// It is a VFS of its own with one file in memory. SQLite writes pages in ascending order, the few of its small cache late and page 1 a
// second time at the end; a window of some extents takes what is not complete yet. Page 1 is not handed on as SQLite writes it, since the
// backup rewrites fields of it: the caller gives the source's.
//
// Not for reading back. Thread safety: none. Memory: the window, at most 2.5 MiB.
// Source: https://www.sqlite.org/backup.html, https://www.sqlite.org/vfs.html
#ifndef LITEFLEET_AGENT_CAPTURE_PAGE_SINK_H_
#define LITEFLEET_AGENT_CAPTURE_PAGE_SINK_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/sqlite/handle.h"

namespace litefleet::capture {

class PageSink {
 public:
  static absl::StatusOr<std::unique_ptr<PageSink>> Open();
  ~PageSink();
  PageSink(const PageSink&) = delete;
  PageSink& operator=(const PageSink&) = delete;

  // The destination of sqlite3_backup_init. It must be finished before this goes.
  sqlite3* db() { return db_.get(); }

  // REQUIRES: called once, before the first page; first_page.size() == page_size.
  void Start(uint32_t page_size, uint32_t page_count, ByteView first_page);

  // How many pages may be handed to SQLite while the front extent is incomplete.
  int PagesAStep() const { return static_cast<int>(step_); }
  // The extent that is handed on next, from 0.
  uint32_t front() const { return front_; }
  bool FrontComplete() const { return filled_[Slot(front_)] == PagesIn(front_); }
  // REQUIRES: FrontComplete(). Valid until Pop().
  ByteView Front() const;
  void Pop();

  // Page 1 as SQLite wrote it last; empty before.
  ByteView written_first_page() const { return written_first_page_; }
  // Why a write was refused; empty when none was.
  const std::string& failure() const { return failure_; }

 private:
  struct File {
    sqlite3_file base;
    PageSink* sink;
  };
  PageSink();
  static const sqlite3_io_methods* Methods();
  int Write(const std::byte* data, size_t size, uint64_t offset);
  int Read(std::byte* out, size_t size, uint64_t offset);
  int Refuse(std::string why);

  uint32_t PagesIn(uint32_t extent) const;
  size_t Slot(uint32_t extent) const { return extent % window_; }
  // Makes the slot of a new extent empty, the lock-byte page filled.
  void Clear(uint32_t extent);

  sqlite3_vfs vfs_{};
  std::string vfs_name_;
  sqlite::DatabaseHandle db_;

  // Constant after Start.
  uint32_t page_size_ = 0;
  uint32_t page_count_ = 0;
  uint32_t extent_count_ = 0;
  uint32_t step_ = 1;
  uint32_t window_ = 1;

  uint32_t front_ = 0;
  std::vector<std::byte> pages_;  // window_ extents
  std::vector<uint32_t> filled_;  // pages of each
  std::vector<bool> present_;     // of each page in the window
  Bytes written_first_page_;
  uint64_t end_ = 0;  // size of the file as SQLite sees it
  std::string failure_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PAGE_SINK_H_
