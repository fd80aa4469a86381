// The tables of a database as CSV files in a new directory.
//
// Thread safety: none. Errors: those of common/dump/dump_process.h and the disk; kAlreadyExists FILE_EXISTS; kResourceExhausted
// DUMP_TOO_LARGE.
#ifndef LITEFLEET_COMMON_DUMP_CSV_FILES_H_
#define LITEFLEET_COMMON_DUMP_CSV_FILES_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dump/dump_process.h"

namespace litefleet::dump {

// What a table's file is called: its name, with everything that a file's name may not have, and a leading dot, as %XX.
std::string CsvFileName(std::string_view table);

struct CsvOptions {
  std::vector<std::string> only = {};  // tables and views; all where it is empty
  // Called with what was just written; its error ends it. May be empty.
  std::function<absl::Status(uint64_t bytes)> wrote = {};
  // For all of them together, and for tables a second more for each; 0: each has its own time, by the size of the database. Tables come
  // first, so that views take no time of theirs.
  std::chrono::seconds time{0};
  uint64_t view_bytes = UINT64_MAX;   // of the text of a view or a virtual table, which says nothing about the size of its database
  uint64_t views_bytes = UINT64_MAX;  // of all of these together; tables have what the disk has (`wrote`)
};

struct CsvFiles {
  std::vector<std::string> names;
  // Views and virtual tables that could not be read, or not within time and bytes, where all are written: without what they are made of
  // they are nothing.
  struct LeftOut {
    std::string name, why;
  };
  std::vector<LeftOut> left_out;
};

// Tables and views of the database behind `fd`. `directory` (mode 0700) must not be there; after an error it is gone again. Files are
// synced, the directory is not.
absl::StatusOr<CsvFiles> WriteCsvFiles(const HelperOptions& helper, int fd, const std::string& directory, const CsvOptions& options);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_CSV_FILES_H_
