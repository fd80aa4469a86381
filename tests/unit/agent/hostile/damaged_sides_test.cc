// A database with a damaged WAL, or a damaged hot journal, by each method: the state that SQLite makes of the same files, or its refusal.
//
// What it makes of them it tells itself, on a copy. LITEFLEET_HOSTILE_IMAGES says how many more are damaged anywhere,
// LITEFLEET_HOSTILE_SEED which.
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>

#include "agent/capture/database_header.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/file_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/hostile/damaged_sides.h"

namespace litefleet::capture {
namespace {

using hostile::DamagedSides;
using hostile::Sides;

constexpr uint64_t kMostBytes = 64 << 20;  // a damaged journal may say that the database had terabytes: they are not read

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// What SQLite makes of it.
struct Reference {
  int rc = SQLITE_OK;
  std::string words;
  bool tolerated = false;  // it goes on only where it is told not to mind that pages are missing
  uint64_t page_size = 0;
  uint64_t bytes = 0;
  bool folded = true;  // a WAL was; else the first page is not exact
  Bytes content;       // nothing where it is more than kMostBytes
};

constexpr const char* kSuper = "super";

class DamagedSidesTest : public CaptureTest, public testing::WithParamInterface<int> {
 protected:
  std::string Rows(int page_size, const std::string& mode) const {
    return fmt::format(
        "pragma page_size={}; pragma journal_mode={}; create table t(id integer primary key, x blob); create index i on t(x);"
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400) insert into t select i, randomblob(100) from n;",
        page_size, mode);
  }
  Sides Killed(const std::string& name, const std::string& before, const std::vector<std::string>& then) const {
    const std::string path = Path(name);
    Sql(path, before);
    Sides left{FileBytes(path)};
    Child([&](const auto& ready, const auto& stop) {
      Connection db(path);
      for (const std::string& sql : then) db.Run(sql);
      ready();
      while (!stop()) usleep(1000);
      return 0;
    }).Kill();
    left.database = FileBytes(path);
    if (std::filesystem::exists(path + "-wal")) left.wal = FileBytes(path + "-wal");
    if (std::filesystem::exists(path + "-journal")) left.journal = FileBytes(path + "-journal");
    return left;
  }
  // Killed after some commits of which the database file has nothing.
  Sides WithWal(const std::string& name, int page_size) const {
    return Killed(name, Rows(page_size, "wal"),
                  {"pragma wal_autocheckpoint=0", "insert into t select id + 1000, randomblob(90) from t where id < 60",
                   "update t set x = 'two' where id % 9 = 0", "create table u(x); insert into u select x from t where id < 50",
                   "delete from t where id between 100 and 140"});
  }
  // Killed in a transaction part of which is in the file.
  Sides WithJournal(const std::string& name, int page_size) const {
    return Killed(
        name, Rows(page_size, "delete"),
        {"pragma cache_size=30", "begin", "create table u(x)", "update t set x = randomblob(95)", "insert into u select x from t"});
  }

  std::string Put(const std::string& directory, const Sides& files) const {
    std::filesystem::remove_all(Path(directory));
    std::filesystem::create_directories(Path(directory));
    // Whoever rolls the last journal back that it names takes it away: not the copy of one.
    Bytes names;
    for (const char* each : {"reference", "file", "online", "dump"}) {
      const std::string journal = Path(each) + "/app.db-journal";
      names.insert(names.end(), AsBytes(journal).begin(), AsBytes(journal).end());
      names.push_back(std::byte{0});
    }
    Store(names, kSuper);
    const std::string path = directory + "/app.db";
    Store(files.database, path);
    if (files.wal.has_value()) Store(*files.wal, path + "-wal");
    if (files.journal.has_value()) Store(*files.journal, path + "-journal");
    return Path(path);
  }
  static std::string SizesIn(const std::string& directory) {
    std::string sizes;
    std::set<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) paths.insert(entry.path());
    for (const auto& path : paths) sizes += fmt::format("{} {}\n", path.filename().string(), std::filesystem::file_size(path));
    return sizes;
  }
  static bool Untouched(const std::string& path, const Sides& files) {
    const std::optional<Bytes> database = files.database;
    const std::map<std::string, const std::optional<Bytes>*> all = {{"", &database}, {"-wal", &files.wal}, {"-journal", &files.journal}};
    return std::all_of(all.begin(), all.end(), [&](const auto& file) {
      const bool exists = std::filesystem::exists(path + file.first);
      return exists == file.second->has_value() && (!exists || Content(path + file.first) == **file.second);
    });
  }
  // Nobody has anything open when it is called.
  static Bytes Content(const std::string& path, uint64_t most = kMostBytes) {
    Bytes bytes(std::min<uint64_t>(std::filesystem::file_size(path), most));
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }

  static Reference BySqlite(const std::string& path) {
    // Who rolls a journal back may see nonsense, of a page size that the journal says. What counts is what the next one sees.
    sqlite3* first = nullptr;
    sqlite3_open_v2(path.c_str(), &first, SQLITE_OPEN_READWRITE, nullptr);
    sqlite3_db_config(first, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    sqlite3_exec(first, "pragma schema_version", nullptr, nullptr, nullptr);
    sqlite3_close(first);
    Reference reference;
    for (const bool tolerant : {false, true}) {
      sqlite3* db = nullptr;
      reference.rc = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, nullptr);
      reference.tolerated = tolerant;
      sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
      if (tolerant) sqlite3_db_config(db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
      if (reference.rc == SQLITE_OK) reference.rc = sqlite3_exec(db, "begin; pragma schema_version", nullptr, nullptr, nullptr);
      reference.words = sqlite3_errmsg(db);
      if (reference.rc == SQLITE_OK) ReadPages(db, path, reference);
      sqlite3_close(db);
      if ((reference.rc & 0xff) != SQLITE_CORRUPT) break;
    }
    return reference;
  }
  static void ReadPages(sqlite3* db, const std::string& path, Reference& reference) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(db, "pragma page_size", -1, &statement, nullptr) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
      reference.page_size = static_cast<uint64_t>(sqlite3_column_int64(statement, 0));
    sqlite3_finalize(statement);
    // Its schema may be nonsense, at which `pragma page_count` would fail.
    sqlite3* sink = nullptr;
    const std::string kept = path + "-kept";
    std::filesystem::remove(kept);
    sqlite3_open(kept.c_str(), &sink);
    sqlite3_backup* const backup = sqlite3_backup_init(sink, "main", db, "main");
    sqlite3_backup_step(backup, 0);
    reference.bytes = reference.page_size * static_cast<uint64_t>(sqlite3_backup_pagecount(backup));
    const bool read = reference.bytes > 0 && reference.bytes <= kMostBytes;
    if (read) EXPECT_EQ(sqlite3_backup_step(backup, -1), SQLITE_DONE) << sqlite3_errmsg(sink);
    sqlite3_backup_finish(backup);
    sqlite3_exec(db, "commit", nullptr, nullptr, nullptr);
    reference.folded = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) == SQLITE_OK;
    if (read && reference.folded) {
      reference.content = Content(path, reference.bytes);
      reference.content.resize(reference.bytes);
    } else if (read) {
      // Exactly but for what the backup rewrites in page 1.
      reference.content = Content(kept, reference.bytes);
    }
    sqlite3_close(sink);
  }

  Copy ReadFrom(absl::StatusOr<std::unique_ptr<PageSource>> source) const {
    Copy copy;
    copy.status = source.status();
    if (!source.ok()) return copy;
    copy.info = (*source)->info();
    for (bool more = uint64_t{copy.info.page_size} * copy.info.page_count <= kMostBytes; more;) {
      const auto next = (*source)->Next();
      copy.status = next.status();
      more = next.ok() && next->has_value();
      if (more) copy.bytes.insert(copy.bytes.end(), (*next)->data.begin(), (*next)->data.end());
    }
    copy.damage = (*source)->damage();
    (*source)->Close().IgnoreError();
    return copy;
  }
  Copy ByFile(const std::string& path) const {
    FileOptions options;
    options.database = Options(path);
    std::filesystem::create_directories(Path("scratch"));
    options.scratch = Path("scratch");
    options.may_share = false;
    const auto taken = FileCopy::Take(options);
    Copy copy = taken.ok() ? ReadFrom((*taken)->Open()) : Copy{.status = taken.status(), .info = {}, .damage = {}, .bytes = {}};
    EXPECT_TRUE(std::filesystem::is_empty(Path("scratch")));
    return copy;
  }
  // The text, or the reason.
  std::string ByDump(const std::string& path) const {
    dump::HelperOptions helper;
    helper.time = std::chrono::seconds(20);
    auto source = OpenDumpSource(Options(path), {}, helper);
    if (!source.ok()) return ReasonOf(source.status());
    std::string text;
    for (;;) {
      const auto piece = (*source)->Next();
      if (!piece.ok()) return ReasonOf(piece.status());
      if (piece->empty()) return text;
      text += AsText(*piece);
    }
  }

  static uint64_t ToWalPageSize(const Bytes& wal) { return LoadBigEndian<uint32_t>(&wal[8]); }
  static void ExpectPages(const Copy& copy, const Reference& reference) {
    EXPECT_TRUE(copy.status.ok()) << copy.status << "; SQLite: " << reference.words;
    EXPECT_EQ(uint64_t{copy.info.page_size} * copy.info.page_count, reference.bytes);
    EXPECT_EQ(copy.damage.find("shorter") != std::string::npos, reference.tolerated) << copy.damage;
    if (!copy.status.ok() || reference.content.empty() || copy.bytes.size() != reference.content.size()) return;
    const size_t page = copy.info.page_size;
    const ByteView first = ByteView(copy.bytes).first(page), wanted = ByteView(reference.content).first(page);
    EXPECT_TRUE(reference.folded ? std::equal(first.begin(), first.end(), wanted.begin()) : SameFirstPage(first, wanted));
    for (size_t at = page; at < copy.bytes.size(); at += page) {
      if (std::equal(&copy.bytes[at], &copy.bytes[at] + page, &reference.content[at])) continue;
      ADD_FAILURE() << "page " << at / page + 1;
      break;
    }
  }
  static void ExpectRefusal(const absl::Status& status, const Reference& reference, bool rolled_back) {
    const int primary = reference.rc & 0xff;
    // SQLITE_CANTOPEN is what it says of a WAL of another version. What a journal has put in the place of page 1 may be anything.
    const bool refused = primary == SQLITE_NOTADB || primary == SQLITE_CORRUPT || primary == SQLITE_CANTOPEN;
    EXPECT_TRUE(refused && (ReasonOf(status) == "DATABASE_DAMAGED" || (rolled_back && ReasonOf(status) == "NOT_A_DATABASE"))) << status;
    EXPECT_NE(MessageOf(status).find(reference.words), std::string::npos) << status << "; SQLite: " << reference.words;
    EXPECT_NE(HintOf(status), "");
  }

  // By all methods.
  void Compare(const DamagedSides& damaged) {
    SCOPED_TRACE(damaged.name);
    const Reference reference = BySqlite(Put("reference", damaged.files));
    const std::string of_file = Put("file", damaged.files), of_online = Put("online", damaged.files), of_dump = Put("dump", damaged.files);
    const std::string sizes = SizesIn(Path("file"));
    const Copy file = ByFile(of_file);
    EXPECT_EQ(SizesIn(Path("file")), sizes);
    EXPECT_TRUE(Untouched(of_file, damaged.files));
    const Copy online = ReadFrom(OpenOnlineSource(Options(of_online)));
    const std::string dump = ByDump(of_dump);
    EXPECT_EQ(file.damage, online.damage);
    ++outcomes_[reference.rc == SQLITE_OK ? reference.tolerated ? "short"
                                            : reference.folded  ? "read"
                                                                : "read, not folded"
                                          : reference.words];
    if (reference.rc != SQLITE_OK) {
      ExpectRefusal(file.status, reference, damaged.files.journal.has_value());
      ExpectRefusal(online.status, reference, damaged.files.journal.has_value());
      EXPECT_EQ(ReasonOf(file.status), ReasonOf(online.status));
      EXPECT_EQ(dump, ReasonOf(online.status));
      // What the file still has is not overwritten by a WAL that makes it unreadable.
      if (damaged.files.wal.has_value() && !damaged.files.journal.has_value()) {
        EXPECT_TRUE(Content(of_online) == damaged.files.database);
        EXPECT_TRUE(Content(of_online + "-wal") == *damaged.files.wal);
      }
      return;
    }
    if (!reference.folded && ToWalPageSize(*damaged.files.wal) != reference.page_size) {
      // SQLite reads pieces of frames as pages then, and folds nothing in: that is no state of a database.
      for (const absl::Status& status : {file.status, online.status}) EXPECT_EQ(ReasonOf(status), "DATABASE_DAMAGED") << status;
      EXPECT_EQ(dump, "DATABASE_DAMAGED");
      return;
    }
    ExpectPages(file, reference);
    ExpectPages(online, reference);
    EXPECT_EQ(file.info.wal, online.info.wal);
    if (reference.bytes > kMostBytes) return;
    EXPECT_TRUE(dump == ByDump(Put("recovered", {reference.content}))) << dump.substr(0, 200);
  }
  void Compare(const std::vector<DamagedSides>& all) {
    for (const DamagedSides& damaged : all) Compare(damaged);
    TellOutcomes();
  }
  void TellOutcomes() const {
    for (const auto& [outcome, n] : outcomes_) fmt::print("{}: {}\n", outcome, n);
  }
  void CompareAnywhere(const Sides& left) {
    const auto seed = static_cast<uint32_t>(FromEnvironment("LITEFLEET_HOSTILE_SEED", 5));
    std::mt19937 random(seed);
    const int count = FromEnvironment("LITEFLEET_HOSTILE_IMAGES", 200) / 4;
    for (int i = 0; i < count; ++i)
      Compare({fmt::format("anywhere, number {} (LITEFLEET_HOSTILE_SEED={})", i, seed), hostile::DamagedAnywhere(left, random)});
    TellOutcomes();
  }

  std::map<std::string, int> outcomes_;
};

TEST_P(DamagedSidesTest, AWalIsReadAsSqliteReadsIt) {
  Compare(hostile::DamagedWals(WithWal("left.db", GetParam()), WithWal("other.db", GetParam()), WithWal("coarse.db", 2 * GetParam())));
}

TEST_P(DamagedSidesTest, AJournalIsRolledBackAsSqliteDoes) {
  const std::string super = Path(kSuper);
  Compare(hostile::DamagedJournals(WithJournal("left.db", GetParam()), WithJournal("other.db", GetParam()),
                                   WithJournal("coarse.db", 2 * GetParam()), super));
}

TEST_P(DamagedSidesTest, AWalDamagedAnywhere) { CompareAnywhere(WithWal("left.db", GetParam())); }

TEST_P(DamagedSidesTest, AJournalDamagedAnywhere) { CompareAnywhere(WithJournal("left.db", GetParam())); }

INSTANTIATE_TEST_SUITE_P(PageSize, DamagedSidesTest, testing::Values(512, 4096));

}  // namespace
}  // namespace litefleet::capture
