#include "common/io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "common/base/status.h"
#include "common/io/mounts.h"
#include "common/io/patient_lock.h"

namespace litefleet::io {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/litefleet-io-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
};

TEST_F(FileTest, AtomicWriteReplacesAndSetsTheMode) {
  const std::string path = directory_ + "/file with space";
  ASSERT_TRUE(WriteFileAtomic(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomic(path, "two", 0640).ok());
  EXPECT_EQ(*ReadFile(path), "two");
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(FileTest, ReadIsBounded) {
  const std::string path = directory_ + "/f";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(100000, 'x')).ok());
  EXPECT_EQ(ReasonOf(ReadFile(path, 1000).status()), "FILE_TOO_LARGE");
  EXPECT_EQ(ReadFile(path)->size(), 100000u);
  EXPECT_EQ(ReasonOf(ReadFile(directory_ + "/none").status()), "FILE_NOT_FOUND");
}

TEST_F(FileTest, PreadTellsAShortFile) {
  const std::string path = directory_ + "/f";
  ASSERT_TRUE(WriteFileAtomic(path, "abc").ok());
  const auto fd = Open(path, O_RDONLY);
  ASSERT_TRUE(fd.ok());
  Bytes out(4);
  EXPECT_EQ(ReasonOf(PreadAll(fd->get(), out, 0, path)), "FILE_TOO_SHORT");
  EXPECT_TRUE(PreadAll(fd->get(), std::span(out).first(2), 1, path).ok());
  EXPECT_EQ(AsText(ByteView(out).first(2)), "bc");
}

TEST_F(FileTest, DirectoryOf) {
  EXPECT_EQ(DirectoryOf("/a/b"), "/a");
  EXPECT_EQ(DirectoryOf("/a"), "/");
  EXPECT_EQ(DirectoryOf("/a/"), "/");
  EXPECT_EQ(DirectoryOf("a"), ".");
  EXPECT_EQ(DirectoryOf("/"), "/");
}

TEST_F(FileTest, MakesParents) {
  EXPECT_TRUE(MakeDirectory(directory_ + "/a/b/c").ok());
  EXPECT_TRUE(MakeDirectory(directory_ + "/a/b/c").ok());
  ASSERT_TRUE(WriteFileAtomic(directory_ + "/file", "").ok());
  EXPECT_FALSE(MakeDirectory(directory_ + "/file").ok());
  EXPECT_FALSE(MakeDirectory(directory_ + "/file/x").ok());
}

TEST_F(FileTest, ASecondProcessIsRefusedByName) {
  const std::string path = directory_ + "/lock";
  const auto lock = ProcessLock::Acquire(path);
  ASSERT_TRUE(lock.ok());
  const std::string owner = std::to_string(getpid());
  const pid_t child = fork();
  if (child == 0) {
    const auto second = ProcessLock::Acquire(path);
    const bool refused =
        !second.ok() && ReasonOf(second.status()) == "ALREADY_RUNNING" && MessageOf(second.status()).find(owner) != std::string::npos;
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(FileTest, WhoLooksWhetherTheOwnerRunsDoesNotKeepItFromStarting) {
  const std::string path = directory_ + "/lock";
  auto looking = Open(path, O_RDWR | O_CREAT);
  ASSERT_TRUE(looking.ok());
  ASSERT_EQ(flock(looking->get(), LOCK_SH | LOCK_NB), 0);
  std::thread looker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    looking->Reset(-1);
  });
  int tries = 0;
  const auto lock = LockPatiently([&] {
    ++tries;
    return ProcessLock::Acquire(path);
  });
  looker.join();
  EXPECT_TRUE(lock.ok()) << lock.status();
  EXPECT_GT(tries, 1);
  EXPECT_EQ(ReasonOf(LockPatiently([&] { return ProcessLock::Acquire(path); }).status()), "ALREADY_RUNNING") << "an owner stays one";
}

TEST_F(FileTest, WhoMayHaveToWaitLongerSaysSo) {
  int tries = 6;
  const auto acquire = [&]() -> absl::StatusOr<ProcessLock> {
    if (tries-- > 0) return Error(absl::StatusCode::kFailedPrecondition, "ALREADY_RUNNING", "somebody changes something");
    return ProcessLock::Acquire(directory_ + "/lock");
  };
  EXPECT_EQ(ReasonOf(LockPatiently(acquire).status()), "ALREADY_RUNNING");
  tries = 6;
  EXPECT_TRUE(LockPatiently(acquire, std::chrono::milliseconds(600)).ok());
}

TEST_F(FileTest, LocalFileSystemsAreNoNetworkOnes) {
  EXPECT_EQ(NetworkFileSystemName(directory_), "");
  EXPECT_EQ(NetworkFileSystemName("/proc/self/status"), "");
  EXPECT_EQ(NetworkFileSystemName("/nowhere"), "");
  EXPECT_GT(*FreeBytes(directory_), 0u);
}

TEST(MountsTest, FuseIsRemoteByTheTypeOfItsMount) {
  const std::string table =
      "22 27 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
      "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "90 27 0:50 / /media/my\\040card rw master:1 shared:7 - fuseblk /dev/sdb1 rw,user_id=0\n"
      "91 27 0:51 / /srv/far rw,nosuid - fuse.sshfs host:/srv rw,user_id=0\n"
      "92 27 0:52 / /srv/- rw shared:9 - fuse.glusterfs gluster:/v rw\n"
      "93 27 0:53 / /srv/near rw shared:10 - fuse.mergerfs a:b rw\n"
      "94 27 0:54 / /srv/ceph rw shared:11 - fuse.ceph-fuse ceph-fuse rw\n"
      "95 27 0:55";
  const auto type = [&](unsigned minor) {
    std::istringstream mounts(table);
    return NetworkFuseType(mounts, makedev(0, minor));
  };
  EXPECT_EQ(type(50), "");
  EXPECT_EQ(type(51), "fuse.sshfs");
  EXPECT_EQ(type(52), "fuse.glusterfs");
  EXPECT_EQ(type(53), "");
  EXPECT_EQ(type(54), "fuse.ceph-fuse");
  EXPECT_EQ(type(55), "") << "a line that ends early";
  EXPECT_EQ(type(5), "") << "a prefix of others";
}

}  // namespace
}  // namespace litefleet::io
