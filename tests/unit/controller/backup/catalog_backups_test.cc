// Backups of the catalog: whole, of one moment, kept N, safe from faults, kills and power cuts, and history alone comes back from them.
#include "controller/backup/catalog_backups.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/store_names.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/catalog_copy.h"
#include "controller/catalog/catalog_history.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/schema.h"
#include "fmt/format.h"
#include "tests/fakes/volatile_files.h"

namespace litefleet::backup {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CatalogBackupsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/backups-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    fs::create_directories(directory_ + "/scratch");
    fs::create_directories(directory_ + "/store");
    Open();
    clock_.JumpSystem(RealClock().Now() - clock_.Now());
  }
  void TearDown() override {
    db_.reset();
    fs::remove_all(directory_);
  }
  void Open() {
    auto db = catalog::CatalogDb::Open(directory_ + "/catalog.db", true, catalog::Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    db_ = *std::move(db);
  }
  CatalogBackupOptions Options(int keep = 3) const {
    CatalogBackupOptions options;
    options.catalog = directory_ + "/catalog.db";
    options.store = directory_ + "/store";
    options.scratch = directory_ + "/scratch";
    options.keep = keep;
    return options;
  }
  // A policy's text is what changes from backup to backup.
  void Put(const std::string& text) {
    ASSERT_TRUE(db_->Write([&](sqlite3* db) {
                     return sqlite::Execute(db, fmt::format("insert or replace into policy values ('p', 1, 0, '{}')", text));
                   })
                    .ok());
  }
  // What the newest backup has of it; with the ids of those that could not be used.
  std::string Newest(std::vector<std::string>* notes = nullptr) const {
    std::vector<std::string> unused;
    const std::string copy = directory_ + "/unpacked.db";
    const auto unpacked = UnpackNewestCatalog(directory_ + "/store", copy, notes != nullptr ? *notes : unused);
    if (!unpacked.ok()) return MessageOf(unpacked.status());
    const auto db = sqlite::Open(copy, SQLITE_OPEN_READWRITE);
    EXPECT_TRUE(db.ok()) << db.status();
    auto get = sqlite::Statement::Prepare(db->get(), "select text from policy where name = 'p'");
    EXPECT_TRUE(get.ok() && get->Step().ok()) << get.status();
    return std::string(get->Text(0));
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_ + "/store/catalog")) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::vector<std::string> Scratch() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_ + "/scratch")) names.push_back(entry.path().filename());
    return names;
  }

  std::string directory_;
  FakeClock clock_;
  std::unique_ptr<catalog::CatalogDb> db_;
};

TEST_F(CatalogBackupsTest, KeepsTheNewestByNumber) {
  CatalogBackups backups(Options(3), clock_);
  EXPECT_FALSE(backups.GetFigures()->newest_at.has_value());
  for (int i = 1; i <= 5; ++i) {
    Put(fmt::format("state {}", i));
    clock_.JumpSystem(-std::chrono::hours(24));  // no clock decides what goes
    const absl::Status made = backups.BackUp();
    ASSERT_TRUE(made.ok()) << made;
    EXPECT_EQ(Newest(), fmt::format("state {}", i));
  }
  EXPECT_THAT(Files(), ElementsAre("0000000000000003.catalog", "0000000000000004.catalog", "0000000000000005.catalog"));
  EXPECT_THAT(Scratch(), IsEmpty());
  const auto figures = backups.GetFigures();
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_EQ(figures->count, 3);
  EXPECT_GT(figures->bytes, 1000);
  EXPECT_EQ(ToUnixMillis(*figures->newest_at), ToUnixMillis(clock_.Now()));
  EXPECT_EQ(figures->last_error, "");
}

