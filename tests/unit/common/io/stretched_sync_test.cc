#include "common/io/stretched_sync.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "common/base/status.h"
#include "common/io/file.h"

namespace litefleet::io {
namespace {

class StretchedSyncTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "stretched-XXXXXX";
    fd_ = UniqueFd(mkstemp(path_.data()));
    ASSERT_TRUE(fd_.valid());
  }
  void TearDown() override { unlink(path_.c_str()); }

  std::string path_;
  UniqueFd fd_;
};

TEST_F(StretchedSyncTest, AsksBeforeEachStretchAndBeforeTheSync) {
  for (const auto& [mebibytes, questions] : {std::pair(0, 1), {8, 1}, {9, 2}, {64, 8}}) {
    ASSERT_EQ(ftruncate(fd_.get(), off_t{mebibytes} << 20), 0);
    int asked = 0;
    const absl::Status synced = SyncInStretches(fd_.get(), path_, [&] {
      ++asked;
      return false;
    });
    EXPECT_TRUE(synced.ok()) << synced;
    EXPECT_EQ(asked, questions) << mebibytes;
  }
}

TEST_F(StretchedSyncTest, StopsWhereItIsToldTo) {
  ASSERT_EQ(ftruncate(fd_.get(), 64 << 20), 0);
  int asked = 0;
  const absl::Status synced = SyncInStretches(fd_.get(), path_, [&] { return ++asked == 3; });
  EXPECT_EQ(ReasonOf(synced), "CANCELLED") << synced;
  EXPECT_EQ(asked, 3);
}

TEST_F(StretchedSyncTest, SaysWhatTheDiskSays) {
  EXPECT_FALSE(SyncInStretches(-1, path_, [] { return false; }).ok());
}

}  // namespace
}  // namespace litefleet::io
