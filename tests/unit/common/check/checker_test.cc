#include "common/check/checker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::check {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class CheckerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "check-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/a.db";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Make(const std::string& sql) {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok()) << db.status();
    const absl::Status made = sqlite::Execute(db->get(), sql);
    ASSERT_TRUE(made.ok()) << made;
  }
  void Overwrite(uint64_t offset, size_t size) {
    auto fd = io::Open(path_, O_RDWR);
    ASSERT_TRUE(fd.ok());
    const std::string junk(size, '\xa5');
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(junk), offset, path_).ok());
  }
  CheckResult Check(const Checker::Options& options = {}, const CheckRequest& request = {}) {
    auto fd = io::Open(path_, O_RDONLY);
    EXPECT_TRUE(fd.ok()) << fd.status();
    return Checker(options).Check(fd->get(), request);
  }

  std::string folder_;
  std::string path_;
};

constexpr char kRows[] =
    "create table t(id integer primary key, a text, b blob);"
    "create index ta on t(a);"
    "with recursive c(n) as (select 1 union all select n+1 from c where n < 3000)"
    " insert into t select n, 'row ' || n, zeroblob(200) from c;";

TEST_F(CheckerTest, SoundDatabaseIsOkAndReportsProgress) {
  Make(std::string("pragma journal_mode=wal;") + kRows);
  int64_t bytes = 0;
  const CheckResult result = Check({}, {.cancelled = {}, .progress = [&](int64_t b) { bytes = b; }});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.verdict.state, State::kOk) << result.Text();
  EXPECT_GE(bytes, static_cast<int64_t>(std::filesystem::file_size(path_)));
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "-shm"));
}

TEST_F(CheckerTest, FileOfAnotherOwnerIsReadThroughItsDescriptor) {
  Make(kRows);
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  EXPECT_EQ(Check().verdict.state, State::kOk);
}

TEST_F(CheckerTest, EmptyFileIsAnEmptyDatabase) {
  auto fd = io::Open(path_, O_RDWR | O_CREAT);
  ASSERT_TRUE(fd.ok());
  const CheckResult result = Check();
  EXPECT_EQ(result.verdict.state, State::kOk) << result.Text() << result.status;
}

TEST_F(CheckerTest, OverwrittenPageIsDamageInSqlitesWords) {
  Make(kRows);
  Overwrite(4096 * 20, 4096);
  const CheckResult result = Check();
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.verdict.state, State::kDamaged);
  EXPECT_FALSE(result.verdict.messages.empty());
}

TEST_F(CheckerTest, OverwrittenHeaderIsDamage) {
  Make(kRows);
  Overwrite(0, 4096);
  const CheckResult result = Check();
  EXPECT_EQ(result.verdict.state, State::kDamaged);
  EXPECT_THAT(result.Text(), HasSubstr("not a database"));
}

TEST_F(CheckerTest, IndexThatMissesARowIsDamage) {
  Make(kRows);
  Make("pragma writable_schema=on; update sqlite_schema set sql='create index ta on t(b)' where name='ta';");
  EXPECT_EQ(Check().verdict.state, State::kDamaged);
}

TEST_F(CheckerTest, BrokenForeignKeyIsDamage) {
  Make("create table p(id integer primary key); create table c(p references p(id)); insert into c values(7);");
  const CheckResult result = Check();
  EXPECT_EQ(result.verdict.state, State::kDamaged);
  EXPECT_THAT(result.verdict.messages, Contains(HasSubstr("foreign key: row 1 of c has no parent in p")));
}

TEST_F(CheckerTest, ApplicationsCollationCannotBeJudged) {
  {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok());
    sqlite3_create_collation(db->get(), "german", SQLITE_UTF8, nullptr, [](void*, int n, const void* a, int m, const void* b) {
      return n == m ? memcmp(a, b, static_cast<size_t>(n)) : n - m;
    });
    ASSERT_TRUE(sqlite::Execute(db->get(),
                                "create table sound(a); insert into sound values(1);"
                                "create table t(a text collate german); create index i on t(a); insert into t values('x'),('y')")
                    .ok());
  }
  const CheckResult result = Check();
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.verdict.state, State::kCannotTell) << result.Text();
  EXPECT_THAT(result.Text(), HasSubstr("german"));
}

TEST_F(CheckerTest, ApplicationsFunctionCannotBeJudged) {
  {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok());
    sqlite3_create_function(
        db->get(), "own", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, nullptr,
        [](sqlite3_context* c, int, sqlite3_value**) { sqlite3_result_int(c, 1); }, nullptr, nullptr);
    ASSERT_TRUE(
        sqlite::Execute(db->get(), "create table t(a, check(own(a))); create index i on t(own(a)); insert into t values('x')").ok());
  }
  EXPECT_EQ(Check().verdict.state, State::kCannotTell) << Check().Text();
}

TEST_F(CheckerTest, MissingModuleCannotBeJudgedButKnownOnesCan) {
  Make("create virtual table f using fts5(a); insert into f values('word');");
  EXPECT_EQ(Check().verdict.state, State::kOk) << Check().Text();
  Make("pragma writable_schema=on; insert into sqlite_schema values('table','v','v',0,'CREATE VIRTUAL TABLE v USING own_module(a)');");
  const CheckResult result = Check();
  EXPECT_EQ(result.verdict.state, State::kCannotTell) << result.Text();
  EXPECT_THAT(result.Text(), HasSubstr("own_module"));
}

