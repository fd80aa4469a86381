// What the controller is told of a device and its databases, beside what the machine itself says of them.
#include "agent/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <optional>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"

namespace litefleet {
namespace {

using testing::Contains;
using testing::IsSupersetOf;

class NoTransport final : public upload::UploadTransport {
 public:
  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return absl::UnavailableError("no controller"); }
  std::shared_ptr<upload::UploadStream> Open(std::shared_ptr<upload::StreamEvents>) override { return nullptr; }
};

class HealthTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "health-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::filesystem::create_directory(folder_ + "/gaps");
    auto state = state::StateDirectory::Open(folder_ + "/state");
    ASSERT_TRUE(state.ok()) << state.status();
    state_.emplace(*std::move(state));
    std::vector<std::string> said;
    auto gaps = state::GapBook::Open(folder_ + "/gaps", said);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    auto spool = spool::SnapshotSpool::Open(folder_ + "/spool", *gaps_, clock_, said);
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    for (const char* name : {"app", "gone"}) {
      config::DatabaseConfig database;
      database.name = name;
      database.path = folder_ + "/" + name + ".db";
      own_.databases.push_back(database);
    }
    policy_ = std::make_unique<DevicePolicyKeeper>(*state_, clock_, own_);
    capture_ = std::make_unique<CaptureHome>(*state_, clock_, "device", transport_, rate_, *gaps_);
    health_ = std::make_unique<DeviceHealth>(
        *state_, clock_, *policy_, [] { return std::vector<std::string>{"01JDAAAAAAAAAAAAAAAAAAAAAA"}; }, *spool_, *capture_,
        [this](const std::string& database) { return database == "app" ? waiting_ : std::nullopt; });
  }
  void TearDown() override {
    health_.reset();
    capture_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string folder_;
  FakeClock clock_;
  config::AgentConfig own_;
  std::optional<state::StateDirectory> state_;
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<spool::SnapshotSpool> spool_;
  std::unique_ptr<DevicePolicyKeeper> policy_;
  NoTransport transport_;
  RateLimit rate_{0};
  std::unique_ptr<CaptureHome> capture_;
  std::optional<control::RunGate::Reason> waiting_;
  std::unique_ptr<DeviceHealth> health_;
};

