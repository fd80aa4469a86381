#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
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
