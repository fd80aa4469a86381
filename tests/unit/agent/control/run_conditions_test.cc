#include "agent/control/run_conditions.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/io/file.h"

namespace litefleet::control {
namespace {

using testing::HasSubstr;

class RunConditionsTest : public testing::Test {
 protected:
  RunConditionsTest() : directory_(testing::TempDir() + "conditions-XXXXXX") { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~RunConditionsTest() override { std::filesystem::remove_all(directory_); }
  void Put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(io::DirectoryOf(Path(file)));
    std::ofstream(Path(file)) << text << "\n";
  }
  std::string Path(const std::string& file) const { return directory_ + "/" + file; }
  std::string Ask() const { return WaitsFor(conditions_, Path("app.db"), now_, {Path("power"), Path("loadavg")}); }
  void Written(const std::string& file, std::chrono::milliseconds ago) const {
    std::ofstream(Path(file)) << "x";
    const int64_t at = ToUnixMillis(now_ - ago);
    const timespec times[2] = {{at / 1000, at % 1000 * 1'000'000}, {at / 1000, at % 1000 * 1'000'000}};
    ASSERT_EQ(utimensat(AT_FDCWD, Path(file).c_str(), times, 0), 0);
  }

  std::string directory_;
  const SystemTime now_ = FromUnixMillis(1'800'000'000'000);
  config::RunConditions conditions_;
};

TEST_F(RunConditionsTest, NothingIsAskedForAndNothingIsTold) {
  EXPECT_EQ(Ask(), "");
  conditions_ = {.on_mains = true, .max_load_percent = 1, .quiet = std::chrono::seconds(1), .at_latest = {}};
  EXPECT_EQ(Ask(), "") << "a machine that does not tell its facts is not held back for ever";
}

TEST_F(RunConditionsTest, Power) {
  conditions_.on_mains = true;
  Put("power/BAT0/type", "Battery");
  Put("power/BAT0/status", "Full");
  EXPECT_EQ(Ask(), "");
  Put("power/BAT0/status", "Discharging");
  EXPECT_THAT(Ask(), HasSubstr("battery"));
  Put("power/BAT0/scope", "Device");
  EXPECT_EQ(Ask(), "") << "of a mouse";
  Put("power/AC/type", "Mains");
  Put("power/AC/online", "0");
  EXPECT_THAT(Ask(), HasSubstr("battery"));
  Put("power/usb/type", "USB");
  Put("power/usb/online", "1");
  EXPECT_EQ(Ask(), "");
}

// Whose ports tell that nothing is plugged in.
TEST_F(RunConditionsTest, ADesktopWithUsbPortsRunsOnTheMains) {
  conditions_.on_mains = true;
  Put("power/ucsi-source-psy-USBC000:001/type", "USB");
  Put("power/ucsi-source-psy-USBC000:001/online", "0");
  EXPECT_EQ(Ask(), "");
  Put("power/hidpp_battery_0/type", "Battery");
  Put("power/hidpp_battery_0/status", "Discharging");
  Put("power/hidpp_battery_0/scope", "Device");
  EXPECT_EQ(Ask(), "") << "of a mouse";
  Put("power/BAT0/type", "Battery");
  Put("power/BAT0/status", "Not charging");
  EXPECT_THAT(Ask(), HasSubstr("battery")) << "a laptop that is charged by USB";
  Put("power/ucsi-source-psy-USBC000:002/type", "USB");
  Put("power/ucsi-source-psy-USBC000:002/online", "1");
  EXPECT_EQ(Ask(), "");
}

TEST_F(RunConditionsTest, AUpsThatIsOffline) {
  conditions_.on_mains = true;
  Put("power/ups/type", "UPS");
  Put("power/ups/online", "0");
  EXPECT_THAT(Ask(), HasSubstr("battery"));
}

TEST_F(RunConditionsTest, Load) {
  conditions_.max_load_percent = 50;
  Put("loadavg", "0.00 0.50 0.70 1/300 4000");
  EXPECT_EQ(Ask(), "");
  Put("loadavg", "100000.5 0.50 0.70 1/300 4000");
  EXPECT_THAT(Ask(), HasSubstr("more than 50 %"));
  for (const char* text : {"", "x", "-1 2 3", "nan"}) {
    Put("loadavg", text);
    EXPECT_EQ(Ask(), "") << text;
  }
}

TEST_F(RunConditionsTest, AQuietDatabase) {
  conditions_.quiet = std::chrono::seconds(30);
  EXPECT_EQ(Ask(), "") << "there is none";
  Written("app.db", std::chrono::minutes(10));
  EXPECT_EQ(Ask(), "");
  Written("app.db-wal", std::chrono::seconds(29));
  EXPECT_THAT(Ask(), HasSubstr("written 29s ago, and is to be quiet for 30s"));
  Written("app.db-wal", std::chrono::seconds(31));
  EXPECT_EQ(Ask(), "");
  Written("app.db-journal", std::chrono::hours(-1));
  EXPECT_EQ(Ask(), "") << "a clock that was set back does not stop backups";
}

// SQLite keeps the WAL beside the file that it leads to.
TEST_F(RunConditionsTest, ADatabaseBehindASymbolicLink) {
  conditions_.quiet = std::chrono::seconds(30);
  std::filesystem::create_directory(Path("data"));
  Written("data/real.db", std::chrono::minutes(10));
  std::filesystem::create_symlink("data/real.db", Path("app.db"));
  EXPECT_EQ(Ask(), "");
  Written("data/real.db-wal", std::chrono::seconds(5));
  EXPECT_THAT(Ask(), HasSubstr("written 5s ago"));
}

TEST_F(RunConditionsTest, ARunThatIsDueWaitsUntilItHoldsOrIsTooLate) {
  FakeClock clock;
  Scheduler scheduler(clock, std::chrono::seconds(0));
  RunGate gate(scheduler, clock);
  config::AgentConfig config;
  config::DatabaseConfig& database = config.databases.emplace_back();
  database.name = "app";
  database.path = Path("app.db");
  database.when.quiet = std::chrono::minutes(1);
  database.when.at_latest = std::chrono::minutes(10);
  const auto write = [&] {
    const std::filesystem::path file = database.path;
    std::ofstream(file) << "x";
    const int64_t at = ToUnixMillis(clock.Now());
    const timespec times[2] = {{at / 1000, at % 1000 * 1'000'000}, {at / 1000, at % 1000 * 1'000'000}};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  };
  scheduler.Set("app", {config::Schedule::Parse("1h").value()}, {clock.Now() - std::chrono::hours(2)});
  write();
  ASSERT_EQ(scheduler.Due().size(), 1u);
  EXPECT_FALSE(gate.Waits(config, "other"));
  EXPECT_FALSE(gate.Waits(config, "app")) << "an hour late already";
  scheduler.Set("new", {config::Schedule::Parse("1h").value()}, {});
  database.name = "new";
  EXPECT_EQ(gate.Waiting("new"), std::nullopt);
  EXPECT_TRUE(gate.Waits(config, "new"));
  const SystemTime began = clock.Now();
  EXPECT_THAT(gate.Waiting("new").value().phrase, HasSubstr("is to be quiet for 1m"));
  EXPECT_EQ(scheduler.Due().size(), 1u) << "it is not due for a while";
  clock.Advance(RunGate::kLook);
  EXPECT_EQ(scheduler.Due().size(), 2u);
  EXPECT_TRUE(gate.Waits(config, "new"));
  EXPECT_THAT(gate.Waiting("new").value().phrase, HasSubstr("written 10s ago"));
  EXPECT_EQ(gate.Waiting("new").value().since, began);
  clock.Advance(std::chrono::minutes(2));
  EXPECT_FALSE(gate.Waits(config, "new")) << "quiet by now";
  EXPECT_EQ(gate.Waiting("new"), std::nullopt);
  write();
  EXPECT_TRUE(gate.Waits(config, "new"));
  config::AgentConfig without = config;
  without.databases[0].when = {};
  EXPECT_FALSE(gate.Waits(without, "new"));
  EXPECT_EQ(gate.Waiting("new"), std::nullopt) << "nothing is asked for any more";
  EXPECT_TRUE(gate.Waits(config, "new"));
  clock.Advance(std::chrono::minutes(8));
  write();
  EXPECT_FALSE(gate.Waits(config, "new")) << "late enough";
}

// A device that is switched off every evening does not wait for ever.
TEST_F(RunConditionsTest, SinceWhenADatabaseThatNeverRanWaitsOutlivesARestart) {
  FakeClock clock;
  clock.JumpSystem(FromUnixMillis(1'800'000'000'000) - clock.Now());
  config::AgentConfig config;
  config::DatabaseConfig& database = config.databases.emplace_back();
  database.name = "app";
  database.path = Path("app.db");
  database.when.quiet = std::chrono::minutes(1);
  database.when.at_latest = std::chrono::hours(10);
  const auto waits = [&](std::optional<SystemTime> last_run) {
    Scheduler scheduler(clock, std::chrono::seconds(0));
    RunGate gate(scheduler, clock, directory_);
    scheduler.Set("app", {config::Schedule::Parse("1h").value()}, {last_run});
    std::ofstream(Path("app.db")) << "x";
    const int64_t at = ToUnixMillis(clock.Now());
    const timespec times[2] = {{at / 1000, at % 1000 * 1'000'000}, {at / 1000, at % 1000 * 1'000'000}};
    EXPECT_EQ(utimensat(AT_FDCWD, Path("app.db").c_str(), times, 0), 0);
    return gate.Waits(config, "app");
  };
  EXPECT_TRUE(waits({}));
  clock.Advance(std::chrono::hours(6));
  EXPECT_TRUE(waits({}));
  clock.Advance(std::chrono::hours(4));
  EXPECT_FALSE(waits({})) << "ten hours after it was first due";
  // What ran counts from there.
  EXPECT_TRUE(waits(clock.Now() - std::chrono::hours(2)));
  EXPECT_FALSE(std::filesystem::exists(Path("app.due")));
  // A time of the future says nothing.
  EXPECT_TRUE(waits({}));
  clock.JumpSystem(std::chrono::hours(-48));
  EXPECT_TRUE(waits({}));
  clock.Advance(std::chrono::hours(10));
  EXPECT_FALSE(waits({}));
}

}  // namespace
}  // namespace litefleet::control