TEST_F(HealthTest, TellsUptimeFreeSpaceAndTheFilesOfEachDatabase) {
  auto db = sqlite::Open(own_.databases[0].path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(sqlite::Execute(db->get(), "pragma journal_mode=wal; create table t(v); insert into t values(zeroblob(50000))").ok());
  clock_.Advance(std::chrono::minutes(7));
  const v1::Health health = health_->MakeHealth();
  EXPECT_EQ(health.uptime().seconds(), std::chrono::duration_cast<std::chrono::seconds>(clock_.SinceBoot()).count());
  EXPECT_EQ(ToUnixMillis(FromProtoTime(health.device_time())), ToUnixMillis(clock_.Now()));
  const auto free = io::FreeBytes(folder_);
  ASSERT_TRUE(free.ok());
  // Others use the disk meanwhile: half and double of what there is are far from anything that is not this disk's.
  EXPECT_GT(health.free_bytes(), static_cast<int64_t>(*free / 2));
  EXPECT_LT(health.free_bytes(), static_cast<int64_t>(*free * 2));
  ASSERT_EQ(health.databases_size(), 2);
  const v1::DatabaseHealth& app = health.databases(0);
  EXPECT_EQ(app.name(), "app");
  EXPECT_EQ(app.path(), own_.databases[0].path);
  EXPECT_TRUE(app.present());
  EXPECT_EQ(app.size_bytes(), static_cast<int64_t>(std::filesystem::file_size(own_.databases[0].path)));
  EXPECT_EQ(app.wal_bytes(), static_cast<int64_t>(std::filesystem::file_size(own_.databases[0].path + "-wal")));
  EXPECT_GT(app.wal_bytes(), 50000);
  EXPECT_EQ(app.journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_GT(app.free_bytes(), static_cast<int64_t>(*free / 2));
  EXPECT_FALSE(app.has_last_run_at());
  EXPECT_FALSE(app.has_last_error());
  const v1::DatabaseHealth& gone = health.databases(1);
  EXPECT_FALSE(gone.present());
  EXPECT_EQ(gone.size_bytes(), 0);
  EXPECT_EQ(gone.wal_bytes(), 0);
}

TEST_F(HealthTest, TheWalIsBesideTheFileThatALinkLeadsTo) {
  std::filesystem::create_directory(folder_ + "/real");
  std::filesystem::create_symlink("real/own.db", own_.databases[0].path);
  auto db = sqlite::Open(own_.databases[0].path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(sqlite::Execute(db->get(), "pragma journal_mode=wal; create table t(v); insert into t values(zeroblob(50000))").ok());
  EXPECT_GT(health_->MakeHealth().databases(0).wal_bytes(), 50000);
}

TEST_F(HealthTest, TellsTheLastRunAndItsError) {
  v1::ErrorDetail error;
  error.mutable_info()->set_reason("DATABASE_BUSY");
  error.set_message("somebody writes");
  storage::v1::AgentDatabase kept;
  kept.set_name("app");
  kept.set_last_run_at_ms(1'800'000'123'456);
  kept.set_last_success_at_ms(1'800'000'000'789);
  kept.set_last_snapshot_id("01JDAAAAAAAAAAAAAAAAAAAAAB");
  kept.set_last_error(error.SerializeAsString());
  ASSERT_TRUE(state_->WriteDatabase(kept).ok());
  const v1::Health health = health_->MakeHealth();
  const v1::DatabaseHealth& app = health.databases(0);
  EXPECT_EQ(ToUnixMillis(FromProtoTime(app.last_run_at())), 1'800'000'123'456);
  EXPECT_EQ(ToUnixMillis(FromProtoTime(app.last_success_at())), 1'800'000'000'789);
  EXPECT_EQ(app.last_snapshot_id(), "01JDAAAAAAAAAAAAAAAAAAAAAB");
  EXPECT_EQ(app.last_error().info().reason(), "DATABASE_BUSY");
  EXPECT_EQ(app.last_error().message(), "somebody writes");
  EXPECT_FALSE(health.databases(1).has_last_run_at()) << "each database has its own";
}

TEST_F(HealthTest, ASnapshotThatIsGoneIsNoBaseOfWhatIsSpooled) {
  storage::v1::AgentDatabase kept;
  kept.set_name("app");
  kept.set_last_snapshot_id("01JDAAAAAAAAAAAAAAAAAAAAAB");
  kept.set_unchanged_at_ms(5);
  ASSERT_TRUE(state_->WriteDatabase(kept).ok());
  health_->SnapshotGone("app", "01JDAAAAAAAAAAAAAAAAAAAAAC");
  EXPECT_EQ(state_->ReadDatabase("app")->last_snapshot_id(), "01JDAAAAAAAAAAAAAAAAAAAAAB") << "another one";
  health_->SnapshotGone("app", "01JDAAAAAAAAAAAAAAAAAAAAAB");
  kept = state_->ReadDatabase("app").value();
  EXPECT_EQ(kept.last_snapshot_id(), "");
  EXPECT_EQ(kept.gone_snapshot_id(), "01JDAAAAAAAAAAAAAAAAAAAAAB");
  EXPECT_EQ(kept.unchanged_at_ms(), 0);
}

TEST_F(HealthTest, TellsWhatARunThatIsDueWaitsFor) {
  EXPECT_EQ(health_->MakeHealth().databases(0).waits_for(), "");
  waiting_ = {.phrase = "this device runs on its battery", .since = FromUnixMillis(1'800'000'000'789)};
  EXPECT_EQ(health_->MakeHealth().databases(0).waits_for(), "") << "it has no schedule any more";
  own_.databases[0].schedule = config::Schedule::Parse("1h").value();
  policy_->SetOwn(own_);
  const v1::Health health = health_->MakeHealth();
  EXPECT_EQ(health.databases(0).waits_for(), "this device runs on its battery");
  EXPECT_EQ(ToUnixMillis(FromProtoTime(health.databases(0).waits_since())), 1'800'000'000'789);
  EXPECT_FALSE(health.databases(1).has_waits_since());
}

TEST_F(HealthTest, HelloSaysWhatThisAgentIs) {
  const v1::Hello hello = health_->MakeHello();
  EXPECT_EQ(hello.protocol_version(), 1u);
  EXPECT_EQ(hello.agent_version(), LITEFLEET_VERSION);
  EXPECT_EQ(hello.sqlite_version(), sqlite3_libversion());
  EXPECT_THAT(hello.features(),
              IsSupersetOf({"online", "file", "dump", "restore-new", "restore-live", "restore-replace", "heal", "continuous"}));
  EXPECT_THAT(hello.platform(), testing::StartsWith("Linux "));
  EXPECT_EQ(hello.uptime().seconds(), std::chrono::duration_cast<std::chrono::seconds>(clock_.SinceBoot()).count());
  EXPECT_EQ(hello.databases_size(), 2);
  EXPECT_THAT(hello.active_operation_ids(), Contains("01JDAAAAAAAAAAAAAAAAAAAAAA"));
  EXPECT_FALSE(hello.instance_id().empty());
}

}  // namespace
}  // namespace litefleet
