// Reads of any size and order against the file itself; how many there were; errors that stay where they belong.
#include "common/check/read_ahead.h"

#include <gmock/gmock.h>
#include <sqlite3.h>

#include <cstring>
#include <random>
#include <string>

namespace litefleet::check {
namespace {

constexpr int kPage = 4096;

class ReadAheadTest : public testing::Test {
 protected:
  explicit ReadAheadTest(int64_t bytes = 40 * ReadAhead::kBlock + 3 * kPage) : file_(static_cast<size_t>(bytes), '\0') {
    std::mt19937 random(7);
    for (char& byte : file_) byte = static_cast<char>(random());
  }
  int ReadFile(int64_t offset, void* out, int amount) {
    ++reads_;
    const int64_t end = static_cast<int64_t>(file_.size());
    const int there = static_cast<int>(std::max<int64_t>(0, std::min<int64_t>(amount, end - offset)));
    if (bad_at_ >= offset && bad_at_ < offset + amount) return SQLITE_IOERR_READ;
    std::memcpy(out, file_.data() + std::min(offset, end), static_cast<size_t>(there));
    std::memset(static_cast<char*>(out) + there, 0, static_cast<size_t>(amount - there));
    return there == amount ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  std::string Read(int64_t offset, int amount, int expected = SQLITE_OK) {
    std::string out(static_cast<size_t>(amount), '!');
    EXPECT_EQ(ahead_.Read(offset, out.data(), amount), expected) << offset << " " << amount;
    return out;
  }

  std::string file_;
  int reads_ = 0;
  int64_t bad_at_ = -1;
  ReadAhead ahead_{static_cast<int64_t>(file_.size()),
                   [this](int64_t offset, void* out, int amount) { return ReadFile(offset, out, amount); }};
};

TEST_F(ReadAheadTest, OneAfterTheOtherIsReadInBlocks) {
  for (int64_t at = 0; at < static_cast<int64_t>(file_.size()); at += kPage)
    EXPECT_EQ(Read(at, kPage), file_.substr(static_cast<size_t>(at), kPage)) << at;
  EXPECT_LE(reads_, 43);
}

TEST_F(ReadAheadTest, SeveralStreamsDoNotDisturbEachOther) {
  const int64_t half = 20 * ReadAhead::kBlock;
  for (int64_t at = 0; at < half; at += kPage) {
    EXPECT_EQ(Read(at, kPage), file_.substr(static_cast<size_t>(at), kPage));
    EXPECT_EQ(Read(half + at, kPage), file_.substr(static_cast<size_t>(half + at), kPage));
  }
  EXPECT_LE(reads_, 44);
}

TEST_F(ReadAheadTest, HereAndThereIsReadAsAskedFor) {
  for (int64_t block = 39; block > 0; block -= 3) Read(block * ReadAhead::kBlock + kPage, kPage);
  EXPECT_EQ(reads_, 13);
}

TEST_F(ReadAheadTest, AnyOrderGivesWhatTheFileHas) {
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    const int64_t at = static_cast<int64_t>(random() % file_.size());
    const int amount = static_cast<int>(std::min<size_t>(1 + random() % 9000, file_.size() - static_cast<size_t>(at)));
    ASSERT_EQ(Read(at, amount), file_.substr(static_cast<size_t>(at), static_cast<size_t>(amount))) << at << " " << amount;
  }
}

TEST_F(ReadAheadTest, BehindTheEndAreZeros) {
  const auto end = static_cast<int64_t>(file_.size());
  for (int64_t at = end - 5 * kPage; at < end; at += kPage) Read(at, kPage);
  EXPECT_EQ(Read(end - 10, 20, SQLITE_IOERR_SHORT_READ), file_.substr(file_.size() - 10) + std::string(10, '\0'));
  EXPECT_EQ(Read(end + 10 * kPage, 20, SQLITE_IOERR_SHORT_READ), std::string(20, '\0'));
}

TEST_F(ReadAheadTest, AnErrorIsOnlyThatPages) {
  bad_at_ = 2 * ReadAhead::kBlock + 5 * kPage;
  for (int64_t at = 0; at < 4 * ReadAhead::kBlock; at += kPage) {
    if (at == bad_at_) {
      Read(at, kPage, SQLITE_IOERR_READ);
    } else {
      EXPECT_EQ(Read(at, kPage), file_.substr(static_cast<size_t>(at), kPage)) << at;
    }
  }
}

}  // namespace
}  // namespace litefleet::check
