#include "agent/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status.h"

namespace litefleet::config {
namespace {

using testing::HasSubstr;

constexpr char kHead[] = "controller = \"backup.example:8742\"\n";

std::string ErrorOf(const std::string& text) {
  const auto config = ParseConfig(text, "agent.toml");
  EXPECT_FALSE(config.ok()) << text;
  EXPECT_EQ(ReasonOf(config.status()), "CONFIG_INVALID");
  return MessageOf(config.status()) + " " + HintOf(config.status());
}

std::string WithDatabase(const std::string& lines) {
  return std::string(kHead) + "[[database]]\nname = \"app\"\npath = \"/var/lib/app/app.db\"\n" + lines;
}

TEST(ConfigTest, ReadsEverythingAndKnowsDefaults) {
  const auto config = ParseConfig(R"(state = "/var/lib/agent"
controller = "[2001:db8::1]:9000"
[log]
level = "debug"
format = "json"
[limits]
upload = "1MiB"
disk_reserve = "1GiB"
nice = 3
[restore]
push_restore = "never"
keep_previous = "2h"
[[database]]
name = "app"
path = "/var/lib/app/app.db"
schedule = "15m"
busy_timeout = "1s"
rollback_stall = "500ms"
max_pin = "1h"
push_restore = "allow"
[[database]]
name = "other.db"
path = "/srv/other"
)",
                                  "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->state, "/var/lib/agent");
  EXPECT_EQ(config->controller.Text(), "[2001:db8::1]:9000");
  EXPECT_EQ(config->log.level, "debug");
  EXPECT_EQ(config->upload_bytes_per_second, 1 << 20);
  EXPECT_EQ(config->keep_previous, std::chrono::hours(2));
  EXPECT_EQ(config->disk_reserve, io::DiskReserve(uint64_t{1} << 30));
  EXPECT_EQ(config->nice, 3);
  ASSERT_EQ(config->databases.size(), 2u);
  EXPECT_EQ(config->databases[0].schedule, std::chrono::minutes(15));
  EXPECT_EQ(config->databases[0].schedule_text, "15m");
  EXPECT_EQ(config->databases[0].rollback_stall, std::chrono::milliseconds(500));
  EXPECT_EQ(config->databases[0].push_restore, "allow");
  EXPECT_EQ(config->databases[1].push_restore, "never") << "as [restore] says";
  EXPECT_FALSE(config->databases[1].schedule);
  EXPECT_EQ(config->databases[1].max_pin, std::chrono::milliseconds(0));
  EXPECT_NE(config->Find("app"), nullptr);
  EXPECT_EQ(config->Find("nobody"), nullptr);
}

TEST(ConfigTest, AnUnknownKeyIsAnErrorWithItsLineAndTheNearestName) {
  const std::string error = ErrorOf(WithDatabase("shedule = \"15m\"\n"));
  EXPECT_THAT(error, HasSubstr("agent.toml:5"));
  EXPECT_THAT(error, HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\nspool_age = \"1d\"\n"), HasSubstr("spool_age")) << "keys without effect are unknown";
}

TEST(ConfigTest, AMistypedKeyIsNamedBeforeTheOneThatIsMissingForIt) {
  const std::string error = ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\npth = \"/var/lib/app/app.db\"\n");
  EXPECT_THAT(error, HasSubstr("agent.toml:4"));
  EXPECT_THAT(error, HasSubstr("unknown key \"pth\""));
  EXPECT_THAT(error, HasSubstr("did you mean \"path\"?"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\n"), HasSubstr("\"path\" is missing"));
}

TEST(ConfigTest, RefusesWhatIsNotSupportedYet) {
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[restore]\npush_restore = \"signed\"\n"), HasSubstr("not supported by this version"));
  EXPECT_THAT(ErrorOf(WithDatabase("push_restore = \"local-confirm\"\n")), HasSubstr("not supported by this version"));
  EXPECT_THAT(ErrorOf(WithDatabase("push_restore = \"maybe\"\n")), HasSubstr("allow"));
  EXPECT_THAT(ErrorOf(WithDatabase("method = \"dump\"\n")), HasSubstr("online"));
}

TEST(ConfigTest, RefusesBadValues) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("controller"));
  EXPECT_THAT(ErrorOf("controller = \"a b\"\n"), HasSubstr("controller"));
  EXPECT_THAT(ErrorOf("state = \"relative\"\n" + std::string(kHead)), HasSubstr("absolute"));
  for (const char* path : {"app.db", "/a/../b", "/a/", "", "/a//b"}) {
    EXPECT_THAT(ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\npath = \"" + path + "\"\n"), HasSubstr("path")) << path;
  }
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[[database]]\nname = \"-app\"\npath = \"/a\"\n"), HasSubstr("name"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\n"), HasSubstr("path"));
  EXPECT_THAT(ErrorOf(WithDatabase("schedule = \"soon\"\n")), HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(WithDatabase("schedule = \"0s\"\n")), HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(WithDatabase("schedule = 15\n")), HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[database]]\nname = \"app\"\npath = \"/b\"\n")), HasSubstr("second"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[database]]\nname = \"b\"\npath = \"/var/lib/app/app.db\"\n")), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf("controller = \n"), HasSubstr("agent.toml:1"));
}

}  // namespace
}  // namespace litefleet::config
