// The kernel's lease alone: who asks for it cannot see the process that has the file open, this one.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "agent/restore/in_use.h"
#include "agent/restore/target_place.h"
#include "common/base/status.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::HasSubstr;

class UnseenUserTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    Make(path_, "old", "delete", 100);
  }
  // What a process that `enter` has taken out of sight answers.
  template <class Enter>
  std::string LeaseTakenBy(Enter enter) {
    int answer[2];
    EXPECT_EQ(pipe(answer), 0);
    const pid_t child = fork();
    if (child == 0) _exit(enter() ? Answer(answer[1]) : Say(answer[1], "cannot"));
    close(answer[1]);
    char buffer[1000];
    const ssize_t n = read(answer[0], buffer, sizeof buffer);
    close(answer[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    return std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0);
  }
  template <class Enter>
  void ExpectRefusedWhileOpen(Enter enter) {
    const std::string unused = LeaseTakenBy(enter);
    if (unused == "cannot") GTEST_SKIP() << "needs root, and the right to make name spaces";
    if (unused == "no leases here") GTEST_SKIP() << "the file system of the temporary directory gives no leases";
    EXPECT_EQ(unused, "taken");
    const int reader = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(reader, 0);
    const std::string refused = LeaseTakenBy(enter);
    close(reader);
    EXPECT_TRUE(refused.starts_with("IN_USE")) << refused;
    EXPECT_THAT(refused, HasSubstr("a process that is not visible from here"));
  }

 private:
  static int Say(int fd, const std::string& text) {
    return write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 3;
  }
  int Answer(int fd) const {
    const auto place = TargetPlace::Resolve(path_);
    if (!place.ok()) return 2;
    const auto lease = WriteLease::Take(*place, place->name());
    if (!lease.ok()) return Say(fd, ReasonOf(lease.status()) + ": " + MessageOf(lease.status()));
    if (!lease->has_value()) return Say(fd, "no leases here");
    std::string text = "taken";
    if ((*lease)->Wanted()) text += ", wanted too early";
    if (open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC) >= 0 || errno != EWOULDBLOCK) text += ", and not held";
    if (!(*lease)->Wanted()) text += ", and not told that it is wanted";
    return Say(fd, text);
  }
};

TEST_F(UnseenUserTest, OfAnotherUser) {
  constexpr uid_t kNobody = 65534;
  for (const std::string& path : {folder_, data_, path_}) static_cast<void>(chown(path.c_str(), kNobody, kNobody));
  ExpectRefusedWhileOpen([] { return geteuid() == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0; });
}

TEST_F(UnseenUserTest, OutsideOfTheContainer) {
  ExpectRefusedWhileOpen([] {
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    // The name space is its first child's: this process hands on how that one ends.
    const pid_t inside = fork();
    if (inside > 0) {
      int status = 0;
      _exit(waitpid(inside, &status, 0) == inside && WIFEXITED(status) ? WEXITSTATUS(status) : 4);
    }
    return inside == 0 && mount("proc", "/proc", "proc", 0, nullptr) == 0;
  });
}

}  // namespace
}  // namespace litefleet::restore
