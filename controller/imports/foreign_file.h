// What a file is that somebody brought, by its first bytes: a database, SQL text, or neither and why.
//
// It reads the header alone, byte by byte; whether SQLite can read the rest is found out in the helper process (design law 12).
// Thread safety: a pure function.
//
// Errors (kInvalidArgument): IMPORT_NOT_A_DATABASE, IMPORT_ENCRYPTED, IMPORT_TRUNCATED.
#ifndef LITEFLEET_CONTROLLER_IMPORTS_FOREIGN_FILE_H_
#define LITEFLEET_CONTROLLER_IMPORTS_FOREIGN_FILE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::imports {

// So much of the beginning is enough.
inline constexpr size_t kHeadBytes = 64 << 10;

struct ForeignFile {
  bool sql = false;
  // Of SQL text: bytes before it that are none (a byte order mark).
  uint64_t skip = 0;
  // Of a database.
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  v1::JournalMode journal_mode = v1::JOURNAL_MODE_UNSPECIFIED;
};

// `head`: the first kHeadBytes, or all of it; `bytes`: of the file.
absl::StatusOr<ForeignFile> Recognise(ByteView head, uint64_t bytes);

}  // namespace litefleet::imports

#endif  // LITEFLEET_CONTROLLER_IMPORTS_FOREIGN_FILE_H_