TEST_F(CatalogBackupsTest, IsOfOneMomentWhileOthersWrite) {
  ASSERT_TRUE(db_->Write([](sqlite3* db) {
                   return sqlite::Execute(db,
                                          "create table pair (a integer, b integer, filler blob); insert into pair values (0, 0, "
                                          "zeroblob(3000000)); insert into key_floor values ('pair', 0)");
                 })
                  .ok());
  std::atomic<bool> stop{false};
  std::atomic<int64_t> written{0};
  std::thread writer([&] {
    while (!stop) {
      ASSERT_TRUE(db_->Write([](sqlite3* db) {
                       return sqlite::Execute(db, "update pair set a = a + 1; update key_floor set value = value + 1 where name = 'pair'");
                     })
                      .ok());
      ++written;
    }
  });
  CatalogBackups backups(Options(), clock_);
  for (int i = 0; i < 3; ++i) {
    const int64_t before = written;
    const absl::Status made = backups.BackUp();
    EXPECT_TRUE(made.ok()) << made;
    while (written == before) std::this_thread::yield();  // no writer is shut out for good
    Newest();
    const auto db = sqlite::Open(directory_ + "/unpacked.db", SQLITE_OPEN_READWRITE);
    EXPECT_EQ(sqlite::QueryInt(db->get(), "select a - (select value from key_floor where name = 'pair') from pair").value_or(-1), 0);
    EXPECT_GE(sqlite::QueryInt(db->get(), "select a from pair").value_or(-1), before);
  }
  stop = true;
  writer.join();
}

