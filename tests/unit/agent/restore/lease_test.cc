// The kernel's lease alone: who asks for it cannot see the process that has the file open, this one.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>

#include "agent/restore/in_use.h"
#include "agent/restore/target_place.h"
#include "common/base/status.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::HasSubstr;

constexpr uid_t kNobody = 65534;

// False where it could not be had, and so not be lost.
bool Lose(int capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  const uint32_t bit = 1u << capability;
  if (syscall(SYS_capget, &header, data) != 0 || (data[0].permitted & bit) == 0) return false;
  data[0].permitted &= ~bit;
  data[0].effective &= ~bit;
  return syscall(SYS_capset, &header, data) == 0;
}

bool LosePtrace() { return Lose(CAP_SYS_PTRACE); }

// A name space of processes of its own, with its own /proc. True in the process that is inside.
bool EnterContainer() {
  if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  // The name space is its first child's: this process hands on how that one ends.
  const pid_t inside = fork();
  if (inside > 0) {
    int status = 0;
    _exit(waitpid(inside, &status, 0) == inside && WIFEXITED(status) ? WEXITSTATUS(status) : 4);
  }
  return inside == 0 && mount("proc", "/proc", "proc", 0, nullptr) == 0;
}

class UnseenUserTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    Make(path_, "old", "delete", 100);
  }
  void BelongToNobody() const {
    for (const std::string& path : {folder_, data_, path_}) static_cast<void>(chown(path.c_str(), kNobody, kNobody));
  }
  // What a process that `enter` has taken out of sight answers.
  template <class Enter, class Answer>
  static std::string SaidBy(Enter enter, Answer say) {
    int answer[2];
    EXPECT_EQ(pipe(answer), 0);
    const pid_t child = fork();
    if (child == 0) {
      const std::string text = enter() ? say() : "cannot";
      _exit(write(answer[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 3);
    }
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
  std::string LeaseTakenBy(Enter enter) const {
    return SaidBy(enter, [this] { return TakeLease(); });
  }
  // How a restore in the place of the database ends.
  template <class Enter>
  std::string ReplacedBy(Enter enter) {
    return SaidBy(enter, [this] {
      const Outcome outcome = Run();
      return outcome.status.ok() ? std::string("replaced") : ReasonOf(outcome.status) + ": " + MessageOf(outcome.status);
    });
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
  std::string TakeLease() const {
    const auto place = TargetPlace::Resolve(path_);
    if (!place.ok()) return MessageOf(place.status());
    const auto lease = WriteLease::Take(*place, place->name());
    if (!lease.ok()) return ReasonOf(lease.status()) + ": " + MessageOf(lease.status());
    if (!lease->has_value()) return "no leases here";
    std::string text = "taken";
    if ((*lease)->Wanted()) text += ", wanted too early";
    if (open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC) >= 0 || errno != EWOULDBLOCK) text += ", and not held";
    if (!(*lease)->Wanted()) text += ", and not told that it is wanted";
    return text;
  }
};

TEST_F(UnseenUserTest, OfAnotherUser) {
  BelongToNobody();
  ExpectRefusedWhileOpen([] { return geteuid() == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0; });
}

// As the agent's unit has it: the list of another process's descriptors can be read, and nothing of what is behind them.
TEST_F(UnseenUserTest, OfMoreRights) { ExpectRefusedWhileOpen(LosePtrace); }

// No lease is possible where it is refused for another reason than that the file is open: then the answer is in /proc, or nowhere.
TEST_F(UnseenUserTest, WithoutALease) {
  const int open_here = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(open_here, 0);
  struct stat st {};
  ASSERT_EQ(fstat(open_here, &st), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(open_here);
    if (!LosePtrace()) _exit(77);
    const capture::FileId file{st.st_dev, st.st_ino};
    const Users users = FindUsers(std::span(&file, 1));
    _exit(users.complete ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  close(open_here);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs root, and capabilities that can be given away";
  EXPECT_EQ(status, 0) << "nobody can be said to have it closed";
}

TEST_F(UnseenUserTest, OutsideOfTheContainer) { ExpectRefusedWhileOpen(EnterContainer); }

// A container's agent is root there without CAP_LEASE, the database on a volume is another user's: no lease is to be had, and /proc shows
// nobody. In rollback mode the application holds no lock between its transactions.
TEST_F(UnseenUserTest, OutsideOfTheContainerWhereNoLeaseIsToBeHad) {
  BelongToNobody();
  MakeSnapshot("delete", 100);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  Application application(path_, Application::kIdle);
  const std::string ended = ReplacedBy([] { return EnterContainer() && Lose(CAP_LEASE); });
  if (ended == "cannot") GTEST_SKIP() << "needs root, and the right to make name spaces";
  EXPECT_TRUE(ended.starts_with("CANNOT_PROVE_UNUSED")) << ended;
  EXPECT_THAT(ended, HasSubstr("outside of the agent's container"));
  EXPECT_EQ(application.Stop(), 0);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

// Where all processes show, who has it open is seen without a lease, too.
TEST_F(UnseenUserTest, WhereAllShowNoLeaseIsNeeded) {
  BelongToNobody();
  MakeSnapshot("delete", 100);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  if (InContainer()) GTEST_SKIP() << "these tests run in a container";
  const auto enter = [] { return Lose(CAP_LEASE); };
  {
    Application application(path_, Application::kIdle);
    const std::string ended = ReplacedBy(enter);
    if (ended == "cannot") GTEST_SKIP() << "needs root";
    EXPECT_TRUE(ended.starts_with("IN_USE")) << ended;
    EXPECT_EQ(application.Stop(), 0);
  }
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  const std::string ended = ReplacedBy([&] { return enter() && FindUsers({}).complete; });
  if (ended == "cannot") GTEST_SKIP() << "a process of this machine hides what it has open from root, too";
  EXPECT_EQ(ended, "replaced");
  EXPECT_EQ(Label(path_), "new");
}

}  // namespace
}  // namespace litefleet::restore
