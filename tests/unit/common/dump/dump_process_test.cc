// Through the helper process: what it is given, what it may not, and what of a damaged database it says.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "common/base/sanitizer.h"
#include "common/base/status.h"
#include "common/dump/csv_files.h"
#include "common/dump/dump_process.h"
#include "common/dump/page_channel.h"
#include "common/io/file.h"
#include "tests/unit/common/dump/dump_fixture.h"

namespace litefleet::dump {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class ProcessTest : public DumpTest {
 protected:
  static absl::StatusOr<std::string> Text(absl::StatusOr<std::unique_ptr<DumpProcess>> process) {
    LF_RETURN_IF_ERROR(process.status());
    std::string text;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const ByteView piece, (*process)->Next());
      if (piece.empty()) return text;
      text += AsText(piece);
    }
  }
  absl::StatusOr<std::string> DumpFile(const std::string& name, const DumpOptions& what = {}, const HelperOptions& options = {}) {
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(Path(name), O_RDONLY));
    return Text(DumpProcess::Sql(options, {.fd = fd.get(), .bytes = 0, .read = {}}, what));
  }
  // The same through whoever reads it.
  absl::StatusOr<std::string> DumpThroughChannel(const std::string& name, uint64_t* read = nullptr) {
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(Path(name), O_RDONLY));
    DumpSource source;
    source.bytes = std::filesystem::file_size(Path(name));
    source.read = [&](uint64_t offset, std::span<std::byte> out) { return io::PreadAll(fd.get(), out, offset, name); };
    auto process = DumpProcess::Sql({}, std::move(source), {});
    LF_RETURN_IF_ERROR(process.status());
    DumpProcess* const running = process->get();
    std::string text;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const ByteView piece, running->Next());
      if (read != nullptr) *read = running->read_bytes();
      if (piece.empty()) return text;
      text += AsText(piece);
    }
  }
  absl::Status LoadInto(const std::string& name, std::string_view text, HelperOptions options = {}, int64_t most = int64_t{1} << 40) {
    std::filesystem::remove(Path(name));
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(Path(name), O_RDWR | O_CREAT | O_EXCL, 0600));
    LF_ASSIGN_OR_RETURN(const std::unique_ptr<LoadProcess> load,
                        LoadProcess::Start(options, fd.get(), folder_, most, static_cast<int64_t>(text.size())));
    while (!text.empty()) {
      const std::string_view piece = text.substr(0, 100'000);
      LF_RETURN_IF_ERROR(load->Write(AsBytes(piece)));
      text.remove_prefix(piece.size());
    }
    return load->Finish();
  }
};

constexpr char kRows[] =
    "create table t(id integer primary key, a text, b blob); create index ta on t(a);"
    "with recursive c(n) as (select 1 union all select n+1 from c where n < 5000) insert into t select n, hex(randomblob(20)), "
    "randomblob(60) from c";

TEST_F(ProcessTest, TheSameTextWhoeverReadsTheDatabase) {
  const auto db = Make("a.db", kRows);
  const std::string text = Dump(db.get());
  const auto by_file = DumpFile("a.db");
  ASSERT_TRUE(by_file.ok()) << by_file.status();
  EXPECT_EQ(*by_file, text);
  uint64_t read = 0;
  const auto by_channel = DumpThroughChannel("a.db", &read);
  ASSERT_TRUE(by_channel.ok()) << by_channel.status();
  EXPECT_EQ(*by_channel, text);
  EXPECT_GT(read, 0u);
  // The table once, and not its index; what was read ahead in vain aside.
  EXPECT_LT(read, std::filesystem::file_size(Path("a.db")) + (1 << 20));
}

TEST_F(ProcessTest, ADatabaseInWalModeAndAnEmptyFileAreDumpedToo) {
  auto db = Make("a.db", std::string("pragma journal_mode=wal;") + kRows + "; pragma wal_checkpoint(truncate)");
  EXPECT_EQ(*DumpFile("a.db"), Dump(db.get()));
  std::ofstream(Path("empty.db"));
  EXPECT_EQ(*DumpFile("empty.db"), "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCOMMIT;\n");
  EXPECT_EQ(*DumpThroughChannel("empty.db"), "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCOMMIT;\n");
}

