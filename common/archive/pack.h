// Finds files by their rules and writes them as a pax archive. Runs in the helper process, with the rights of who started it.
//
// Nothing is followed: directories are walked by descriptors, each file is opened again below the root (beneath.h). Two archives of the
// same files are equal byte by byte: names in order, owners by number, nanoseconds, no times but the modification's. Thread safety: none.
// Memory: the names (rules.h bounds them), 1 MiB.
#ifndef LITEFLEET_COMMON_ARCHIVE_PACK_H_
#define LITEFLEET_COMMON_ARCHIVE_PACK_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/files/rules.h"

namespace litefleet::archive {

struct PackOptions {
  std::string root;
  files::Rules rules;
  // A line for each file with all that tells whether it has changed, instead of the archive.
  bool list_only = false;
  // A file that changes while it is read is taken as it was read, and told; else the archive ends with kChanged.
  bool tolerant = false;
};

enum class PackEnd { kOk, kRefused, kChanged, kFailed };

struct Packed {
  PackEnd end = PackEnd::kFailed;
  std::string reason;  // where it did not end well
  std::string text;
  int64_t newest_ms = 0;           // when something was last written to one of the files, in Unix time
  std::vector<std::string> notes;  // what was left out or is not as it should be, at most 16
};

// `write` takes the archive, or the lines; false ends it.
Packed Pack(const PackOptions& options, const std::function<bool(std::string_view)>& write);

}  // namespace litefleet::archive

#endif  // LITEFLEET_COMMON_ARCHIVE_PACK_H_
