#include "common/format/catalog_backup.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/base/status.h"
#include "common/format/digest.h"

namespace litefleet::format {
namespace {

Bytes Pack(ByteView content, const CatalogBackupHeader& header) {
  Bytes out;
  const auto write = [&](ByteView bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  };
  CatalogBackupWriter writer;
  EXPECT_TRUE(writer.Begin(header, write).ok());
  while (!content.empty()) {
    const size_t some = std::min<size_t>(content.size(), kCatalogBlockBytes);
    EXPECT_TRUE(writer.Add(content.first(some), write).ok());
    content = content.subspan(some);
  }
  EXPECT_TRUE(writer.Finish(write).ok());
  return out;
}

absl::StatusOr<Bytes> Unpack(const Bytes& file) {
  Bytes content;
  const auto read = [&](uint64_t offset, std::span<std::byte> out) -> absl::StatusOr<size_t> {
    if (offset >= file.size()) return size_t{0};
    const size_t some = std::min<size_t>(out.size(), file.size() - offset);
    std::memcpy(out.data(), file.data() + offset, some);
    return some;
  };
  const auto header = ReadCatalogBackup(read, [&](ByteView block) {
    content.insert(content.end(), block.begin(), block.end());
    return absl::OkStatus();
  });
  if (!header.ok()) return header.status();
  return content;
}

Bytes SomeContent(size_t size) {
  Bytes content(size);
  for (size_t i = 0; i < size; ++i) content[i] = std::byte(i * i >> 7 ^ i >> 18);
  return content;
}

TEST(CatalogBackupFormat, EverySizeComesBack) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{kCatalogBlockBytes}, size_t{kCatalogBlockBytes} * 2 + 512}) {
    const Bytes content = SomeContent(size);
    const auto unpacked = Unpack(Pack(content, {.id = 7, .made_at_ms = 1'700'000'000'000, .catalog_version = 12}));
    ASSERT_TRUE(unpacked.ok()) << size << ": " << unpacked.status();
    EXPECT_EQ(*unpacked, content) << size;
  }
}

// Bytes of version 1, which every later version reads.
TEST(CatalogBackupFormat, GoldenBytes) {
  const Bytes content(4096);
  const Bytes file = Pack(content, {.id = 7, .made_at_ms = 1'700'000'000'000, .catalog_version = 12});
  EXPECT_EQ(ToHex(ByteView(file).first(64)),
            "4c4643415442"
            "0d0a"
            "01000000"
            "40000000"
            "0000000000000000"
            "0700000000000000"
            "0068e5cf8b010000"
            "0c000000"
            "00000000000000000000000000000000" +
                ToHex(ByteView(file).subspan(60, 4)));
  EXPECT_EQ(ToHex(ByteView(file).subspan(64, 4)), "00100000");
  const ByteView end = ByteView(file).last(64);
  EXPECT_EQ(ToHex(end.first(24)),
            "0000000000000000"
            "0010000000000000"
            "0100000000000000");
  std::array<std::byte, 64> link{};
  const auto digest = Sha256(content);
  std::copy(digest.begin(), digest.end(), link.begin() + 32);
  EXPECT_EQ(ToHex(end.subspan(24, 32)), ToHex(Sha256(link))) << "the chain of one block";
}

TEST(CatalogBackupFormat, EveryFlippedBitAndEveryCutIsSeen) {
  const Bytes file = Pack(SomeContent(3000), {.id = 1, .made_at_ms = 5, .catalog_version = 1});
  for (size_t at = 0; at < file.size(); ++at) {
    Bytes damaged = file;
    damaged[at] ^= std::byte{0x10};
    const auto unpacked = Unpack(damaged);
    EXPECT_FALSE(unpacked.ok()) << at;
    EXPECT_NE(ReasonOf(unpacked.status()), "") << at;
    EXPECT_FALSE(Unpack(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(at))).ok()) << "cut at " << at;
  }
  Bytes longer = file;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Unpack(longer).ok());
}

TEST(CatalogBackupFormat, BlocksInAnotherOrderAreSeen) {
  const Bytes content = SomeContent(2 * kCatalogBlockBytes);
  Bytes swapped = content;
  std::rotate(swapped.begin(), swapped.begin() + kCatalogBlockBytes, swapped.end());
  const Bytes good = Pack(content, {.id = 1});
  const Bytes other = Pack(swapped, {.id = 1});
  ASSERT_EQ(good.size(), other.size());
  Bytes mixed(good.begin(), good.end() - 64);
  mixed.insert(mixed.end(), other.end() - 64, other.end());
  EXPECT_EQ(ReasonOf(Unpack(mixed).status()), "CATALOG_BACKUP_DAMAGED");
}

TEST(CatalogBackupFormat, AnErrorOfTheDiskIsNoDamage) {
  const auto read = [](uint64_t, std::span<std::byte>) -> absl::StatusOr<size_t> {
    return Error(absl::StatusCode::kInternal, "IO_ERROR", "read");
  };
  EXPECT_EQ(ReasonOf(ReadCatalogBackupHeader(read).status()), "IO_ERROR");
}

}  // namespace
}  // namespace litefleet::format
