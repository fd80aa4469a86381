#include "agent/capture/open_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <functional>

#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

class OpenFilesTest : public CaptureTest {
 protected:
  void SetUp() override {
    for (const char* name : {"a", "b", "c"}) std::ofstream(Path(name)) << name;
    for (size_t i = 0; i < files_.size(); ++i) files_[i] = FileIdOf(Path(std::string(1, "abc"[i]))).value();
  }
  // Has "c" and "a" open.
  int Live(const std::function<void()>& ready, const std::function<bool()>& asked_to_stop) const {
    for (const char* name : {"c", "a"}) {
      if (open(Path(name).c_str(), O_RDONLY | O_CLOEXEC) < 0) return 1;
    }
    std::ofstream(Path("pid")) << getpid();
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  }
  pid_t pid() const {
    pid_t pid = 0;
    std::ifstream(Path("pid")) >> pid;
    return pid;
  }

  std::array<FileId, 3> files_;
};

TEST_F(OpenFilesTest, OfAProcessThatCanBeLookedAt) {
  pid_t then = 0;
  {
    Child child([this](const auto& ready, const auto& asked_to_stop) { return Live(ready, asked_to_stop); });
    then = pid();
    const OpenFiles open = FindOpenFiles(then, files_);
    EXPECT_THAT(open.found, testing::ElementsAre(files_[0], files_[2]));
    EXPECT_TRUE(open.complete);
    EXPECT_FALSE(open.gone);
    EXPECT_THAT(FindOpenFiles(then, files_, /*any=*/true).found, testing::ElementsAre(files_[2])) << "the one that was opened first";
    EXPECT_EQ(child.Stop(), 0);
  }
  const OpenFiles open = FindOpenFiles(then, files_);
  EXPECT_TRUE(open.gone);
  EXPECT_TRUE(open.complete);
  EXPECT_TRUE(open.found.empty());
}

// That nothing was found says nothing there.
TEST_F(OpenFilesTest, OfAProcessThatMayNotBeLookedAt) {
  constexpr uint32_t kPtrace = 1u << CAP_SYS_PTRACE;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct rights[2] = {};
  ASSERT_EQ(syscall(SYS_capget, &header, rights), 0);
  if ((rights[0].permitted & kPtrace) == 0) GTEST_SKIP() << "needs a capability to give away: CAP_SYS_PTRACE";
  Child child([this](const auto& ready, const auto& asked_to_stop) { return Live(ready, asked_to_stop); });
  Child looker([&](const auto& ready, const auto&) {
    rights[0].permitted &= ~kPtrace;
    rights[0].effective &= ~kPtrace;
    if (syscall(SYS_capset, &header, rights) != 0) return 1;
    const OpenFiles open = FindOpenFiles(pid(), files_);
    ready();
    return open.found.empty() && !open.complete && !open.gone ? 0 : 2;
  });
  EXPECT_EQ(looker.Stop(), 0);
  EXPECT_EQ(child.Stop(), 0);
}

}  // namespace
}  // namespace litefleet::capture
