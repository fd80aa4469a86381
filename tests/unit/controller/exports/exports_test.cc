#include "controller/exports/exports.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "controller/imports/foreign_file.h"
#include "controller/imports/local_upload.h"
#include "fmt/format.h"
#include "tests/unit/controller/fleet/own_operations.h"

namespace litefleet::exports {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::UnorderedElementsAre;

// The real one, which may be set.
class SetClock final : public Clock {
 public:
  SystemTime Now() const override { return real_.Now() + std::chrono::milliseconds(ahead_ms); }
  SteadyTime Steady() const override { return real_.Steady() + std::chrono::milliseconds(passed_ms); }
  std::chrono::nanoseconds SinceBoot() const override { return real_.SinceBoot(); }
  void Set(std::chrono::milliseconds ahead) { ahead_ms = ahead.count(); }
  void Pass(std::chrono::milliseconds time) { passed_ms += time.count(); }

 private:
  std::atomic<int64_t> ahead_ms = 0, passed_ms = 0;
  const RealClock real_{};
};

class ExportsTest : public fleet::OwnOperationsTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    std::filesystem::create_directory(directory_ + "/scratch");
    rule_ = {.policy = "shops", .csv = true, .every = std::chrono::milliseconds(0), .keep = 2};
  }
  void TearDown() override {
    StopAll();
    IngestTest::TearDown();
  }
  void StartAll() {
    StartFleet();
    ExportOptions options;
    options.root = Root();
    options.scratch = directory_ + "/scratch";
    options.reserve_bytes = reserve_;
    options.look = look_;
    options.again = again_;
    if (free_bytes_) options.free_bytes = free_bytes_;
    if (sync_directory_) options.sync_directory = sync_directory_;
    exports_ = std::make_unique<Exports>(ExportDeps{.fleet = *fleet_,
                                                    .readers = *path_->readers,
                                                    .clock = clock_,
                                                    .all = [this](const auto& visit) -> absl::Status {
                                                      for (const std::string& name : databases_) {
                                                        LF_ASSIGN_OR_RETURN(const auto candidate, One(name));
                                                        if (candidate.has_value()) LF_RETURN_IF_ERROR(visit(*candidate));
                                                      }
                                                      return absl::OkStatus();
                                                    },
                                                    .one = [this](const DeviceId&, const std::string& name) { return One(name); }},
                                         options);
    ASSERT_TRUE(exports_->Begin().ok());
  }
  void StopAll() {
    exports_.reset();
    StopFleet();
  }
  absl::StatusOr<std::optional<Candidate>> One(const std::string& name) {
    if (!exported_) return std::nullopt;
    auto database = path_->snapshots->GetDatabase(device_, name);
    if (!database.ok()) return std::nullopt;
    database->set_device_id(device_.value());
    database->set_device_name(device_name_);
    return Candidate{.database = *database, .rule = rule_};
  }
  // A backup of a database that this makes.
  SnapshotId Backup(const std::string& sql, const std::string& name = "main", bool told = true) {
    const std::string path = directory_ + "/made.db";
    std::filesystem::remove(path);
    {
      auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      EXPECT_TRUE(sqlite::Execute(db->get(), sql).ok());
    }
    const std::string content = *io::ReadFile(path, 1 << 28);
    const auto file = imports::Recognise(AsBytes(content), content.size());
    auto fd = io::Open(path, O_RDONLY);
    imports::LocalUpload upload;
    upload.device = device_;
    upload.fd = fd->get();
    upload.name = path;
    upload.page_count = file->page_count;
    upload.begin.set_session_id(NewSession());
    upload.begin.set_database(name);
    upload.begin.set_timeline(1);
    upload.begin.set_method(v1::METHOD_ONLINE);
    upload.begin.set_page_size(file->page_size);
    const auto stored = imports::StoreDatabase(
        *path_->ingest, upload, [] { return false; }, [](int64_t) {});
    EXPECT_TRUE(stored.ok()) << stored.status();
    if (exports_ != nullptr && told) exports_->Committed(device_, name);
    return *stored;
  }
  std::string Root() const { return directory_ + "/exports"; }
  std::string Place() const { return Root() + "/" + device_name_ + "/main"; }
  std::vector<std::string> Names(const std::string& directory) const {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  // Until the export of this snapshot has ended.
  v1::Operation WaitFor(const SnapshotId& snapshot) {
    for (int i = 0; i < 3000; ++i) {
      const auto operations = operations_->List(DeviceId(), false, 100, "");
      for (const v1::Operation& operation : operations->items) {
        if (operation.snapshot_id() == snapshot.value() && operation.kind() == v1::OPERATION_KIND_EXPORT && operation.has_ended_at())
          return operation;
      }
      usleep(10'000);
    }
    ADD_FAILURE() << "no export of " << snapshot.value() << " has ended";
    return {};
  }

  SetClock clock_;
  std::atomic<bool> exported_ = true;
  Rule rule_;
  uint64_t reserve_ = 0;
  io::FreeBytesOf free_bytes_;
  std::function<absl::Status(const std::string&)> sync_directory_;
  std::chrono::milliseconds look_ = std::chrono::hours(1);
  std::chrono::milliseconds again_ = std::chrono::hours(1);
  std::vector<std::string> databases_ = {"main"};
  std::string device_name_ = "alpha";
  std::unique_ptr<Exports> exports_;
};

TEST_F(ExportsTest, ABackupBecomesCsvFilesByRename) {
  StartAll();
  const SnapshotId snapshot = Backup(
      "create table t(a, b); insert into t values(1, 'x,y'), (2, null); create table \"../../evil\"(a); create view v as select a from t");
  const v1::Operation ended = WaitFor(snapshot);
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  EXPECT_EQ(ended.ordered_by(), "policy:shops");
  const auto names = Names(Place());
  ASSERT_THAT(names, SizeIs(1));
  EXPECT_EQ(ParseExportName(names[0])->snapshot.value(), snapshot.value());
  const std::string made = Place() + "/" + names[0];
  EXPECT_THAT(ended.steps(), ElementsAre("written to " + made));
  EXPECT_THAT(Names(made), ElementsAre("%2E.%2F..%2Fevil.csv", "export.json", "t.csv", "v.csv"));
  EXPECT_EQ(*io::ReadFile(made + "/t.csv", 1000), "a,b\r\n1,\"x,y\"\r\n2,\r\n");
  EXPECT_THAT(*io::ReadFile(made + "/export.json", 1000), HasSubstr("\"snapshot\":\"" + snapshot.value() + "\""));
  struct stat st {};
  stat(made.c_str(), &st);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/scratch"));
}

TEST_F(ExportsTest, OrSql) {
  rule_.csv = false;
  StartAll();
  const SnapshotId snapshot = Backup("create table t(a); insert into t values(7)");
  ASSERT_EQ(WaitFor(snapshot).state(), v1::OPERATION_STATE_SUCCEEDED);
  const std::string made = Place() + "/" + Names(Place())[0];
  EXPECT_THAT(Names(made), ElementsAre("export.json", "main.sql"));
  EXPECT_THAT(*io::ReadFile(made + "/main.sql", 1000), HasSubstr("INSERT INTO t VALUES(7);"));
}

TEST_F(ExportsTest, TheNewestAreKept) {
  StartAll();
  std::vector<std::string> snapshots;
  for (int i = 0; i < 4; ++i) {
    clock_.Set(std::chrono::hours(i));
    const SnapshotId snapshot = Backup(fmt::format("create table t(a); insert into t values({})", i));
    ASSERT_EQ(WaitFor(snapshot).state(), v1::OPERATION_STATE_SUCCEEDED);
    snapshots.push_back(snapshot.value());
    if (i == 0) std::filesystem::create_directory(Place() + "/of somebody else");
  }
  std::vector<std::string> kept;
  for (const std::string& name : Names(Place())) {
    if (const auto parsed = ParseExportName(name); parsed.has_value()) kept.push_back(parsed->snapshot.value());
  }
  EXPECT_THAT(kept, UnorderedElementsAre(snapshots[2], snapshots[3]));
  EXPECT_THAT(Names(Place()), SizeIs(3));  // nothing of others is removed
}

TEST_F(ExportsTest, NotMoreOftenThanThePolicySays) {
  rule_.every = std::chrono::hours(1);
  StartAll();
  const SnapshotId first = Backup("create table t(a)");
  ASSERT_EQ(WaitFor(first).state(), v1::OPERATION_STATE_SUCCEEDED);
  Backup("create table t(a, b)");
  StopAll();
  EXPECT_THAT(Names(Place()), SizeIs(1));
  // The one before was longer ago: a directory's name says when.
  std::filesystem::rename(Place() + "/" + Names(Place())[0], Place() + "/" + ExportName(real_.Now() - std::chrono::hours(2), first));
  StartAll();  // looks at all of them
  const auto newest = path_->snapshots->Newest(device_, "main");
  EXPECT_EQ(WaitFor(SnapshotId(newest->id())).state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_THAT(Names(Place()), SizeIs(2));
}

// The names in the directory are of the future then.
TEST_F(ExportsTest, AClockThatWasSetBackRotatesNothingAway) {
  rule_.every = std::chrono::hours(1);
  rule_.keep = 1;
  clock_.Set(std::chrono::hours(48));
  StartAll();
  const SnapshotId first = Backup("create table t(a)");
  ASSERT_EQ(WaitFor(first).state(), v1::OPERATION_STATE_SUCCEEDED);
  clock_.Set(std::chrono::hours(0));
  // It is exported already.
  for (int i = 0; i < 5; ++i) exports_->Committed(device_, "main");
  // The next one does not wait for the future, and it is what is kept.
  const SnapshotId second = Backup("create table t(a, b)");
  ASSERT_EQ(WaitFor(second).state(), v1::OPERATION_STATE_SUCCEEDED);
  auto names = Names(Place());
  ASSERT_THAT(names, SizeIs(1));
  EXPECT_EQ(ParseExportName(names[0])->snapshot, second);
  // From then on it is as often as the policy says, whatever of the future is there.
  std::filesystem::create_directory(Place() + "/" + ExportName(clock_.Now() + std::chrono::hours(48), first));
  Backup("create table t(a, b, c)");
  StopAll();
  EXPECT_THAT(Names(Place()), SizeIs(2));
  operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
  EXPECT_THAT(operations_->List(DeviceId(), false, 100, "")->items, SizeIs(2));
}

TEST_F(ExportsTest, WhatIsExportedIsNotExportedAgain) {
  StartAll();
  const SnapshotId snapshot = Backup("create table t(a)");
  ASSERT_EQ(WaitFor(snapshot).state(), v1::OPERATION_STATE_SUCCEEDED);
  StopAll();
  look_ = std::chrono::milliseconds(20);
  StartAll();
  for (int i = 0; i < 10; ++i) exports_->Committed(device_, "main");
  StopAll();
  operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
  EXPECT_THAT(operations_->List(DeviceId(), false, 100, "")->items, SizeIs(1));
}

TEST_F(ExportsTest, WhatCannotBeReadIsLeftOutAndTold) {
  StartAll();
  const SnapshotId snapshot = Backup(
      "create table t(a); insert into t values(1); create virtual table f using fts5(x); insert into f values('found');"
      "create table gone(a); create view \"a \"\"broken\"\" one\" as select a from gone; drop table gone;");
  const v1::Operation ended = WaitFor(snapshot);
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  const std::string made = Place() + "/" + Names(Place())[0];
  EXPECT_THAT(Names(made), ElementsAre("export.json", "f.csv", "t.csv"));
  EXPECT_EQ(*io::ReadFile(made + "/f.csv"), "x\r\nfound\r\n");
  EXPECT_THAT(*io::ReadFile(made + "/export.json"), HasSubstr("\"left_out\":[{\"name\":\"a \\u0022broken\\u0022 one\",\"why\":\""));
  EXPECT_THAT(ended.steps(), ElementsAre(HasSubstr("left out a \"broken\" one: "), "written to " + made));
}

// After it was renamed or removed.
TEST_F(ExportsTest, WhatAnotherDeviceOfThatNameLeftStays) {
  rule_.keep = 1;
  StartAll();
  ASSERT_EQ(WaitFor(Backup("create table t(a)")).state(), v1::OPERATION_STATE_SUCCEEDED);
  const std::string theirs = Place() + "/" + Names(Place())[0];
  std::string about = *io::ReadFile(theirs + "/export.json");
  const size_t at = about.find(device_.value());
  ASSERT_NE(at, std::string::npos);
  about.replace(at, device_.value().size(), "22222222-2222-4222-8222-222222222222");
  ASSERT_TRUE(io::WriteFileAtomic(theirs + "/export.json", about).ok());
  const std::string ours = Root() + "/alpha~11111111/main";
  SnapshotId last;
  for (const char* sql : {"create table t(a, b)", "create table t(a, b, c)"}) {
    clock_.Set(std::chrono::hours(std::string_view(sql).size()));
    last = Backup(sql);
    ASSERT_EQ(WaitFor(last).state(), v1::OPERATION_STATE_SUCCEEDED);
  }
  EXPECT_TRUE(std::filesystem::exists(theirs + "/t.csv"));
  ASSERT_THAT(Names(ours), SizeIs(1));
  EXPECT_EQ(ParseExportName(Names(ours)[0])->snapshot, last);
  EXPECT_THAT(Names(Root()), ElementsAre("alpha", "alpha~11111111"));
}

TEST_F(ExportsTest, AFailureLeavesNothingAndIsNotTriedAtOnce) {
  look_ = std::chrono::milliseconds(20);
  StartAll();
  const SnapshotId snapshot = Backup(
      "create table t(a); create virtual table v using fts5(x); pragma writable_schema=on; "
      "update sqlite_schema set sql = 'create view w as select nothing from nowhere', type = 'view', rootpage = 0, "
      "name = 'w', tbl_name = 'w' where name = 't'");
  const v1::Operation ended = WaitFor(snapshot);
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "DATABASE_DAMAGED") << ended.DebugString();
  EXPECT_THAT(Names(Place()), SizeIs(0));
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/scratch"));
  for (int i = 0; i < 5; ++i) exports_->Committed(device_, "main");
  StopAll();
  operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
  EXPECT_THAT(operations_->List(DeviceId(), false, 100, "")->items, SizeIs(1));
}

// Each try reads the whole snapshot.
TEST_F(ExportsTest, AfterAFailureTheNextSnapshotWaitsAsWell) {
  look_ = std::chrono::milliseconds(20);
  StartAll();
  ASSERT_TRUE(io::WriteFileAtomic(Root(), "", 0600).ok());
  ASSERT_EQ(WaitFor(Backup("create table t(a)")).state(), v1::OPERATION_STATE_FAILED);
  Backup("create table t(a, b)");
  usleep(200'000);
  StopAll();
  operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
  EXPECT_THAT(operations_->List(DeviceId(), false, 100, "")->items, SizeIs(1));
}

TEST_F(ExportsTest, ACancelEndsItAtOnceAndForThatSnapshot) {
  look_ = again_ = std::chrono::milliseconds(20);
  StartAll();
  const SnapshotId snapshot = Backup(
      "create table t(a); insert into t values(1); create view v as with recursive c(n) as (select 1 union all select n + 1 from c) select "
      "count(*) from c");
  // It is within the view, which has no end.
  const auto partial = [&] {
    const auto names = Names(Place());
    return names.size() == 1 && names[0].ends_with(".partial") && std::filesystem::exists(Place() + "/" + names[0] + "/v.csv");
  };
  for (int i = 0; i < 3000 && !partial(); ++i) usleep(10'000);
  ASSERT_TRUE(partial());
  const auto active = fleet_->ActiveLocal();
  ASSERT_THAT(active, SizeIs(1));
  const SteadyTime began = real_.Steady();
  ASSERT_TRUE(fleet_->Cancel(OperationId(active[0].id())).ok());
  EXPECT_EQ(WaitFor(snapshot).state(), v1::OPERATION_STATE_CANCELLED);
  EXPECT_LT(real_.Steady() - began, std::chrono::seconds(2));
  EXPECT_THAT(Names(Place()), SizeIs(0));
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/scratch"));
  EXPECT_THAT(exports_->Failures(), SizeIs(0)) << "nothing is wrong";
  // Not the same once more, at whatever look. The next one is exported.
  for (int i = 0; i < 5; ++i) exports_->Committed(device_, "main");
  clock_.Pass(look_ * 2);
  exports_->Committed(device_, "none");  // wakes it
  const SnapshotId next = Backup("create table t(a, b)");
  EXPECT_EQ(WaitFor(next).state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_THAT(Names(Place()), ElementsAre(HasSubstr(next.value())));
  EXPECT_THAT(operations_->List(DeviceId(), false, 100, "")->items, SizeIs(2));
}

TEST_F(ExportsTest, WhatTookLongComesLast) {
  databases_ = {"a", "b"};
  std::vector<std::string> tried;  // by the worker alone
  free_bytes_ = [&](const std::string& path) -> absl::StatusOr<uint64_t> {
    const std::string name = path.substr(path.rfind('/') + 1);
    if (name == "a") clock_.Pass(std::chrono::minutes(1));
    if (name.size() == 1 && (tried.empty() || tried.back() != name)) tried.push_back(name);
    return uint64_t{1} << 40;
  };
  StartAll();
  for (const std::string& name : databases_) ASSERT_EQ(WaitFor(Backup("create table t(a)", name)).state(), v1::OPERATION_STATE_SUCCEEDED);
  const SnapshotId a = Backup("create table t(b)", "a", false), b = Backup("create table t(b)", "b", false);
  clock_.Pass(look_ * 2);
  exports_->Committed(device_, "none");  // wakes it
  for (const SnapshotId& each : {a, b}) ASSERT_EQ(WaitFor(each).state(), v1::OPERATION_STATE_SUCCEEDED);
  StopAll();
  EXPECT_THAT(tried, ElementsAre("a", "b", "a"));
}

TEST_F(ExportsTest, AFullDiskIsSaidBefore) {
  reserve_ = uint64_t{1} << 60;
  StartAll();
  const SnapshotId snapshot = Backup("create table t(a)");
  EXPECT_EQ(WaitFor(snapshot).error().info().reason(), "NOT_ENOUGH_SPACE");
  EXPECT_THAT(Names(Place()), SizeIs(0));
}

// A small database may be a large text.
class FullDiskTest : public ExportsTest, public testing::WithParamInterface<bool> {};

TEST_P(FullDiskTest, ADiskThatFillsUpMeanwhileEndsIt) {
  rule_.csv = GetParam();
  reserve_ = 1 << 20;
  // As if others wrote there, too.
  free_bytes_ = [&](const std::string&) -> absl::StatusOr<uint64_t> {
    uint64_t used = 0;
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(Root(), error))
      used += entry.is_regular_file() ? entry.file_size() : 0;
    return (21 << 20) - std::min<uint64_t>(used * 4, 21 << 20);
  };
  StartAll();
  const SnapshotId snapshot = Backup(rule_.csv ? "create table t(a); create view v as select printf('%.*c', 10000000, 'x') as a"
                                               : "create table t(a); insert into t values(zeroblob(9000000))");
  const v1::Operation ended = WaitFor(snapshot);
  EXPECT_EQ(ended.error().info().reason(), "NOT_ENOUGH_SPACE") << ended.DebugString();
  EXPECT_THAT(Names(Place()), SizeIs(0));
}

INSTANTIATE_TEST_SUITE_P(Formats, FullDiskTest, testing::Bool());

TEST_F(ExportsTest, AFailureIsKnownUntilOneWorks) {
  look_ = again_ = std::chrono::milliseconds(20);
  StartAll();
  // Nothing can be made there.
  ASSERT_TRUE(io::WriteFileAtomic(Root(), "", 0600).ok());
  ASSERT_EQ(WaitFor(Backup("create table t(a)")).state(), v1::OPERATION_STATE_FAILED);
  const std::vector<Failure> failures = exports_->Failures();
  ASSERT_THAT(failures, SizeIs(1));
  EXPECT_EQ(failures[0].device + "/" + failures[0].database, "alpha/main");
  EXPECT_FALSE(failures[0].status.ok());
  ASSERT_EQ(WaitFor(Backup("create table t(a, b)")).state(), v1::OPERATION_STATE_FAILED);
  EXPECT_THAT(exports_->Failures(), SizeIs(1));
  std::filesystem::remove(Root());
  ASSERT_EQ(WaitFor(Backup("create table t(a, b, c)")).state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_THAT(exports_->Failures(), SizeIs(0));
}

// The export has its name by then, and is not made anew: what is left to do is done at another look.
TEST_F(ExportsTest, WhatFailsAfterTheRenameIsDoneLater) {
  rule_.keep = 1;
  look_ = again_ = std::chrono::milliseconds(20);
  std::atomic<bool> broken = false;
  std::atomic<int> tries = 0;
  sync_directory_ = [&](const std::string& path) -> absl::Status {
    if (!broken) return io::SyncDirectory(path);
    ++tries;
    return absl::InternalError("the disk is ill");
  };
  StartAll();
  ASSERT_EQ(WaitFor(Backup("create table t(a)")).state(), v1::OPERATION_STATE_SUCCEEDED);
  broken = true;
  const SnapshotId second = Backup("create table t(a, b)");
  ASSERT_EQ(WaitFor(second).state(), v1::OPERATION_STATE_FAILED);
  for (int i = 0; i < 3000 && tries < 3; ++i) usleep(10'000);
  EXPECT_GE(tries, 3);
  EXPECT_THAT(exports_->Failures(), SizeIs(1));
  EXPECT_THAT(Names(Place()), SizeIs(2)) << "not durable yet";
  broken = false;
  for (int i = 0; i < 3000 && (!exports_->Failures().empty() || Names(Place()).size() > 1); ++i) usleep(10'000);
  EXPECT_THAT(exports_->Failures(), SizeIs(0));
  EXPECT_THAT(Names(Place()), ElementsAre(HasSubstr(second.value())));
}

TEST_F(ExportsTest, OfWhatNoPolicyExportsNothingIsWrong) {
  look_ = std::chrono::milliseconds(20);
  StartAll();
  ASSERT_TRUE(io::WriteFileAtomic(Root(), "", 0600).ok());
  ASSERT_EQ(WaitFor(Backup("create table t(a)")).state(), v1::OPERATION_STATE_FAILED);
  ASSERT_THAT(exports_->Failures(), SizeIs(1));
  exported_ = false;
  for (int i = 0; i < 1000 && !exports_->Failures().empty(); ++i) usleep(10'000);
  EXPECT_THAT(exports_->Failures(), SizeIs(0));
}

TEST_F(ExportsTest, ANameThatIsNoneIsNoPath) {
  device_name_ = "../outside";
  StartAll();
  Backup("create table t(a)");
  StopAll();
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/outside"));
  EXPECT_FALSE(std::filesystem::exists(Root()));
}

TEST_F(ExportsTest, AKillAtEachStepIsBegunAnew) {
  for (const char* point : {"export.materialised", "export.written", "export.renamed"}) {
    SCOPED_TRACE(point);
    std::filesystem::remove_all(Root());
    const SnapshotId snapshot = Backup(fmt::format("create table t(a); insert into t values('{}')", point));
    path_.reset();  // no thread may be left behind by the fork
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point, 1);
      Open();
      StartAll();
      sleep(30);
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    const bool there = std::string_view(point) == "export.renamed";
    Open();
    StartAll();
    if (!there) {
      // The one that was killed has failed; the next one is begun at once.
      const auto whole = [&] {
        const auto names = Names(Place());
        return std::any_of(names.begin(), names.end(), [](const std::string& name) { return ParseExportName(name).has_value(); });
      };
      for (int i = 0; i < 1000 && !whole(); ++i) usleep(10'000);
    }
    StopAll();
    const auto names = Names(Place());
    ASSERT_THAT(names, SizeIs(1));
    EXPECT_EQ(ParseExportName(names[0])->snapshot.value(), snapshot.value());
    EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/scratch"));
    operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
    const auto all = operations_->List(DeviceId(), false, 100, "");
    EXPECT_TRUE(std::any_of(all->items.begin(), all->items.end(),
                            [](const v1::Operation& operation) { return operation.error().info().reason() == "EXPORT_INTERRUPTED"; }));
    operations_.reset();
  }
}

TEST(ExportNameTest, ThereAndBack) {
  const SnapshotId id("01JDBBBBBBBBBBBBBBBBBBBBBB");
  const std::string name = ExportName(FromUnixMillis(1'763'820'180'999), id);
  EXPECT_EQ(name, "20251122T140300Z-01JDBBBBBBBBBBBBBBBBBBBBBB");
  const auto parsed = ParseExportName(name);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(ToUnixMillis(parsed->at), 1'763'820'180'000);
  EXPECT_EQ(parsed->snapshot, id);
  for (const char* other : {"", ".", "20251122T140300Z-", "20251122T140300Z-x", "20251322T140300Z-01JDBBBBBBBBBBBBBBBBBBBBBB",
                            ".20251122T140300Z-01JDBBBBBBBBBBBBBBBBBBBBBB.partial"})
    EXPECT_FALSE(ParseExportName(other).has_value()) << other;
}

}  // namespace
}  // namespace litefleet::exports
