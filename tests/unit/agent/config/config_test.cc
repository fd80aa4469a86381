#include "agent/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/config/own_places.h"
#include "common/base/status.h"
#include "fmt/format.h"

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
download = "2MiB"
compression_level = 9
pause_hook = "/etc/litefleet/pause"
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
  EXPECT_EQ(config->download_bytes_per_second, 2 << 20);
  EXPECT_EQ(config->compression_level, 9);
  EXPECT_EQ(config->pause_hook, "/etc/litefleet/pause");
  EXPECT_EQ(config->keep_previous, std::chrono::hours(2));
  EXPECT_EQ(config->disk_reserve, io::DiskReserve(uint64_t{1} << 30));
  EXPECT_EQ(config->nice, 3);
  ASSERT_EQ(config->databases.size(), 2u);
  EXPECT_EQ(config->databases[0].schedule.interval(), std::chrono::minutes(15));
  EXPECT_EQ(config->databases[0].schedule.text(), "15m");
  EXPECT_EQ(config->databases[0].rollback_stall, std::chrono::milliseconds(500));
  EXPECT_EQ(config->databases[0].push_restore, "allow");
  EXPECT_EQ(config->databases[1].push_restore, "never") << "as [restore] says";
  EXPECT_EQ(config->databases[1].schedule.kind(), Schedule::Kind::kNever);
  EXPECT_EQ(config->databases[1].max_pin, std::chrono::milliseconds(0));
  EXPECT_NE(config->Find("app"), nullptr);
  EXPECT_EQ(config->Find("nobody"), nullptr);
}

TEST(ConfigTest, AnUnknownKeyIsAnErrorWithItsLineAndTheNearestName) {
  const std::string error = ErrorOf(WithDatabase("shedule = \"15m\"\n"));
  EXPECT_THAT(error, HasSubstr("agent.toml:5"));
  EXPECT_THAT(error, HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\nspool_ages = \"1d\"\n"), HasSubstr("spool_age"));
}

TEST(ConfigTest, SnapshotsWaitForAsLongAsThereIsRoomUnlessAnAgeIsSet) {
  const auto without = ParseConfig(WithDatabase(""), "agent.toml");
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(without->spool_age, std::chrono::milliseconds(0));
  const auto with = ParseConfig(WithDatabase("[limits]\nspool_age = \"30d\"\n"), "agent.toml");
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ(with->spool_age, std::chrono::hours(24 * 30));
  EXPECT_THAT(ErrorOf(WithDatabase("[limits]\nspool_age = \"1s\"\n")), HasSubstr("spool_age"));
}

TEST(ConfigTest, AMistypedKeyIsNamedBeforeTheOneThatIsMissingForIt) {
  const std::string error = ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\npth = \"/var/lib/app/app.db\"\n");
  EXPECT_THAT(error, HasSubstr("agent.toml:4"));
  EXPECT_THAT(error, HasSubstr("unknown key \"pth\""));
  EXPECT_THAT(error, HasSubstr("did you mean \"path\"?"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[[database]]\nname = \"app\"\n"), HasSubstr("\"path\" is missing"));
}

TEST(ConfigTest, RefusesWhatIsNotSupportedYet) {
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[restore]\norder_keys = \"keys\"\n"), HasSubstr("order_keys"));
  EXPECT_THAT(ErrorOf(WithDatabase("before_backup = \"/usr/bin/stop\"\n")), HasSubstr("no program below /etc/litefleet/hooks"));
  EXPECT_THAT(ErrorOf(WithDatabase("before_backup = \"/etc/litefleet/hooks/../stop\"\n")), HasSubstr("before_backup"));
  EXPECT_THAT(ErrorOf(WithDatabase("after_restore = \"start\"\n")), HasSubstr("after_restore"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[hooks]\ndirectory = \"hooks\"\n"), HasSubstr("directory"));
  EXPECT_THAT(ErrorOf(WithDatabase("push_restore = \"maybe\"\n")), HasSubstr("allow"));
  EXPECT_THAT(ErrorOf(WithDatabase("method = \"copy\"\n")), HasSubstr("online"));
}

