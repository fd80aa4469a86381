#include "controller/imports/foreign_file.h"

#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/file_kind.h"
#include "fmt/format.h"

namespace litefleet::imports {
namespace {

constexpr std::string_view kMagic("SQLite format 3\0", 16);
constexpr size_t kHeader = 100;

absl::Status Refused(std::string_view reason, const std::string& message, std::string_view hint) {
  return Error(absl::StatusCode::kDataLoss, reason, message, hint);  // as the agent says it of a source
}

uint32_t Big32(ByteView bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[at + i]);
  return value;
}

absl::StatusOr<ForeignFile> Database(ByteView head, uint64_t bytes) {
  constexpr std::string_view kWhole = "copy all of it again, with its application stopped";
  if (head.size() < kHeader)
    return Refused("IMPORT_TRUNCATED", fmt::format("the database has {} bytes, and no whole header", bytes), kWhole);
  ForeignFile file;
  const uint32_t size = std::to_integer<uint32_t>(head[16]) << 8 | std::to_integer<uint32_t>(head[17]);
  file.page_size = size == 1 ? 65536 : size;
  if (!format::IsPageSize(file.page_size)) {
    return Refused("IMPORT_NOT_A_DATABASE", fmt::format("its header says pages of {} bytes, which no database has", file.page_size),
                   "if it is encrypted, let its application write SQL text, and import that");
  }
  const uint64_t pages = bytes / file.page_size;
  if (pages == 0 || bytes % file.page_size != 0) {
    return Refused("IMPORT_TRUNCATED", fmt::format("the database has {} bytes, which are no whole pages of {}", bytes, file.page_size),
                   kWhole);
  }
  if (pages > format::kMaxPageCount) return Refused("IMPORT_NOT_A_DATABASE", fmt::format("no database has {} pages", pages), kWhole);
  file.page_count = static_cast<uint32_t>(pages);
  // Of use only where the last writer set both; older versions of SQLite do not.
  const uint32_t said = Big32(head, 28);
  if (said != 0 && Big32(head, 24) == Big32(head, 92)) {
    if (said > pages)
      return Refused("IMPORT_TRUNCATED", fmt::format("the database has {} pages, and its header says {}", pages, said), kWhole);
    file.page_count = said;
  }
  file.journal_mode = head[18] == std::byte{2} ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK;
  return file;
}

}  // namespace

absl::StatusOr<ForeignFile> Recognise(ByteView head, uint64_t bytes) {
  if (bytes == 0) return Refused("IMPORT_NOT_A_DATABASE", "the file is empty", "name a database file, or a file of SQL text");
  const std::string_view text = AsText(head);
  if (text.starts_with(kMagic)) return Database(head, bytes);
  using Group = format::FileKind::Group;
  const format::FileKind kind = format::KindOf(head, bytes);
  switch (kind.group) {
    case Group::kText:
      return ForeignFile{.sql = true, .skip = text.starts_with("\xef\xbb\xbf") ? 3u : 0u};
    case Group::kOtherText:
    case Group::kPacked:
      return Refused("IMPORT_NOT_A_DATABASE", fmt::format("the file is {}", kind.name),
                     kind.group == Group::kPacked ? "take out what is in it, and import that" : "convert it to UTF-8: iconv -t UTF-8");
    case Group::kOtherDatabase:
      return Refused("IMPORT_NOT_A_DATABASE", fmt::format("the file is {}", kind.name),
                     "let its application write SQL text, and import that");
    case Group::kBesideDatabase:
      return Refused("IMPORT_NOT_A_DATABASE", fmt::format("the file is {}", kind.name),
                     "import a copy of the database itself: sqlite3 FILE \".backup COPY\"");
    case Group::kEncrypted:
      return Refused("IMPORT_ENCRYPTED", "the file looks like an encrypted database: nothing can read it without its key",
                     "let its application write it without encryption, or as SQL text, and import that");
    case Group::kUnknown:
      break;
  }
  return Refused("IMPORT_NOT_A_DATABASE", "the file is neither an SQLite database nor SQL text in UTF-8",
                 "import a database file, or the SQL text that `sqlite3 FILE .dump` writes");
}

}  // namespace litefleet::imports
