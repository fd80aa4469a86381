#include "agent/capture/database_header.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/file_kind.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace litefleet::capture {
namespace {

constexpr std::string_view kMagic("SQLite format 3\0", 16);

uint32_t Field(ByteView page, size_t offset) { return LoadBigEndian<uint32_t>(page.data() + offset); }

}  // namespace

bool HasMagic(ByteView first_bytes) { return first_bytes.size() >= kMagic.size() && AsText(first_bytes.first(kMagic.size())) == kMagic; }

std::optional<DatabaseHeader> ParseHeader(ByteView first_bytes) {
  if (first_bytes.size() < kHeaderBytes || !HasMagic(first_bytes)) return std::nullopt;
  DatabaseHeader header;
  const uint32_t raw = LoadBigEndian<uint16_t>(first_bytes.data() + 16);
  header.page_size = raw == 1 ? 65536 : raw;
  if (!format::IsPageSize(header.page_size)) return std::nullopt;
  header.wal = std::to_integer<int>(first_bytes[19]) == 2;
  header.page_count = Field(first_bytes, 28);
  header.page_count_valid = header.page_count != 0 && Field(first_bytes, 24) == Field(first_bytes, 92);
  return header;
}

std::string InspectFirstPage(ByteView page, uint32_t page_count) {
  if (format::EncryptedBehindHeader(page)) return std::string(kLooksEncrypted);
  std::vector<std::string> facts;
  const int type = std::to_integer<int>(page[100]);
  if (type != 0x05 && type != 0x0d) facts.push_back(fmt::format("the root page of the schema has type {}", type));
  if (const uint32_t encoding = Field(page, 56); encoding > 3) facts.push_back(fmt::format("text encoding {} does not exist", encoding));
  if (const uint32_t schema_format = Field(page, 44); schema_format > 4) {
    facts.push_back(fmt::format("schema format {} does not exist", schema_format));
  }
  if (const uint32_t trunk = Field(page, 32); trunk > page_count) {
    facts.push_back(fmt::format("the list of free pages begins at page {} of {}", trunk, page_count));
  }
  if (const uint32_t free = Field(page, 36); free > page_count) {
    facts.push_back(fmt::format("the header counts {} free pages of {}", free, page_count));
  }
  return fmt::format("{}", fmt::join(facts, "; "));
}

absl::Status NameWalVersion(const absl::Status& status, ByteView wal) {
  constexpr uint32_t kWalMagic = 0x377f0682, kWalVersion = 3007000;
  if (wal.size() < 8 || (Field(wal, 0) & ~1u) != kWalMagic || Field(wal, 4) == kWalVersion) return status;
  return Error(
      absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
      fmt::format("{}: its WAL says that it is of version {}, and SQLite knows {}", MessageOf(status), Field(wal, 4), kWalVersion),
      "the header of the WAL is damaged: restore it from a snapshot; without its WAL it would be the state of the last checkpoint");
}

bool SameFirstPage(ByteView source, ByteView copy) {
  if (source.size() != copy.size() || source.size() < kHeaderBytes) return false;
  // Ranges that must be equal.
  static constexpr std::pair<size_t, size_t> kKept[] = {{0, 18}, {20, 24}, {32, 40}, {44, 92}};
  for (const auto& [begin, end] : kKept) {
    if (!std::equal(source.begin() + begin, source.begin() + end, copy.begin() + begin)) return false;
  }
  return std::equal(source.begin() + kHeaderBytes, source.end(), copy.begin() + kHeaderBytes);
}

}  // namespace litefleet::capture
