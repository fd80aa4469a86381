#include "common/files/beneath.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "common/io/file.h"

namespace litefleet::files {
namespace {

class BeneathTest : public testing::TestWithParam<OpenWay> {
 protected:
  BeneathTest() {
    std::string pattern = (std::filesystem::canonical(std::filesystem::temp_directory_path()) / "lf-beneath-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    std::filesystem::create_directories(folder_ + "/root/sub");
    std::filesystem::create_directory(folder_ + "/outside");
    for (const char* name : {"/root/a", "/root/sub/b", "/outside/c"}) std::ofstream(folder_ + name) << name;
    std::filesystem::create_symlink("a", folder_ + "/root/link");
    std::filesystem::create_symlink("../outside", folder_ + "/root/out");
    std::filesystem::create_symlink("sub", folder_ + "/root/in");
    std::filesystem::create_symlink("root", folder_ + "/alias");
  }
  ~BeneathTest() override { std::filesystem::remove_all(folder_); }
  bool Opens(const std::string& name, int flags = O_RDONLY) {
    const io::UniqueFd root(OpenRoot(folder_ + "/root", GetParam()));
    EXPECT_TRUE(root.valid());
    const io::UniqueFd file(OpenBeneath(root.get(), name, flags, GetParam()));
    return file.valid();
  }
  std::string folder_;
};

TEST_P(BeneathTest, FilesAndDirectoriesBelow) {
  EXPECT_TRUE(Opens("a"));
  EXPECT_TRUE(Opens("sub/b"));
  EXPECT_TRUE(Opens("sub", O_RDONLY | O_DIRECTORY));
  EXPECT_TRUE(Opens("", O_RDONLY | O_DIRECTORY));
  EXPECT_FALSE(Opens("none"));
  EXPECT_EQ(errno, ENOENT);
}

TEST_P(BeneathTest, NoLinkIsFollowedAndNothingLeadsOut) {
  for (const char* name : {"link", "out/c", "in/b", "out", "a/b"}) EXPECT_FALSE(Opens(name)) << name;
  if (GetParam() == OpenWay::kAny) {
    EXPECT_FALSE(Opens("sub/../../outside/c"));
    EXPECT_FALSE(Opens("../outside/c"));  // by hand only names that were checked are asked for
    EXPECT_FALSE(Opens(folder_ + "/outside/c"));
  }
}

TEST_P(BeneathTest, OtherFileSystemsAreNotEntered) {
  const io::UniqueFd root(OpenRoot("/", GetParam()));
  ASSERT_TRUE(root.valid());
  EXPECT_LT(OpenBeneath(root.get(), "proc/self/status", O_RDONLY, GetParam()), 0);
  EXPECT_EQ(errno, EXDEV);
}

TEST_P(BeneathTest, TheRootIsReachedWithoutLinks) {
  EXPECT_LT(OpenRoot(folder_ + "/alias", GetParam()), 0);
  EXPECT_LT(OpenRoot(folder_ + "/alias/sub", GetParam()), 0);
  EXPECT_LT(OpenRoot(folder_ + "/root/a", GetParam()), 0);
  EXPECT_LT(OpenRoot(folder_ + "/none", GetParam()), 0);
  EXPECT_EQ(errno, ENOENT);
}

INSTANTIATE_TEST_SUITE_P(Ways, BeneathTest, testing::Values(OpenWay::kAny, OpenWay::kByHand));

}  // namespace
}  // namespace litefleet::files
