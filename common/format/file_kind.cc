#include "common/format/file_kind.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace litefleet::format {
namespace {

using Group = FileKind::Group;

// Different bytes: of 4096 random ones all 256 are there, of 1 KiB about 250. Text has about 100; a database with random blobs may have as
// many, but then it has far more zeros than other bytes.
constexpr size_t kLooksRandom = 220;
constexpr size_t kSmallestPage = 1024;
constexpr size_t kReservedAt = 20;
constexpr size_t kPlainBytes = 32;  // what SQLCipher's documentation tells people to leave plain
constexpr size_t kTreeAt = 100;

struct Known {
  size_t at;
  std::string_view begin;
  Group group;
  std::string_view name;
};
constexpr std::array kKnown = {
    Known{0, "\x1f\x8b", Group::kPacked, "compressed with gzip"},
    Known{0, "\x28\xb5\x2f\xfd", Group::kPacked, "compressed with zstd"},
    Known{0,
          "\xfd"
          "7zXZ",
          Group::kPacked, "compressed with xz"},
    Known{0, "BZh", Group::kPacked, "compressed with bzip2"},
    Known{0, "PK\x03\x04", Group::kPacked, "a zip archive"},
    Known{0, "\xff\xfe", Group::kOtherText, "text in UTF-16"},
    Known{0, "\xfe\xff", Group::kOtherText, "text in UTF-16"},
    Known{0, "ZV-", Group::kOtherDatabase, "a compressed database of the VFS ZIPVFS"},
    Known{0, "** This file contains an SQLite 2", Group::kOtherDatabase, "a database of SQLite 2"},
    Known{8, "DUCK", Group::kOtherDatabase, "a database of DuckDB"},
    Known{4, "Standard Jet DB", Group::kOtherDatabase, "a database of Access"},
    Known{4, "Standard ACE DB", Group::kOtherDatabase, "a database of Access"},
    Known{0, "\x37\x7f\x06\x82", Group::kBesideDatabase, "the WAL of a database"},
    Known{0, "\x37\x7f\x06\x83", Group::kBesideDatabase, "the WAL of a database"},
    Known{0, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", Group::kBesideDatabase, "the rollback journal of a database"},
};

bool LooksRandom(ByteView bytes) {
  std::array<size_t, 256> seen{};
  for (const std::byte b : bytes) ++seen[std::to_integer<size_t>(b)];
  const auto different = std::count_if(seen.begin(), seen.end(), [](size_t count) { return count > 0; });
  return static_cast<size_t>(different) >= kLooksRandom && *std::max_element(seen.begin(), seen.end()) <= 3 * bytes.size() / 256 + 12;
}

}  // namespace

FileKind KindOf(ByteView head, uint64_t bytes) {
  const std::string_view text = AsText(head);
  for (const Known& known : kKnown) {
    if (text.size() >= known.at && text.substr(known.at).starts_with(known.begin)) return {known.group, known.name};
  }
  if (text.find('\0') == std::string_view::npos) return {Group::kText, "text"};
  if (head.size() >= kKindBytes && bytes % 512 == 0 && LooksRandom(head.first(kKindBytes))) return {Group::kEncrypted, "encrypted"};
  return {};
}

bool EncryptedBehindHeader(ByteView page) {
  if (page.size() < kSmallestPage || page[kReservedAt] == std::byte{0}) return false;
  const int type = std::to_integer<int>(page[kTreeAt]);
  if (type == 0x05 || type == 0x0d) return false;
  return LooksRandom(page.subspan(kPlainBytes, std::min(page.size(), kKindBytes) - kPlainBytes));
}

}  // namespace litefleet::format
