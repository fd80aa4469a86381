// What the disk refuses while a file is written back: the kernel says it once, to whoever waits.
#include "common/io/writeback.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/io/stretched_sync.h"
#include "common/io/uncached_writer.h"
#include "tests/fakes/hooked_syncs.h"

namespace litefleet::io {
namespace {

class WritebackTest : public ::testing::Test {
 protected:
  void SetUp() override { MakeIn(::testing::TempDir()); }
  void TearDown() override {
    g_wait_error = nullptr;
    unlink(path_.c_str());
  }
  void MakeIn(const std::string& directory) {
    path_ = directory + "writeback-XXXXXX";
    fd_ = UniqueFd(mkstemp(path_.data()));
    ASSERT_TRUE(fd_.valid());
  }
  // The `nth` wait fails, from 1 on, and no other.
  void FailWait(int nth, int error) {
    waits_ = 0;
    g_wait_error = [this, nth, error](std::string_view path) { return path == path_ && ++waits_ == nth ? error : 0; };
  }
  absl::Status SyncAll() {
    return SyncInStretches(fd_.get(), path_, [] { return false; });
  }

  std::string path_;
  UniqueFd fd_;
  int waits_ = 0;
};

TEST_F(WritebackTest, TheFirstErrorStays) {
  ASSERT_EQ(ftruncate(fd_.get(), 64 << 20), 0);
  FailWait(2, ENOSPC);
  Writeback writeback;
  for (uint64_t end = 8 << 20; end <= 64 << 20; end += 8 << 20) writeback.Wrote(fd_.get(), end);
  EXPECT_GT(waits_, 3);
  EXPECT_EQ(ReasonOf(writeback.status(path_)), "DISK_FULL") << writeback.status(path_);
}

TEST_F(WritebackTest, AStretchThatFailsIsAnErrorOfTheSync) {
  ASSERT_EQ(ftruncate(fd_.get(), 64 << 20), 0);
  FailWait(1, EIO);
  const absl::Status synced = SyncAll();
  EXPECT_EQ(ReasonOf(synced), "IO_ERROR") << synced;
  EXPECT_NE(MessageOf(synced).find(path_), std::string::npos) << synced;
  EXPECT_TRUE(SyncAll().ok()) << "of the disk that is well again";
}

TEST_F(WritebackTest, ACancelHidesNoError) {
  ASSERT_EQ(ftruncate(fd_.get(), 64 << 20), 0);
  FailWait(1, EIO);
  const absl::Status synced = SyncInStretches(fd_.get(), path_, [this] { return waits_ > 0; });
  EXPECT_EQ(ReasonOf(synced), "IO_ERROR") << synced;
}

TEST_F(WritebackTest, AFileSystemWithoutPartsIsNone) {
  ASSERT_EQ(ftruncate(fd_.get(), 64 << 20), 0);
  for (const int error : {EINVAL, ENOSYS, ESPIPE}) {
    FailWait(1, error);
    EXPECT_TRUE(SyncAll().ok()) << error;
    EXPECT_GT(waits_, 0);
  }
}

// On a file system that lives in the cache alone it writes back.
TEST_F(WritebackTest, AWriterThatMayNotGoPastTheCacheTells) {
  unlink(path_.c_str());
  MakeIn("/dev/shm/");
  FailWait(1, EIO);
  UncachedWriter writer(fd_.get(), path_);
  const std::string block(1 << 20, 'x');
  for (int i = 0; i < 90; ++i) ASSERT_TRUE(writer.Write(AsBytes(block)).ok());
  const absl::Status finished = writer.Finish();
  if (waits_ == 0) GTEST_SKIP() << "this file system can be written past the cache";
  EXPECT_EQ(ReasonOf(finished), "IO_ERROR") << finished;
}

}  // namespace
}  // namespace litefleet::io