TEST_F(ProcessTest, LoadsWhatItDumps) {
  const auto db =
      Make("a.db", std::string("pragma page_size=1024; create virtual table ft using fts5(z); insert into ft values('w');") + kRows);
  const std::string text = Dump(db.get());
  const absl::Status loaded = LoadInto("b.db", text);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(*DumpFile("b.db"), text);
  const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
  EXPECT_EQ(Check(again->get()), "ok");
  // Nothing is left beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator()), 2);
}

// An index larger than the cache is sorted in the temporary files.
TEST_F(ProcessTest, SortsThatDoNotFitIntoMemoryGoToTheDisk) {
  const auto db =
      Make("a.db",
           "create table t(a text); with recursive c(n) as (select 1 union all select n+1 from c where n < 30000) insert into t "
           "select hex(randomblob(1600)) from c; create index i on t(a)");
  HelperOptions small;
  small.heap_bytes = 80 << 20;
  small.length_bytes = 1 << 20;
  const absl::Status loaded = LoadInto("b.db", Dump(db.get()), small);
  EXPECT_TRUE(loaded.ok()) << loaded;
}

TEST_F(ProcessTest, ErrorsSayWhatItWas) {
  Make("a.db", "create table t(a unique); insert into t values(1)");
  const absl::Status none_there = DumpFile("a.db", {.tables = {"u"}}).status();
  EXPECT_EQ(ReasonOf(none_there), "TABLE_NOT_FOUND");
  EXPECT_EQ(MessageOf(none_there), "there is no table u; there are t");
  EXPECT_NE(HintOf(none_there), "");
  EXPECT_EQ(ReasonOf(LoadInto("b.db", "create table t(a); insert into u values(1);")), "LOAD_REFUSED");
  EXPECT_EQ(ReasonOf(LoadInto("b.db", "begin; create table t(a);")), "LOAD_DAMAGED");
  EXPECT_EQ(ReasonOf(LoadInto("b.db", "create table t(a); insert into t values(zeroblob(2000000));", {}, 1 << 20)), "LOAD_FAILED");
  HelperOptions none;
  none.helper = Path("nothing");
  EXPECT_EQ(ReasonOf(DumpFile("a.db", {}, none).status()), "CHECK_HELPER_FAILED");
  EXPECT_EQ(ReasonOf(LoadInto("b.db", "select 1;", none)), "CHECK_HELPER_FAILED");
  std::ofstream(Path("no.db")) << std::string(8192, 'x');
  EXPECT_EQ(ReasonOf(DumpFile("no.db").status()), "DATABASE_DAMAGED");
}

TEST_F(ProcessTest, AnErrorOfWhoReadsTheDatabaseEndsTheDump) {
  Make("a.db", kRows);
  DumpSource source;
  source.bytes = std::filesystem::file_size(Path("a.db"));
  source.read = [](uint64_t, std::span<std::byte>) { return Error(absl::StatusCode::kFailedPrecondition, "WRITER_STALL", "too long"); };
  EXPECT_EQ(ReasonOf(Text(DumpProcess::Sql({}, std::move(source), {})).status()), "WRITER_STALL");
}

TEST_F(ProcessTest, ACancelAndADeadlineEndIt) {
  // A load that would never end.
  std::atomic<bool> cancelled = false;
  HelperOptions options;
  options.cancelled = [&] { return cancelled.load(); };
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancelled = true;
  });
  const std::string endless =
      "create table t(a); insert into t with recursive c(n) as (select 1 union all select n+1 from c) select n from c where n < 0;";
  EXPECT_EQ(ReasonOf(LoadInto("b.db", endless, options)), "CANCELLED");
  later.join();
  options.cancelled = {};
  options.time = std::chrono::seconds(1);
  const absl::Status late = LoadInto("b.db", endless, options);
  EXPECT_EQ(ReasonOf(late), "LOAD_FAILED") << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("time limit"));
}

