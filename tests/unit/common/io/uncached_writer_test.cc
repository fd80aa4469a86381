// Whatever the pieces and the file system, the file is what was written; what fails is told.
#include "common/io/uncached_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "common/base/status.h"
#include "common/io/file.h"

namespace litefleet::io {
namespace {

std::string Pattern(size_t size) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i * 2654435761U >> 13);
  return data;
}

class UncachedWriterTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string name = std::string(GetParam()) + "/litefleet-uncached-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) GTEST_SKIP() << GetParam() << " is not there";
    directory_ = name;
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  UniqueFd Make() { return Open(Path(), O_WRONLY | O_CREAT | O_TRUNC).value(); }
  std::string Path() const { return directory_ + "/file"; }
  std::string directory_;
};

TEST_P(UncachedWriterTest, TheFileIsWhatWasWritten) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{1} << 20, (size_t{7} << 20) + 512, (size_t{9} << 20) + 5}) {
    for (const size_t piece : {size_t{1000}, size_t{262'144}, size_t{5} << 20}) {
      const std::string data = Pattern(size);
      const UniqueFd fd = Make();
      UncachedWriter writer(fd.get(), Path());
      for (size_t at = 0; at < size; at += piece) {
        ASSERT_TRUE(writer.Write(AsBytes(data).subspan(at, std::min(piece, size - at))).ok());
      }
      ASSERT_TRUE(writer.Finish().ok());
      EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_DIRECT, 0);
      ASSERT_EQ(ReadFile(Path(), 64 << 20).value(), data) << size << " bytes in pieces of " << piece;
    }
  }
}

TEST_P(UncachedWriterTest, WhatWasBegunMayBeForgotten) {
  const UniqueFd fd = Make();
  UncachedWriter writer(fd.get(), Path());
  ASSERT_TRUE(writer.Write(AsBytes(Pattern(size_t{6} << 20))).ok());
}

// A file that may not grow any further fails as a full disk does.
TEST_P(UncachedWriterTest, AnErrorIsToldAndStays) {
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{2 << 20, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  {
    const UniqueFd fd = Make();
    UncachedWriter writer(fd.get(), Path());
    const std::string data = Pattern(1 << 20);
    absl::Status status;
    for (int i = 0; i < 20 && status.ok(); ++i) status = writer.Write(AsBytes(data));
    EXPECT_FALSE(status.ok()) << "at the latest when all blocks are in use";
    EXPECT_FALSE(writer.Finish().ok());
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, ignored);
}

// ext4 or what else the disk has, and a file system that lives in the cache alone.
INSTANTIATE_TEST_SUITE_P(FileSystems, UncachedWriterTest, testing::Values("/var/tmp", "/dev/shm"));

}  // namespace
}  // namespace litefleet::io