TEST_F(CheckerTest, DamageBesideWhatCannotBeJudgedIsDamage) {
  {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok());
    sqlite3_create_collation(db->get(), "german", SQLITE_UTF8, nullptr, [](void*, int n, const void* a, int m, const void* b) {
      return n == m ? memcmp(a, b, static_cast<size_t>(n)) : n - m;
    });
    ASSERT_TRUE(sqlite::Execute(db->get(), "create table t(a text collate german); create index i on t(a);").ok());
    ASSERT_TRUE(
        sqlite::Execute(db->get(), "create table sound(a, b); create index si on sound(a); insert into sound values(1,2),(3,4)").ok());
  }
  Make("pragma writable_schema=on; update sqlite_schema set sql='create index si on sound(b)' where name='si';");
  EXPECT_EQ(Check().verdict.state, State::kDamaged) << Check().Text();
}

TEST_F(CheckerTest, HostileCheckConstraintStaysWithinItsMemory) {
  Make("create table t(a, check(length(randomblob(900000000)) > a)); pragma ignore_check_constraints=on; insert into t values(1);");
  rusage before{}, after{};
  getrusage(RUSAGE_CHILDREN, &before);
  const CheckResult result = Check();
  getrusage(RUSAGE_CHILDREN, &after);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.verdict.state, State::kCannotTell) << result.Text();
  EXPECT_LT(after.ru_maxrss, 256 * 1024);
}

TEST_F(CheckerTest, BrokenCheckConstraintIsDamage) {
  Make("create table t(a, check(a < 5)); pragma ignore_check_constraints=on; insert into t values(7);");
  const CheckResult result = Check();
  EXPECT_EQ(result.verdict.state, State::kDamaged);
  EXPECT_THAT(result.Text(), HasSubstr("CHECK constraint failed in t"));
}

TEST_F(CheckerTest, CancelEndsAnEndlessConstraint) {
  Make(
      "create table u(a, check(length(hex(hex(zeroblob(a)))) > 0)); pragma ignore_check_constraints=on;"
      "with recursive c(n) as (select 1 union all select n+1 from c where n < 2000) insert into u select 1000000 from c;");
  std::atomic<bool> cancelled{false};
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    cancelled = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  const CheckResult result = Check({}, {.cancelled = [&] { return cancelled.load(); }, .progress = {}});
  canceller.join();
  EXPECT_EQ(ReasonOf(result.status), "CANCELLED");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(CheckerTest, EndlessConstraintEndsAtTheTimeLimit) {
  Make(
      "create table u(a, check(length(hex(hex(zeroblob(a)))) > 0)); pragma ignore_check_constraints=on;"
      "with recursive c(n) as (select 1 union all select n+1 from c where n < 2000) insert into u select 1000000 from c;");
  const std::string command = fmt::format("'{}' check 100000000 50000000 1 5 3<'{}' | cat", Checker({}).helper(), path_);
  FILE* answer = popen(command.c_str(), "r");
  ASSERT_NE(answer, nullptr);
  std::string text(4096, '\0');
  text.resize(fread(text.data(), 1, text.size(), answer));
  pclose(answer);
  EXPECT_THAT(text, HasSubstr("message the check took longer than its time limit\nverdict failed\n"));
}

TEST_F(CheckerTest, HelperThatIsMissingOrDiesIsAFailure) {
  Make(kRows);
  EXPECT_EQ(ReasonOf(Check({.helper = "/nonexistent/helper", .limits = {}}).status), "CHECK_HELPER_FAILED");
  EXPECT_EQ(ReasonOf(Check({.helper = "/bin/false", .limits = {}}).status), "CHECK_HELPER_FAILED");
  EXPECT_EQ(ReasonOf(Check({.helper = "/bin/echo", .limits = {}}).status), "CHECK_HELPER_FAILED");
}

// A backup of pages has it all the same, and its restore asks for no override.
TEST_F(CheckerTest, ValueAboveTheLengthLimitCannotBeTold) {
  Make(
      "create table t(a not null, b); create index i on t(a); insert into t values(zeroblob(3000000), 1);"
      "create table u(a not null); insert into u values(1)");
  Limits limits;
  limits.length_bytes = 1 << 20;
  const auto check = [&] { return Check({.helper = {}, .limits = limits}); };
  CheckResult result = check();
  EXPECT_EQ(result.verdict.state, State::kCannotTell) << result.Text();
  EXPECT_EQ(result.Text(), "table t: a row, a text or a blob has more than 1048576 bytes, the limit of the check");
  limits.length_bytes = 4 << 20;
  EXPECT_EQ(check().verdict.state, State::kOk);
  // What is wrong besides is found, in other tables and in its own.
  limits.length_bytes = 1 << 20;
  for (const char* broken : {"u set a = null", "t set a = null where b = 2"}) {
    SCOPED_TRACE(broken);
    std::filesystem::remove(path_);
    Make(
        "create table t(a not null, b); create index i on t(a); insert into t values(zeroblob(3000000), 1), (2, 2);"
        "create table u(a not null); insert into u values(1); pragma writable_schema=on;"
        "update sqlite_schema set sql = replace(sql, 'a not null', 'a') where type = 'table'");
    Make(std::string("update ") + broken);
    Make("pragma writable_schema=on; update sqlite_schema set sql = replace(sql, '(a', '(a not null') where type = 'table'");
    result = check();
    EXPECT_EQ(result.verdict.state, State::kDamaged) << result.Text();
    EXPECT_THAT(result.Text(), HasSubstr(std::string("NULL value in ") + broken[0] + ".a"));
  }
}

}  // namespace
}  // namespace litefleet::check