// Who closes any descriptor of the catalog drops the locks by which SQLite tells other processes that it is open.
TEST_F(CatalogBackupsTest, LeavesTheLocksOfTheProcessAlone) {
  Put("state");
  const auto is_locked = [&] {
    const pid_t child = fork();
    if (child == 0) {
      const int fd = open((directory_ + "/catalog.db").c_str(), O_RDWR | O_CLOEXEC);
      struct flock shared {};
      shared.l_type = F_WRLCK;
      shared.l_whence = SEEK_SET;
      shared.l_start = 0x40000002;  // SQLite's shared range
      shared.l_len = 510;
      _exit(fd >= 0 && fcntl(fd, F_GETLK, &shared) == 0 && shared.l_type != F_UNLCK ? 0 : 1);
    }
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  ASSERT_TRUE(is_locked());
  CatalogBackups backups(Options(), clock_);
  ASSERT_TRUE(backups.BackUp().ok());
  EXPECT_TRUE(is_locked());
}

TEST_F(CatalogBackupsTest, ADamagedOneIsPassedOver) {
  CatalogBackups backups(Options(), clock_);
  for (const char* text : {"older", "newer"}) {
    Put(text);
    ASSERT_TRUE(backups.BackUp().ok());
  }
  std::fstream file(directory_ + "/store/catalog/0000000000000002.catalog", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(200);
  file.put('\x55');
  file.close();
  std::vector<std::string> notes;
  EXPECT_EQ(Newest(&notes), "older");
  EXPECT_THAT(notes, ElementsAre(HasSubstr("0000000000000002.catalog")));
}

TEST_F(CatalogBackupsTest, ADamagedCatalogPushesNothingOut) {
  CatalogBackups backups(Options(1), clock_);
  Put("good");
  ASSERT_TRUE(backups.BackUp().ok());
  int64_t page = 0;
  ASSERT_TRUE(db_->Read([&](sqlite3* db) -> absl::Status {
                   LF_ASSIGN_OR_RETURN(page, sqlite::QueryInt(db, "select rootpage from sqlite_schema where name = 'chunk'"));
                   return absl::OkStatus();
                 })
                  .ok());
  db_.reset();
  std::fstream file(directory_ + "/catalog.db", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp((page - 1) * 4096);
  file << std::string(200, '\x5a');
  file.close();
  const absl::Status made = backups.BackUp();
  EXPECT_EQ(ReasonOf(made), "CATALOG_DAMAGED") << made;
  EXPECT_THAT(backups.GetFigures()->last_error, HasSubstr("damaged"));
  EXPECT_EQ(Newest(), "good");
  EXPECT_THAT(Scratch(), IsEmpty());
}

TEST_F(CatalogBackupsTest, AFullDiskIsSaidAndTakesNothing) {
  CatalogBackupOptions options = Options();
  options.leave_free = uint64_t{1} << 60;
  CatalogBackups backups(options, clock_);
  EXPECT_EQ(ReasonOf(backups.BackUp()), "DISK_FULL");
  EXPECT_THAT(Scratch(), IsEmpty());
  EXPECT_FALSE(backups.GetFigures()->newest_at.has_value());
}

// Every call of the file system fails once; the older backup can be used all the time, and afterwards, and after a power cut.
TEST_F(CatalogBackupsTest, EveryCallMayFail) {
  using fakes::FileFault;
  for (const FileFault fault : {FileFault::kIo, FileFault::kFull, FileFault::kShort}) {
    for (int at = 1;; ++at) {
      fs::remove_all(directory_ + "/store/catalog");
      int calls = 0;
      bool armed = false;
      fakes::VolatileFiles files(7, 0, [&](fakes::FileCall) { return armed && ++calls == at ? fault : FileFault::kNone; });
      CatalogBackups backups(Options(2), clock_, files);
      const std::string where = fmt::format("fault {} at call {}", static_cast<int>(fault), at);
      Put("one");
      ASSERT_TRUE(backups.BackUp().ok()) << where;
      Put("two");
      armed = true;
      const absl::Status second = backups.BackUp();
      armed = false;
      EXPECT_EQ(second.ok(), calls < at) << where << ": " << second;
      EXPECT_EQ(backups.GetFigures()->last_error.empty(), second.ok()) << where;
      if (!second.ok()) {
        EXPECT_NE(ReasonOf(second), "") << where << ": " << second;
      }
      files.Forget();  // the power goes
      const std::string found = Newest();
      EXPECT_TRUE(found == "two" || (!second.ok() && found == "one")) << where << ": " << found;
      Put("three");
      const absl::Status third = backups.BackUp();
      EXPECT_TRUE(third.ok()) << where << ": " << third;
      files.Forget();
      EXPECT_EQ(Newest(), "three") << where;
      EXPECT_LE(Files().size(), 2u) << where;
      EXPECT_THAT(Scratch(), IsEmpty()) << where;
      if (calls < at) break;
    }
  }
}

class CatalogBackupKillTest : public CatalogBackupsTest, public testing::WithParamInterface<const char*> {};

TEST_P(CatalogBackupKillTest, TheNewOneOrTheOneBefore) {
  Put("one");
  ASSERT_TRUE(CatalogBackups(Options(2), clock_).BackUp().ok());
  Put("two");
  db_.reset();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    _exit(CatalogBackups(Options(2), clock_).BackUp().ok() ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "ended by itself: " << WEXITSTATUS(status);
  EXPECT_EQ(Newest(), std::string(GetParam()) == "catalog_backup.after_rename" ? "two" : "one");
  Open();
  Put("three");
  const absl::Status made = CatalogBackups(Options(2), clock_).BackUp();
  ASSERT_TRUE(made.ok()) << made;
  EXPECT_EQ(Newest(), "three");
  EXPECT_EQ(Files().size(), 2u) << "nothing unfinished stays";
  EXPECT_THAT(Scratch(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Points, CatalogBackupKillTest,
                         testing::Values("catalog_backup.after_copy", "catalog_backup.after_write", "catalog_backup.after_rename"));

TEST_F(CatalogBackupsTest, RunsByItselfAndStops) {
  CatalogBackupOptions options = Options();
  options.every = std::chrono::milliseconds(5);
  std::atomic<int> made{0};
  options.made = [&] {
    ++made;
    return absl::OkStatus();
  };
  {
    CatalogBackups backups(options, clock_);
    backups.Begin();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (made < 3 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_GE(made, 3);
  }
  EXPECT_THAT(Scratch(), IsEmpty()) << "also of one that was stopped";
  // One that is young enough is not repeated by the next start.
  options.every = std::chrono::hours(24);
  made = 0;
  CatalogBackups backups(options, clock_);
  backups.Begin();
  EXPECT_EQ(made, 0);
}

// ---- history

class CatalogHistoryTest : public CatalogBackupsTest {
 protected:
  void SetUp() override {
    CatalogBackupsTest::SetUp();
    auto db = catalog::CatalogDb::Open(directory_ + "/rebuilt.db", true, catalog::Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    rebuilt_ = *std::move(db);
  }
  void Run(catalog::CatalogDb& db, const std::string& sql) {
    const absl::Status status = db.Write([&](sqlite3* connection) { return sqlite::Execute(connection, sql); });
    ASSERT_TRUE(status.ok()) << status;
  }
  int64_t Count(const std::string& sql) const {
    int64_t count = -1;
    const absl::Status status = rebuilt_->Read([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(count, sqlite::QueryInt(db, sql));
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return count;
  }
  // A device and a snapshot of it, as an upload or a rebuild leave them.
  void MakeDevice(catalog::CatalogDb& db, const std::string& id, const std::string& snapshot, const std::string& root) {
    Run(db,
        fmt::format("insert into device (id, name, state, key_hash, enrolled_ms) values ('{0}', 'n{0}', 1, zeroblob(32), 5);"
                    "insert into database (device, name, sequence, snapshots) values ('{0}', 'db', 1, 1);"
                    "insert into snapshot (id, device, database, timeline, sequence, method, state, page_size, page_count, root, "
                    "root_version, manifest_kind, manifest_parts, taken_at, received_at, effective_at, journal_mode, source_check, "
                    "source_check_message, check_state, pages_sent, wire_bytes, stored_bytes, duration_ms, pinned_ms, read_bytes, "
                    "operation, session, pack, offset) select '{1}', '{0}', id, 1, 1, 1, 1, 4096, 1, x'{2}', 1, 1, 1, 1, 1, 1, 1, 1, '', "
                    "1, 1, 1, 1, 1, 1, 1, '', '', 1, 64 from database where device = '{0}'",
                    id, snapshot, root));
  }
  std::string MakeOperation(const std::string& device, v1::OperationState state) {
    catalog::OperationRow row;
    row.operation.set_id(NewUlid(clock_.Now()));
    row.operation.set_kind(v1::OPERATION_KIND_RESTORE);
    row.operation.set_state(state);
    row.operation.set_device_id(device);
    row.operation.set_ordered_by("operator:ada");
    *row.operation.mutable_created_at() = ToProtoTime(clock_.Now());
    if (!catalog::IsActive(state)) *row.operation.mutable_ended_at() = ToProtoTime(clock_.Now());
    row.order.set_operation_id(row.operation.id());
    row.order.mutable_restore()->set_database("db");
    catalog::OperationCatalog operations(*db_);
    EXPECT_TRUE(operations.Create({row}).ok());
    return row.operation.id();
  }
  catalog::TakenHistory Take() {
    const std::string copy = directory_ + "/copy.db";
    EXPECT_TRUE(catalog::CopyCatalog(directory_ + "/catalog.db", copy, CancelToken()).ok());
    rebuilt_.reset();
    const auto taken = catalog::TakeHistory(directory_ + "/rebuilt.db", copy, clock_.Now());
    EXPECT_TRUE(taken.ok()) << taken.status();
    rebuilt_ = *catalog::CatalogDb::Open(directory_ + "/rebuilt.db", false, catalog::Migrations());
    return taken.value_or(catalog::TakenHistory());
  }

  std::unique_ptr<catalog::CatalogDb> rebuilt_;
};

TEST_F(CatalogHistoryTest, OperationsAndVerdictsComeBackAndNoRights) {
  const std::string device = "11111111-1111-4111-8111-111111111111";
  const std::string gone = "22222222-2222-4222-8222-222222222222";
  MakeDevice(*db_, device, "S1", "aa");
  MakeDevice(*db_, gone, "S2", "bb");
  Run(*db_,
      "update snapshot set check_state = 3, checked_at = 77, drilled_at = 78, restore_ms = 9 where id = 'S1';"
      "update device set last_seen_ms = 1234, version = '9' where id = '11111111-1111-4111-8111-111111111111';"
      "insert into token values ('T', x'00', 1, 99999999999999, 5, 5, 0, '');"
      "insert into certificate (serial, device_id, role, key_hash, issued_ms, not_after_ms) values "
      "('cc', '11111111-1111-4111-8111-111111111111', 'device', x'00', 1, 99999999999999);"
      "insert into chunk (name, page_size, page_count, codec, stored_bytes, pack, offset, state) values (x'01', 1, 1, 1, 1, 1, 1, 1)");
  const std::string done = MakeOperation(device, v1::OPERATION_STATE_SUCCEEDED);
  const std::string active = MakeOperation(device, v1::OPERATION_STATE_SENT);
  MakeOperation(gone, v1::OPERATION_STATE_SUCCEEDED);
  MakeDevice(*rebuilt_, device, "S1", "aa");

  const catalog::TakenHistory taken = Take();
  EXPECT_EQ(taken.operations, 2);
  EXPECT_EQ(taken.interrupted, 1);
  EXPECT_EQ(taken.verdicts, 1);
  catalog::OperationCatalog operations(*rebuilt_);
  EXPECT_EQ(operations.Get(OperationId(done))->operation.state(), v1::OPERATION_STATE_SUCCEEDED);
  const auto ended = operations.Get(OperationId(active));
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->operation.state(), v1::OPERATION_STATE_FAILED) << "an old order is not given again";
  EXPECT_EQ(ended->operation.error().info().reason(), "CATALOG_REBUILT");
  EXPECT_EQ(Count("select count(*) from operation where active = 1"), 0);
  EXPECT_EQ(Count("select check_state * 100 + restore_ms from snapshot where id = 'S1'"), 309);
  EXPECT_EQ(Count("select proven = (select key from snapshot where id = 'S1') from database"), 1);
  EXPECT_EQ(Count("select last_seen_ms from device"), 1234);
  for (const char* table : {"token", "certificate", "chunk", "upload_session", "claim"}) {
    EXPECT_EQ(Count(fmt::format("select count(*) from {}", table)), 0) << table << " comes from packs or not at all";
  }
  EXPECT_EQ(Count("select count(*) from snapshot"), 1);
  EXPECT_EQ(Count("select count(*) from device"), 1);
  EXPECT_EQ(Take().operations, 0) << "a second time brings nothing twice";
}

TEST_F(CatalogHistoryTest, NumbersThatThePacksDoNotKnowAreNotGivenAgain) {
  const std::string device = "11111111-1111-4111-8111-111111111111";
  const std::string gone = "22222222-2222-4222-8222-222222222222";
  MakeDevice(*db_, device, "S1", "aa");
  MakeDevice(*db_, gone, "S2", "bb");
  Run(*db_,
      "update database set sequence = 9; insert into database (device, name, sequence) values "
      "('11111111-1111-4111-8111-111111111111', 'lost', 4)");
  MakeDevice(*rebuilt_, device, "S1", "aa");
  Take();
  EXPECT_EQ(Count("select sequence from database where name = 'db'"), 9);
  EXPECT_EQ(Count("select sequence from database where name = 'lost'"), 4);
  EXPECT_EQ(Count("select count(*) from database"), 2) << "not of a device that is gone";
  EXPECT_EQ(Count("select count(*) from record_due where kind = 2"), 2) << "the packs are told";
  Run(*rebuilt_, "update database set sequence = 20");
  Take();
  EXPECT_EQ(Count("select min(sequence) from database"), 20);
}

TEST_F(CatalogHistoryTest, AVerdictIsOfOneContent) {
  const std::string device = "11111111-1111-4111-8111-111111111111";
  MakeDevice(*db_, device, "S1", "aa");
  Run(*db_, "update snapshot set check_state = 3, checked_at = 77 where id = 'S1'");
  MakeDevice(*rebuilt_, device, "S1", "ab");
  EXPECT_EQ(Take().verdicts, 0);
  EXPECT_EQ(Count("select check_state from snapshot"), 1);
  EXPECT_EQ(Count("select count(*) from database where proven is not null"), 0);
}

TEST_F(CatalogHistoryTest, ABackupOfANewerVersionIsRefused) {
  Run(*db_, "pragma user_version = 100000");
  const std::string copy = directory_ + "/copy.db";
  ASSERT_TRUE(catalog::CopyCatalog(directory_ + "/catalog.db", copy, CancelToken()).ok());
  rebuilt_.reset();
  const auto taken = catalog::TakeHistory(directory_ + "/rebuilt.db", copy, clock_.Now());
  EXPECT_EQ(ReasonOf(taken.status()), "CATALOG_TOO_NEW");
  rebuilt_ = *catalog::CatalogDb::Open(directory_ + "/rebuilt.db", false, catalog::Migrations());
  EXPECT_EQ(Count("select count(*) from operation"), 0);
}

TEST_F(CatalogBackupsTest, ACopyCanBeStopped) {
  CancelToken stop;
  stop.Interrupt();
  const auto copied = catalog::CopyCatalog(directory_ + "/catalog.db", directory_ + "/copy.db", stop);
  EXPECT_TRUE(absl::IsCancelled(copied.status())) << copied.status();
  EXPECT_FALSE(fs::exists(directory_ + "/copy.db"));
}

}  // namespace
}  // namespace litefleet::backup
