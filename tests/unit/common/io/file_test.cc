#include "common/io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "common/base/status.h"

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

TEST_F(FileTest, LocalFileSystemsAreNoNetworkOnes) {
  EXPECT_EQ(NetworkFileSystemName(directory_), "");
  EXPECT_EQ(NetworkFileSystemName("/proc"), "");
  EXPECT_GT(*FreeBytes(directory_), 0u);
}

}  // namespace
}  // namespace litefleet::io
