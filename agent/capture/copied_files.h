// A database file and what lay beside it, copied to files without names, and what SQLite makes of them: the state that the next opener of
// the originals would see.
//
// The copies are this object's own: SQLite rolls a hot journal back in them, or folds a WAL into them, and nothing of the originals is
// touched. Afterwards the first file alone is the database, byte for byte. Files without names leave nothing behind, whatever ends the
// process.
//
// SQLite sees page headers, journal and WAL here, as it does when it opens the original; no schema is parsed. Not for files that somebody
// else has open. Thread safety: none. Memory: SQLite's cache, and 8 bytes a frame of the WAL while that is folded in.
// Errors of Recover: DATABASE_DAMAGED and NOT_A_DATABASE (kDataLoss) where SQLite refuses them, DISK_FULL, IO_ERROR, OUT_OF_MEMORY.
#ifndef LITEFLEET_AGENT_CAPTURE_COPIED_FILES_H_
#define LITEFLEET_AGENT_CAPTURE_COPIED_FILES_H_

#include <sqlite3.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/io/file.h"

namespace litefleet::capture {

// Whether the file system of `directory` lets two files share blocks (FICLONE): tried, with two files without names.
bool CanShareBlocks(const std::string& directory);

class CopiedFiles {
 public:
  enum Which { kDatabase = 0, kWal = 1, kJournal = 2 };
  static constexpr int kFiles = 3;

  // Empty files without names in `directory`. Errors: ErrnoError; kUnimplemented UNNAMED_FILES where the file system has none.
  static absl::StatusOr<std::unique_ptr<CopiedFiles>> Make(const std::string& directory);
  ~CopiedFiles();
  CopiedFiles(const CopiedFiles&) = delete;
  CopiedFiles& operator=(const CopiedFiles&) = delete;

  int fd(Which which) const { return files_[which].get(); }
  // There is such a file beside the database. Without one, or after Drop, SQLite sees none.
  void Have(Which which) { present_[which] = true; }
  absl::Status Drop(Which which);
  absl::Status Truncate(Which which, uint64_t bytes);
  absl::StatusOr<uint64_t> Bytes(Which which) const;
  // A journal of a transaction over several databases counts while its super-journal exists. Looked at now, as long as the lock holds off
  // whoever would roll the original back and remove it; Recover goes by this.
  absl::Status NoteSuperJournal();

  // `name` is the database's, for errors.
  absl::Status Recover(const std::string& name);
  // Of Recover: the file ended within a page, here, and no WAL had that page. What was folded in has filled it up with zeros.
  std::optional<uint64_t> torn_at() const { return torn_at_; }

 private:
  CopiedFiles();
  struct File;
  static const sqlite3_io_methods* Methods();
  int Open(const char* name, sqlite3_file* file, int flags, int* out_flags);
  // As whoever opens the database: a journal is rolled back, a WAL folded in.
  absl::Status Open(const std::string& context);
  int Fold(sqlite3* db);
  // The last page of the file, where that ends within it.
  struct Torn {
    uint64_t offset;
    uint32_t page_size;
    litefleet::Bytes piece;
  };
  absl::StatusOr<std::optional<Torn>> TornPage() const;

  std::array<io::UniqueFd, kFiles> files_;
  std::array<bool, kFiles> present_{true, false, false};
  std::optional<std::pair<std::string, bool>> super_journal_;  // its name, and whether it was there
  std::optional<uint64_t> torn_at_;
  const std::string vfs_name_;
  sqlite3_vfs vfs_{};
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_COPIED_FILES_H_