TEST(ConfigTest, ADumpSaysWhatItHolds) {
  const auto config =
      ParseConfig(WithDatabase("method = \"dump\"\n[database.dump]\ncompatible = true\nwithout_tables = [\"cache\"]\nschema_only = true\n"),
                  "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->databases[0].method, "dump");
  EXPECT_EQ(config->databases[0].dump, (dump::DumpOptions{.compatible = true, .without = {"cache"}, .schema_only = true}));
  EXPECT_THAT(ErrorOf(WithDatabase("[database.dump]\nschema_only = true\ndata_only = true\n")), HasSubstr("neither"));
  EXPECT_THAT(ErrorOf(WithDatabase("[database.dump]\ntable = [\"x\"]\n")), HasSubstr("tables"));
}

TEST(ConfigTest, ContinuousCaptureHasAnInterval) {
  const auto config = ParseConfig(WithDatabase("method = \"continuous\"\n"), "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->databases[0].method, "continuous");
  EXPECT_EQ(config->databases[0].sync_interval, std::chrono::seconds(1));
  EXPECT_EQ(config->databases[0].chain_check, std::chrono::hours(24));
  EXPECT_FALSE(config->databases[0].allow_restart_checkpoint);
  EXPECT_THAT(ErrorOf(WithDatabase("chain_check = \"500ms\"\n")), HasSubstr("chain_check"));
  EXPECT_EQ(config->databases[0].checkpoint_size, 4u << 20);
  EXPECT_EQ(ParseConfig(WithDatabase("checkpoint_size = \"64MiB\"\n"), "agent.toml")->databases[0].checkpoint_size, 64u << 20);
  for (const char* bad : {"1023KiB", "2GiB"})
    EXPECT_THAT(ErrorOf(WithDatabase(std::string("checkpoint_size = \"") + bad + "\"\n")), HasSubstr("checkpoint_size"));
  const auto faster = ParseConfig(WithDatabase("method = \"continuous\"\nsync_interval = \"100ms\"\n"), "agent.toml");
  ASSERT_TRUE(faster.ok()) << faster.status();
  EXPECT_EQ(faster->databases[0].sync_interval, std::chrono::milliseconds(100));
  for (const char* bad : {"99ms", "2h", "fast"}) {
    EXPECT_THAT(ErrorOf(WithDatabase(std::string("method = \"continuous\"\nsync_interval = \"") + bad + "\"\n")),
                HasSubstr("sync_interval"))
        << bad;
  }
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
  EXPECT_THAT(ErrorOf(WithDatabase("schedule = \"0 25 * * *\"\n")), HasSubstr("\"25\" is no hour"));
  EXPECT_THAT(ErrorOf(WithDatabase("window = \"22:00\"\n")), HasSubstr("window"));
  EXPECT_THAT(ErrorOf(WithDatabase("jitter = \"2d\"\n")), HasSubstr("jitter"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[database]]\nname = \"app\"\npath = \"/b\"\n")), HasSubstr("second"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[database]]\nname = \"b\"\npath = \"/var/lib/app/app.db\"\n")), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf("controller = \n"), HasSubstr("agent.toml:1"));
}

TEST(ConfigTest, NoLimitAndNoScheduleCanBeSaidAgainstAPolicy) {
  const auto config = ParseConfig(WithDatabase("schedule = \"never\"\n[limits]\nupload = 0\n"), "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->upload_bytes_per_second, 0);
  EXPECT_FALSE(config->download_bytes_per_second.has_value());
  EXPECT_TRUE(config->databases[0].schedule_set);
  EXPECT_EQ(config->databases[0].schedule.kind(), Schedule::Kind::kNever);
}

TEST(ConfigTest, RangesOfLimits) {
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\nupload = 100\n"), HasSubstr("at least 1KiB"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\ndownload = \"16KiB\"\n"), HasSubstr("at least 32KiB"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\ncompression_level = 20\n"), HasSubstr("compression_level"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "[limits]\npause_hook = \"pause\"\n"), HasSubstr("absolute"));
  EXPECT_THAT(ErrorOf(WithDatabase("schedule = \"1ms\"\n")), HasSubstr("schedule"));
  EXPECT_THAT(ErrorOf(WithDatabase("compression_level = 0\n")), HasSubstr("compression_level"));
}