TEST_F(ProcessTest, RowsLargerThanTheMemoryAreAnErrorAndNoCrash) {
  Make("a.db", "create table t(a); insert into t values(zeroblob(60000000))");
  HelperOptions small;
  small.heap_bytes = 16 << 20;
  EXPECT_EQ(ReasonOf(DumpFile("a.db", {}, small).status()), "DUMP_FAILED");
}

// What takes it with any row is said; the limit of README.md.
TEST_F(ProcessTest, RowsAboveTheLimitAreAnErrorWithAWayOut) {
  Make("a.db", "create table t(a); insert into t values(zeroblob((128 << 20) - 1000)), (1)");
  EXPECT_EQ(DumpFile("a.db", {.tables = {"t"}}).status(), absl::OkStatus());
  Make("a.db", "create table t(a); insert into t values(zeroblob((128 << 20) + 1000)), (1)");
  const absl::Status failed = DumpFile("a.db").status();
  EXPECT_EQ(ReasonOf(failed), "DUMP_FAILED");
  EXPECT_THAT(MessageOf(failed), HasSubstr("too big"));
  EXPECT_THAT(HintOf(failed), AllOf(HasSubstr("128 MiB"), HasSubstr("methods online and file")));
}

// Of the helpers that this process has started, the most that one of them has had.
int64_t MostOfHelpers() {
  int64_t most = 0;
  const std::string parent = "PPid:\t" + std::to_string(getpid());
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    if (entry.path().filename().string().find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream status(entry.path() / "status");
    bool ours = false;
    for (std::string line; std::getline(status, line);) {
      ours = ours || line == parent;
      if (ours && line.starts_with("VmHWM:")) most = std::max<int64_t>(most, std::atoll(line.c_str() + 6) << 10);
    }
  }
  return most;
}

TEST_F(ProcessTest, ADumpTakesNoMoreMemoryHoweverLargeTheDatabaseIs) {
  const std::string rows =
      " with recursive c(n) as (select 1 union all select n + 1 from c where n < 60000) select n, printf('%.*c', 900, 'x') from c;";
  Make("a.db", "pragma synchronous=off; create table t(id integer primary key, a text); insert into t" + rows +
                   "create table u(id, a, primary key(id)) without rowid; insert into u" + rows +
                   "create table v(id unique, a check(length(a) > 1)); insert into v" + rows);
  HelperOptions small;
  small.heap_bytes = 16 << 20;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(Path("a.db")));
  ASSERT_GT(size, 10 * small.heap_bytes);
  const auto fd = io::Open(Path("a.db"), O_RDONLY);
  for (const bool channel : {false, true}) {
    SCOPED_TRACE(channel);
    DumpSource source{.fd = channel ? -1 : fd->get(), .bytes = static_cast<uint64_t>(size), .read = {}};
    source.read = [&](uint64_t offset, std::span<std::byte> out) { return io::PreadAll(fd->get(), out, offset, "a.db"); };
    const auto dump = DumpProcess::Sql(small, std::move(source), {});
    ASSERT_TRUE(dump.ok()) << dump.status();
    int64_t text = 0, looked_at = 0, most = 0;
    for (;;) {
      const auto piece = (*dump)->Next();
      ASSERT_TRUE(piece.ok()) << piece.status();
      if (piece->empty()) break;
      text += static_cast<int64_t>(piece->size());
      if (text - looked_at < (16 << 20)) continue;
      looked_at = text;
      most = std::max(most, MostOfHelpers());
    }
    EXPECT_GT(text, size / 2);
    EXPECT_GT(most, 1 << 20);
    // A sanitizer has memory of its own.
    if (!kSanitized) {
      EXPECT_LT(most, small.heap_bytes + (24 << 20)) << "of " << size << " bytes";
    }
  }
}

