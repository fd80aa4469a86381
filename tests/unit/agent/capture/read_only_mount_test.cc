// A directory that is read-only for the agent alone, as systemd's ProtectSystem=strict makes it: others write there.
#include "agent/capture/read_only_mount.h"

#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "agent/capture/file_facts.h"
#include "agent/capture/mount.h"
#include "tests/unit/agent/capture/methods_fixture.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet::capture {
namespace {

TEST(ReadOnlyFileSystem, IsSaidBehindTheDash) {
  const auto read_only = [](int id) {
    std::istringstream mounts(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
        "36 21 8:1 /var /view ro,noatime shared:1 master:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
        "37 21 7:0 / /medium ro,noatime - iso9660 /dev/loop0 ro,norock\n"
        "38 21 7:1 / /another ro - squashfs /dev/loop1 ro\n"
        "39 21 7:2 / /odd rw - tmpfs rootfs rose=1\n");
    const auto mount = FindMount(mounts, id);
    return mount.has_value() && mount->read_only_file_system;
  };
  EXPECT_FALSE(read_only(21));
  EXPECT_FALSE(read_only(36)) << "the mount is, and not what lies on it";
  EXPECT_TRUE(read_only(37));
  EXPECT_TRUE(read_only(38));
  EXPECT_FALSE(read_only(39));
  EXPECT_FALSE(read_only(3));
  EXPECT_FALSE(read_only(-1));
}

class ReadOnlyViewTest : public MethodsTest {
 protected:
  void SetUp() override {
    MethodsTest::SetUp();
    writable_ = path_;
    Sql(writable_, std::string("pragma journal_mode=wal;") + kSixHundredRows);
    std::filesystem::create_directories(Path("view"));
    if (mount(Path("place").c_str(), Path("view").c_str(), nullptr, MS_BIND, nullptr) != 0) GTEST_SKIP() << "needs the right to mount";
    viewed_ = true;
    ASSERT_EQ(mount(nullptr, Path("view").c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr), 0);
    path_ = Path("view/app.db");
  }
  void TearDown() override {
    if (viewed_) {
      EXPECT_EQ(umount2(Path("view").c_str(), MNT_DETACH), 0);
    }
    MethodsTest::TearDown();
  }
  // What comes now shows in the times of the files.
  void AwaitSettled() const {
    while (!FileFactsOf(path_, clock_.Now())->settled) usleep(50'000);
  }

  std::string writable_;
  bool viewed_ = false;
};

TEST_P(ReadOnlyViewTest, AtRest) {
  EXPECT_TRUE(OnReadOnlyMount(path_));
  EXPECT_FALSE(OnReadOnlyFileSystem(path_));
  EXPECT_FALSE(OnReadOnlyMount(writable_));
  AwaitSettled();
  EXPECT_EQ(Take("stored.db"), "") << said_;
  EXPECT_EQ(StateOf("stored.db"), "0");
}

// Page 1, and with it the change counter, is not among what is written: the state that was begun with is gone all the same.
TEST_P(ReadOnlyViewTest, AnApplicationThatWritesMeanwhile) {
  const auto write = [&] { Sql(writable_, "update t set i = 1"); };
  AwaitSettled();
  const OnlineOptions options = Options(path_);
  if (GetParam().method == "dump") {
    auto source = OpenDumpSource(options, {});
    ASSERT_TRUE(source.ok()) << source.status();
    write();
    absl::Status status;
    for (;;) {
      const auto piece = (*source)->Next();
      status = piece.status();
      if (!piece.ok() || piece->empty()) break;
    }
    EXPECT_EQ(ReasonOf(status), "SOURCE_CHANGED") << status;
  } else if (GetParam().method == "online") {
    auto source = OpenOnlineSource(options);
    ASSERT_TRUE(source.ok()) << source.status();
    write();
    absl::Status status;
    for (;;) {
      const auto next = (*source)->Next();
      status = next.status();
      if (!next.ok() || !next->has_value()) break;
    }
    EXPECT_EQ(ReasonOf(status), "SOURCE_CHANGED") << status;
  } else {
    Child agent([this](const auto& ready, const auto&) {
      setenv("LITEFLEET_STOP_AT", "capture.pinned", 1);
      ready();
      const std::string reason = Take("stored.db");
      fmt::print(stderr, "{}\n", said_);
      return reason.empty() ? 0 : 4;
    });
    ASSERT_TRUE(agent.AwaitStopped());
    write();
    agent.Continue();
    EXPECT_EQ(agent.Stop(), 0);
    EXPECT_EQ(StateOf("stored.db"), "1") << "it was read once more";
  }
}

TEST_P(ReadOnlyViewTest, AWalThatWasRemovedUnderAnApplication) {
  follow::Application application(writable_);
  application.Run("update t set i = 1");
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(writable_ + suffix);
  application.Run("update t set i = 2");
  EXPECT_EQ(Take("stored.db"), "WAL_REMOVED") << said_;
}

INSTANTIATE_TEST_SUITE_P(View, ReadOnlyViewTest,
                         testing::Values(Cell{"online", "wal", "x"}, Cell{"file", "wal", "x"}, Cell{"dump", "wal", "x"}), NameOf);

}  // namespace
}  // namespace litefleet::capture
