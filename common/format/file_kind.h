// What a file is that SQLite cannot read, judged by how it begins: for people who have named the wrong file, or whose database is
// encrypted.
//
// Not for decisions about content: a guess for messages, which never makes a file readable. Thread safety: pure functions.
// Source: https://www.sqlite.org/fileformat2.html section 1.3, https://www.zetetic.net/sqlcipher/sqlcipher-api/
// (cipher_plaintext_header_size)
#ifndef LITEFLEET_COMMON_FORMAT_FILE_KIND_H_
#define LITEFLEET_COMMON_FORMAT_FILE_KIND_H_

#include <cstdint>
#include <string_view>

#include "common/base/bytes.h"

namespace litefleet::format {

// So much of the beginning is looked at.
inline constexpr size_t kKindBytes = 4096;

struct FileKind {
  enum class Group {
    kUnknown,
    kText,            // no byte of it is 0: nothing says that it is SQL
    kOtherText,       // UTF-16
    kPacked,          // an archive, or compressed
    kOtherDatabase,   // of another engine, or for another VFS
    kBesideDatabase,  // SQLite's own file beside a database
    kEncrypted,       // bytes as random, and a size of whole pages
  };
  Group group = Group::kUnknown;
  std::string_view name;  // "compressed with gzip"; empty: not known
};

// `head`: the first kKindBytes, or all of it; `bytes`: of the file. REQUIRES: it does not begin as an SQLite database does.
FileKind KindOf(ByteView head, uint64_t bytes);

// A first page that has SQLite's header and nothing of SQLite's behind it: SQLCipher leaves the beginning plain where it is told to, so
// that other programs take the file for what it is. `page`: with SQLite's magic, whole.
bool EncryptedBehindHeader(ByteView page);

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_FILE_KIND_H_
