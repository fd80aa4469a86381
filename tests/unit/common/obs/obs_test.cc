#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "common/base/status.h"
#include "common/obs/log.h"
#include "common/obs/notify.h"
#include "fmt/format.h"

namespace litefleet::obs {
namespace {

TEST(LogTest, JsonEscapesWhatADeviceMaySend) {
  EXPECT_EQ(JsonLine("t", "info", "a\"b\\c\nd\x01"), "{\"time\":\"t\",\"level\":\"info\",\"message\":\"a\\\"b\\\\c\\nd\\u0001\"}");
}

TEST(LogTest, RefusesUnknownLevelsAndFormats) {
  EXPECT_EQ(ReasonOf(SetupLog({"loud", "text"})), "CONFIG_INVALID");
  EXPECT_EQ(ReasonOf(SetupLog({"info", "xml"})), "CONFIG_INVALID");
}

TEST(LogTest, OneEventIsOneLineWithoutColourInAPipe) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(SetupLog({"info", "text"}).ok());
  spdlog::info("first\nforged \x1b[31m");
  spdlog::debug("not shown");
  spdlog::default_logger()->flush();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("first\\nforged \\x1b[31m"), std::string::npos) << text;
}

TEST(LogTest, LinesBeginWithTheirPriorityWhereStandardErrorIsTheJournals) {
  const auto lines = [](bool same_inode) {
    testing::internal::CaptureStderr();
    struct stat st {};
    EXPECT_EQ(fstat(STDERR_FILENO, &st), 0);
    const uint64_t inode = static_cast<uint64_t>(st.st_ino) + (same_inode ? 0 : 1);
    setenv("JOURNAL_STREAM", fmt::format("{}:{}", static_cast<uint64_t>(st.st_dev), inode).c_str(), 1);
    EXPECT_TRUE(SetupLog({"trace", "text"}).ok());
    spdlog::critical("a");
    spdlog::error("b");
    spdlog::warn("c");
    spdlog::info("d\n<0>forged");
    spdlog::debug("e");
    spdlog::default_logger()->flush();
    unsetenv("JOURNAL_STREAM");
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(lines(true), "<2>a\n<3>b\n<4>c\n<6>d\\n<0>forged\n<7>e\n");
  // A variable that was inherited by who writes elsewhere: the stream is another one.
  const std::string elsewhere = lines(false);
  EXPECT_TRUE(elsewhere.starts_with("20")) << elsewhere;
  EXPECT_EQ(elsewhere.find("<2>"), std::string::npos) << elsewhere;
  ASSERT_TRUE(SetupLog({"info", "text"}).ok());
}

TEST(NotifyTest, SendsToTheSocketOfTheEnvironment) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(Notify("READY=1"));
  const std::string name = fmt::format("litefleet-notify-{}", getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + 1, name.data(), name.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(
      bind(fd, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())), 0);
  setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);
  EXPECT_TRUE(Notify("READY=1"));
  char buffer[64];
  const ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
  EXPECT_EQ(std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0), "READY=1");
  close(fd);
  unsetenv("NOTIFY_SOCKET");
}

TEST(NotifyTest, WatchdogIsForThisProcess) {
  setenv("WATCHDOG_USEC", "30000000", 1);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  EXPECT_EQ(WatchdogInterval(), std::chrono::seconds(15));
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(WatchdogInterval(), std::nullopt);
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
}

}  // namespace
}  // namespace litefleet::obs