TEST(ConfigTest, FilesStandBesideDatabases) {
  const auto config = ParseConfig(WithDatabase(R"(
[hooks]
directory = "/etc/hooks"
before_backup = "/etc/hooks/all"
[[files]]
name = "conf"
root = "/etc/app"
include = ["*.conf", "certs/**"]
exclude = ["**/*.key"]
max_file_bytes = "1MiB"
max_bytes = "2MiB"
max_files = 7
schedule = "1h"
window = "22:00-06:00"
compression_level = 9
push_restore = "never"
after_restore = "/etc/hooks/own"
[files.when]
power = "mains"
)"),
                                  "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->databases.size(), 2u);
  EXPECT_FALSE(config->databases[0].files.has_value());
  const DatabaseConfig* const files = config->Find("conf");
  ASSERT_NE(files, nullptr);
  files::Rules rules;
  rules.include = {"*.conf", "certs/**"};
  rules.exclude = {"**/*.key"};
  rules.max_file_bytes = 1 << 20;
  rules.max_bytes = 2 << 20;
  rules.max_files = 7;
  EXPECT_EQ(files->files, rules);
  EXPECT_EQ(files->path, "/etc/app");
  EXPECT_TRUE(files->method_set) << "no policy makes a database of it";
  EXPECT_EQ(files->schedule.text(), "1h");
  EXPECT_TRUE(files->window.has_value());
  EXPECT_EQ(files->compression_level, 9);
  EXPECT_EQ(files->push_restore, "never");
  EXPECT_EQ(files->hooks.before_backup, "/etc/hooks/all");
  EXPECT_EQ(files->hooks.after_restore, "/etc/hooks/own");
  EXPECT_TRUE(files->when.on_mains);
}

// A controller that could restore them would decide what this device lets be done to it.
TEST(ConfigTest, FilesAreNeverTheAgentsOwn) {
  const auto files = [](const std::string& root, const std::string& include, const std::string& exclude = "none") {
    return WithDatabase(
        fmt::format("[[files]]\nname = \"f\"\nroot = \"{}\"\ninclude = [\"{}\"]\nexclude = [\"{}\"]\n", root, include, exclude));
  };
  for (const auto& text : {files("/etc", "**"), files("/etc/litefleet", "*"), files("/etc/litefleet/hooks", "x"),
                           files("/etc/litefleet/hooks/a", "x"), files("/var/lib/litefleet-agent/identity", "*"), files("/var/lib", "**"),
                           files("/etc", "litefleet/order-keys"), files("/etc", "*/hooks/run")})
    EXPECT_THAT(ErrorOf(text), HasSubstr("the agent's own")) << text;
  for (const auto& text :
       {files("/etc", "*.conf"), files("/etc", "**", "litefleet"), files("/etc/litefleet-else", "**"), files("/etc", "app/**")})
    EXPECT_TRUE(ParseConfig(text, "agent.toml").ok()) << text;
  const std::string folder = std::filesystem::canonical(std::filesystem::temp_directory_path()).string();
  const std::string path = folder + "/files-agent-" + std::to_string(getpid()) + ".toml";
  std::ofstream(path) << files(folder, "*.toml");
  EXPECT_EQ(ReasonOf(ReadConfig(path).status()), "CONFIG_INVALID");
  std::ofstream(path) << files(folder, "*.conf");
  EXPECT_TRUE(ReadConfig(path).ok());
  std::filesystem::remove(path);
}

// By its name, by where it leads, and by each link on the way.
TEST(ConfigTest, LinksToTheAgentsOwnAreFollowed) {
  namespace fs = std::filesystem;
  std::string pattern = (fs::canonical(fs::temp_directory_path()) / "lf-own-XXXXXX").string();
  const std::string folder = mkdtemp(pattern.data());
  fs::create_directories(folder + "/app/hooks");
  fs::create_directories(folder + "/etc/hooks");
  std::ofstream(folder + "/app/pause") << "x";
  fs::create_symlink("../app/hooks", folder + "/etc/leads-in");
  fs::create_symlink("app", folder + "/alias");
  fs::create_symlink("../etc/hooks", folder + "/app/link");
  fs::create_symlink(folder + "/app/link", folder + "/etc/by-way-of");
  const auto files = [&](const std::string& section, const std::string& own, const std::string& include = "**") {
    return std::string(kHead) + "[" + section + folder + own + "\"\n" +
           fmt::format("[[files]]\nname = \"f\"\nroot = \"{}/app\"\ninclude = [\"{}\"]\n", folder, include);
  };
  const std::string hooks = "hooks]\ndirectory = \"", pause = "limits]\npause_hook = \"", keys = "restore]\norder_keys = \"";
  for (const std::string& text : {files(pause, "/app/pause"), files(hooks, "/etc/leads-in"), files(pause, "/alias/pause"),
                                  files(keys, "/alias/none"), files(hooks, "/etc/by-way-of"), files(hooks, "/etc/by-way-of", "link")})
    EXPECT_THAT(ErrorOf(text), HasSubstr("the agent's own")) << text;
  for (const std::string& text :
       {files(hooks, "/etc/hooks"), files(pause, "/app/pause", "*.conf"), files(hooks, "/etc/by-way-of", "data/**")})
    EXPECT_TRUE(ParseConfig(text, "agent.toml").ok()) << text;
  // The configuration itself.
  std::ofstream(folder + "/app/agent.toml") << files(hooks, "/etc/hooks", "agent.toml");
  fs::create_symlink("../app/agent.toml", folder + "/etc/agent.toml");
  EXPECT_EQ(ReasonOf(ReadConfig(folder + "/etc/agent.toml").status()), "CONFIG_INVALID");
  // A link that came later.
  const auto config = ParseConfig(files(hooks, "/etc/hooks"), "agent.toml");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(CheckOwn(config->databases[0], *config, folder + "/etc/other.toml").ok());
  fs::remove(folder + "/etc/hooks");
  fs::create_symlink("../app/hooks", folder + "/etc/hooks");
  EXPECT_EQ(ReasonOf(CheckOwn(config->databases[0], *config, folder + "/etc/other.toml")), "CONFIG_INVALID");
  fs::remove_all(folder);
}

TEST(ConfigTest, FilesThatMakeNoSense) {
  const auto files = [](const std::string& lines) {
    return WithDatabase("[[files]]\nname = \"conf\"\nroot = \"/etc/app\"\n" + lines + "\n");
  };
  EXPECT_THAT(ErrorOf(files("")), HasSubstr("no include"));
  EXPECT_THAT(ErrorOf(files("include = []")), HasSubstr("no include"));
  EXPECT_THAT(ErrorOf(files("include = [\"../x\"]")), HasSubstr("no . and no .."));
  EXPECT_THAT(ErrorOf(files("include = [\"/etc/x\"]")), HasSubstr("relative to the root"));
  EXPECT_THAT(ErrorOf(files("include = [\"*\"]\nexclude = [\"a//b\"]")), HasSubstr("no empty part"));
  EXPECT_THAT(ErrorOf(files("include = [\"*\"]\nmax_files = 0")), HasSubstr("max_files"));
  EXPECT_THAT(ErrorOf(files("include = [\"*\"]\nmethod = \"online\"")), HasSubstr("method"));
  EXPECT_THAT(ErrorOf(files("include = [\"*\"]\n[files.when]\nquiet = \"5m\"")), HasSubstr("quiet"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[files]]\nname = \"app\"\nroot = \"/x\"\ninclude = [\"*\"]\n")), HasSubstr("is a name already"));
  EXPECT_THAT(ErrorOf(WithDatabase("[[files]]\nname = \"x\"\nroot = \"x/../y\"\ninclude = [\"*\"]\n")),
              HasSubstr("absolute path of a directory"));
}

}  // namespace
}  // namespace litefleet::config
