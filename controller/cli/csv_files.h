// The tables of a database as CSV files in a new directory.
//
// Thread safety: none. Errors: those of common/dump/dump_process.h and the disk; kAlreadyExists FILE_EXISTS.
#ifndef LITEFLEET_CONTROLLER_CLI_CSV_FILES_H_
#define LITEFLEET_CONTROLLER_CLI_CSV_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace litefleet::cli {

// What a table's file is called: its name, with everything that a file's name may not have, and a leading dot, as %XX.
std::string CsvFileName(std::string_view table);

// All tables and views of the database behind `fd`. `directory` (mode 0700) must not be there; after an error it is gone again. The names
// of the files.
absl::StatusOr<std::vector<std::string>> WriteCsvFiles(int fd, const std::string& directory);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_CSV_FILES_H_