// Damaged images: every one ends, well or with a reason, and nothing of the helper's survives.
TEST_F(ProcessTest, DamagedDatabasesEndWithAReason) {
  { Make("a.db", std::string(kRows) + "; create virtual table ft using fts5(z); insert into ft select a from t limit 500"); }
  std::string image;
  {
    std::ifstream file(Path("a.db"), std::ios::binary);
    image.assign(std::istreambuf_iterator<char>(file), {});
  }
  std::mt19937 random(3);
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    std::string bad = image;
    const size_t pages = bad.size() / 4096;
    switch (i % 5) {
      case 0:  // anywhere
        for (int n = 0; n < 30; ++n) bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
        break;
      case 1:  // headers of pages
        for (int n = 0; n < 20; ++n) bad[random() % pages * 4096 + random() % 12] = static_cast<char>(random());
        break;
      case 2:  // the schema
        for (int n = 0; n < 10; ++n) bad[100 + random() % 3996] = static_cast<char>(random());
        break;
      case 3:
        bad.resize(random() % bad.size());
        break;
      default:  // a page that is another one
        std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(random() % pages * 4096), 4096,
                    bad.begin() + static_cast<std::ptrdiff_t>(random() % pages * 4096));
    }
    std::ofstream(Path("bad.db"), std::ios::binary | std::ios::trunc) << bad;
    HelperOptions options;
    options.time = std::chrono::seconds(20);
    const auto text = DumpFile("bad.db", {}, options);
    if (text.ok()) continue;
    ++refused;
    const std::string reason = ReasonOf(text.status());
    EXPECT_TRUE(reason == "DATABASE_DAMAGED" || reason == "DUMP_REFUSED" || reason == "DUMP_FAILED") << text.status();
  }
  EXPECT_GT(refused, 8);
}

