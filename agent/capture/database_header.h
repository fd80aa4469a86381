// The first 100 bytes of a database, and what they tell about its health without parsing content; the header of a WAL.
//
// Thread safety: values and pure functions. Source: https://www.sqlite.org/fileformat2.html section 1.3
#ifndef LITEFLEET_AGENT_CAPTURE_DATABASE_HEADER_H_
#define LITEFLEET_AGENT_CAPTURE_DATABASE_HEADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/base/bytes.h"

namespace litefleet::capture {

inline constexpr size_t kHeaderBytes = 100;

struct DatabaseHeader {
  uint32_t page_size = 0;
  bool wal = false;         // SQLite uses a WAL for it: read version 2
  uint32_t page_count = 0;  // as the header says; 0 or stale where an old SQLite wrote last
  bool page_count_valid = false;
};

// True for anything that SQLite, unencrypted, would take for its own.
bool HasMagic(ByteView first_bytes);

// Nothing without magic or a valid page size. REQUIRES: nothing; short input gives nothing.
std::optional<DatabaseHeader> ParseHeader(ByteView first_bytes);

// What InspectFirstPage says of a page that only looks like SQLite's.
inline constexpr std::string_view kLooksEncrypted =
    "it looks encrypted behind a plain header (SQLCipher's cipher_plaintext_header_size): only its application can read it";

// What is plainly wrong with page 1 of a database of `page_count` pages; empty when nothing is. REQUIRES: a whole page.
std::string InspectFirstPage(ByteView page, uint32_t page_count);

// SQLite says of a WAL of another version that the database cannot be opened (SQLITE_CANTOPEN, `status`), which sounds like a missing file.
// DATABASE_DAMAGED (kDataLoss) in its place where that is so by `wal`, the first bytes of the WAL.
absl::Status NameWalVersion(const absl::Status& status, ByteView wal);

// Whether two copies of page 1 are of one state: equal but for the fields that SQLite's backup rewrites (18-19, 24-31, 40-43, 92-99).
bool SameFirstPage(ByteView source, ByteView copy);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_DATABASE_HEADER_H_
