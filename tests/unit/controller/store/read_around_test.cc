// Disks of which some places, or many, cannot be read.
#include "controller/store/read_around.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/status.h"

namespace litefleet::store {
namespace {

constexpr uint64_t kPiece = 4096;

// Each piece holds its number.
class BadFile final : public File {
 public:
  explicit BadFile(uint64_t pieces) : pieces_(pieces) {}
  absl::StatusOr<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    ++reads;
    const uint64_t size = pieces_ * kPiece;
    const auto some = static_cast<size_t>(std::min<uint64_t>(out.size(), offset < size ? size - offset : 0));
    for (uint64_t at = offset; at < offset + some; ++at) {
      if (bad.contains(at / kPiece)) return ErrnoError(EIO, "read");
      out[at - offset] = ContentAt(at);
    }
    return some;
  }
  absl::Status WriteAt(uint64_t, ByteView, ByteView) override { return absl::OkStatus(); }
  absl::Status Truncate(uint64_t) override { return absl::OkStatus(); }
  absl::StatusOr<uint64_t> Size() override { return pieces_ * kPiece; }
  absl::Status Sync() override { return absl::OkStatus(); }
  void StartWriteback(uint64_t, uint64_t) override {}

  static std::byte ContentAt(uint64_t at) { return static_cast<std::byte>(1 + at / kPiece % 250); }
  void Spoil(uint64_t from, uint64_t count) {
    for (uint64_t i = from; i < from + count; ++i) bad.insert(i);
  }

  std::set<uint64_t> bad;
  int reads = 0;

 private:
  const uint64_t pieces_;
};

class ReadAroundTest : public testing::Test {
 protected:
  // All of it, as a scanner reads, from this place on.
  Bytes ReadAll(uint64_t from = 0, size_t window = 2 << 20) {
    gaps_ = {};
    file_.reads = 0;
    Bytes all;
    for (uint64_t at = from;;) {
      Bytes bytes(window);
      const auto got = ReadAround(
          file_, at, bytes, [] { return true; }, gaps_);
      EXPECT_TRUE(got.ok()) << got.status();
      if (!got.ok() || *got == 0) return all;
      all.insert(all.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(*got));
      at += *got;
    }
  }
  void ExpectExact(uint64_t from = 0) {
    const Bytes all = ReadAll(from);
    ASSERT_EQ(all.size(), kPieces * kPiece - from);
    for (uint64_t at = from; at < kPieces * kPiece; at += 97) {
      const std::byte expected = file_.bad.contains(at / kPiece) ? std::byte{0} : BadFile::ContentAt(at);
      ASSERT_EQ(all[at - from], expected) << at;
    }
    EXPECT_EQ(gaps_.any, !file_.bad.empty());
  }

  static constexpr uint64_t kPieces = 8192;
  BadFile file_{kPieces};
  Gaps gaps_;
};

TEST_F(ReadAroundTest, NothingElseIsLostBesideSmallBadPlaces) {
  ExpectExact();
  for (const uint64_t at : {0, 3, 5, 7, 511, 512, 4000, 8191}) file_.Spoil(at, 1);
  file_.Spoil(600, 15);
  file_.Spoil(616, 15);
  ExpectExact();
  ExpectExact(1000);
}

TEST_F(ReadAroundTest, TheEndOfALargeBadRegionIsFoundSoonAndToThePiece) {
  for (const uint64_t length : {16, 17, 31, 100, 511, 512, 513, 3000}) {
    file_.bad.clear();
    file_.Spoil(777, length);
    ExpectExact();
    EXPECT_LT(file_.reads, 1300) << length << ": beside those of what is sound";
  }
}

TEST_F(ReadAroundTest, AFileOfWhichNothingCanBeReadTakesFewReads) {
  file_.Spoil(0, kPieces);
  ExpectExact();
  EXPECT_LT(file_.reads, 200);
}

TEST_F(ReadAroundTest, ADiskThatGivesNothingIsAnError) {
  file_.Spoil(0, kPieces);
  Bytes bytes(1 << 20);
  const auto got = ReadAround(
      file_, 0, bytes, [] { return false; }, gaps_);
  EXPECT_EQ(ReasonOf(got.status()), "IO_ERROR");
  EXPECT_FALSE(gaps_.any);
}

}  // namespace
}  // namespace litefleet::store