TEST(PageChannel, RequestsOutsideTheDatabaseAreRefused) {
  const auto decoded = [](uint64_t offset, uint32_t bytes) {
    std::array<std::byte, kChannelRequestBytes> raw{};
    StoreLittleEndian(offset, raw.data());
    StoreLittleEndian(bytes, raw.data() + 8);
    return DecodeChannelRequest(raw, 100'000).has_value();
  };
  EXPECT_TRUE(decoded(0, 1));
  EXPECT_TRUE(decoded(0, 65536));
  EXPECT_TRUE(decoded(99'999, 1));
  EXPECT_FALSE(decoded(0, 0));
  EXPECT_FALSE(decoded(0, 65537));
  EXPECT_FALSE(decoded(100'000, 1));
  EXPECT_FALSE(decoded(99'999, 2));
  EXPECT_FALSE(decoded(UINT64_MAX, 2));
}

// Views may be anything: rows without an end, or none in any time.
TEST_F(ProcessTest, ViewsTakeNoMoreThanTimeAndBytesOfCsv) {
  const std::string endless = " as with recursive c(n) as (select 1 union all select n+1 from c) select ";
  Make("a.db", "create table t(a); insert into t values(1); create view a_rows" + endless + "n, hex(zeroblob(5000)) from c;" +
                   "create view b_waits" + endless + "count(*) from c; create view c_waits" + endless + "count(*) from c;" +
                   "create view d_short as select a from t");
  const auto fd = io::Open(Path("a.db"), O_RDONLY);
  const auto began = std::chrono::steady_clock::now();
  auto files = WriteCsvFiles({}, fd->get(), Path("csv"), {.time = std::chrono::seconds(4), .view_bytes = 1 << 20});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(15));
  EXPECT_THAT(files->names, ElementsAre("t.csv"));
  ASSERT_THAT(files->left_out, SizeIs(4));
  EXPECT_EQ(files->left_out[0].name, "a_rows");
  EXPECT_EQ(files->left_out[0].why, "it has more than 1048576 bytes of text");
  EXPECT_THAT(files->left_out[3].why, HasSubstr("what came before it"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(Path("csv")), {}), 1);
  // All of them together; a table has what there is.
  Make("b.db", "create table t(a); insert into t values('text of a table'); create view v as select a from t");
  const auto other = io::Open(Path("b.db"), O_RDONLY);
  files = WriteCsvFiles({}, other->get(), Path("few"), {.views_bytes = 3});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->names, ElementsAre("t.csv"));
  ASSERT_THAT(files->left_out, SizeIs(1));
  EXPECT_EQ(files->left_out[0].why, "all views and virtual tables together have more than 3 bytes of text");
}

// The seconds of thirty tables would be half a minute of a view without an end.
TEST_F(ProcessTest, TheTimeOfTablesIsNotOneOfViews) {
  std::string sql;
  for (int i = 0; i < 30; ++i) sql += "create table t" + std::to_string(i) + "(a);";
  Make("a.db", sql + "create view v as with recursive c(n) as (select 1 union all select n+1 from c) select count(*) from c");
  const auto fd = io::Open(Path("a.db"), O_RDONLY);
  const auto began = std::chrono::steady_clock::now();
  const auto files = WriteCsvFiles({}, fd->get(), Path("csv"), {.time = std::chrono::seconds(8)});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  EXPECT_THAT(files->names, SizeIs(30));
  EXPECT_THAT(files->left_out, SizeIs(1));
}

// Whoever takes the text is told by it.
TEST_F(ProcessTest, WhatOnlyItsApplicationCanLoadIsSaid) {
  const auto said = [&](const std::string& sql, const DumpOptions& what) {
    auto db = Make("a.db", "create table t(a)");
    sqlite3_create_collation(db.get(), "german", SQLITE_UTF8, nullptr, [](void*, int, const void*, int, const void*) { return 0; });
    sqlite3_create_function(
        db.get(), "own", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, nullptr,
        [](sqlite3_context* context, int, sqlite3_value**) { sqlite3_result_int(context, 1); }, nullptr, nullptr);
    EXPECT_TRUE(sqlite::Execute(db.get(), sql).ok());
    db.reset();
    const auto fd = io::Open(Path("a.db"), O_RDONLY);
    const auto dump = DumpProcess::Sql({}, {.fd = fd->get(), .bytes = 0, .read = {}}, what);
    EXPECT_TRUE(dump.ok()) << dump.status();
    for (;;) {
      const auto piece = (*dump)->Next();
      EXPECT_TRUE(piece.ok()) << piece.status();
      if (!piece.ok() || piece->empty()) return (*dump)->said();
    }
  };
  EXPECT_THAT(said("create index i on t(a collate german)", {}), AllOf(HasSubstr("german"), HasSubstr("CREATE INDEX i"), HasSubstr("t(a")));
  EXPECT_THAT(said("create table u(a check(own(a) > 0))", {}), HasSubstr("own"));
  EXPECT_THAT(said("create index i on t(a collate german)", {.compatible = true}), HasSubstr("german"));
  EXPECT_THAT(said("create index i on t(a collate german)", {.schema_only = true}), HasSubstr("german"));
  EXPECT_EQ(said("create index i on t(a collate german)", {.data_only = true}), "") << "there are no statements of the schema";
  EXPECT_EQ(said("create table u(a); create index i on u(a collate german)", {.tables = {"t"}}), "");
  EXPECT_EQ(said("create view v as select own(a) from missing; create index j on t(a); create virtual table f using fts5(a); analyze", {}),
            "");
}

TEST_F(ProcessTest, AHelperThatNamesNonsenseIsNotBelieved) {
  Make("a.db", "create table t(a)");
  const auto fd = io::Open(Path("a.db"), O_RDONLY);
  ASSERT_TRUE(io::WriteFileAtomic(Path("helper"), "#!/bin/sh\nprintf 'tt\\000\\000\\000'\nprintf 'verdict ok\\n' >&2\n", 0700).ok());
  HelperOptions taken_over;
  taken_over.helper = Path("helper");
  EXPECT_EQ(ReasonOf(WriteCsvFiles(taken_over, fd->get(), Path("csv"), {}).status()), "CHECK_HELPER_FAILED");
  EXPECT_FALSE(std::filesystem::exists(Path("csv")));
}

}  // namespace
}  // namespace litefleet::dump
