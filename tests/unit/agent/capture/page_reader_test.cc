// The reader engine gives what the backup engine gives, whatever the history of the database, and what is read ahead of a backup holds
// nobody up.
#include "agent/capture/page_reader.h"

#include <cstdlib>
#include <random>

#include "agent/capture/precopy_source.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

class PageReaderTest : public CaptureTest {
 protected:
  // By the reader engine, in pieces of random size and order.
  Bytes ReadAtRandom(PageReader& reader) {
    Bytes bytes(size_t{reader.page_count()} * reader.page_size());
    std::vector<std::pair<uint32_t, uint32_t>> pieces;
    for (uint32_t page = 1; page <= reader.page_count();) {
      const uint32_t count = std::min<uint32_t>(reader.page_count() - page + 1, 1 + static_cast<uint32_t>(random_() % 100));
      pieces.emplace_back(page, count);
      page += count;
    }
    std::shuffle(pieces.begin(), pieces.end(), random_);
    for (const auto& [page, count] : pieces) {
      const auto place = std::span(bytes).subspan(size_t{page - 1} * reader.page_size(), size_t{count} * reader.page_size());
      EXPECT_TRUE(reader.Read(page, place).ok());
    }
    return bytes;
  }
  static std::string Root(uint32_t page_size, ByteView bytes) {
    const auto pages = static_cast<uint32_t>(bytes.size() / page_size);
    format::RootBuilder root(page_size, pages);
    for (uint32_t extent = 0; extent < format::ExtentCount(page_size, pages); ++extent) {
      root.Add(format::NameChunkOf(
          page_size, bytes.subspan(size_t{extent} * format::kExtentBytes, size_t{format::PagesIn(page_size, pages, extent)} * page_size)));
    }
    return ToHex(root.Finish().bytes);
  }
  // Under the transaction that is open on the database.
  static Bytes ByTheBackupApi(UserDatabase& database) {
    sqlite3* copy = nullptr;
    EXPECT_EQ(sqlite3_open(":memory:", &copy), SQLITE_OK);
    sqlite3_backup* backup = sqlite3_backup_init(copy, "main", database.db(), "main");
    EXPECT_NE(backup, nullptr) << sqlite3_errmsg(copy);
    EXPECT_EQ(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    EXPECT_EQ(sqlite3_backup_finish(backup), SQLITE_OK);
    sqlite3_int64 size = 0;
    unsigned char* const content = sqlite3_serialize(copy, "main", &size, 0);
    EXPECT_NE(content, nullptr);
    const auto* const begin = reinterpret_cast<const std::byte*>(content);
    Bytes bytes(begin, begin + size);
    sqlite3_free(content);
    sqlite3_close(copy);
    return bytes;
  }
  // Both engines at one state: nobody writes meanwhile.
  void ExpectSameRoots(const std::string& path) {
    const Copy copy = Backup(path);
    ASSERT_TRUE(copy.status.ok()) << copy.status;
    auto database = UserDatabase::Open({.path = path});
    ASSERT_TRUE(database.ok()) << database.status();
    auto reader = PageReader::Begin(**database);
    ASSERT_TRUE(reader.ok()) << reader.status();
    ASSERT_EQ((*reader)->page_count(), copy.info.page_count);
    ASSERT_EQ((*reader)->page_size(), copy.info.page_size);
    EXPECT_EQ((*reader)->wal(), copy.info.wal);
    EXPECT_EQ(Root(copy.info.page_size, ReadAtRandom(**reader)), Root(copy.info.page_size, copy.bytes));
  }
  std::string RandomChange() {
    switch (random_() % 8) {
      case 0:
        return "insert into t(x) select randomblob(1 + abs(random()) % 3000) from t limit 40;";
      case 1:
        return "update t set x = randomblob(length(x)) where id % 7 = 3;";
      case 2:
        return fmt::format("delete from t where id % 5 = {};", random_() % 5);
      case 3:
        return "vacuum;";
      case 4:
        return "create table if not exists u(a primary key, b) without rowid; insert or replace into u select id, x from t limit 30;";
      case 5:
        return "pragma incremental_vacuum(20);";
      case 6:
        return "insert into t(x) values (zeroblob(20000)); reindex;";
      default:
        return "update t set x = x || 'a' where id in (select id from t order by random() limit 5);";
    }
  }

  // Another one in each run: LITEFLEET_CAPTURE_SEED repeats the order of the changes (what is in them is SQLite's own chance).
  static uint64_t Seed() {
    const char* const given = std::getenv("LITEFLEET_CAPTURE_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }

  const uint64_t seed_ = Seed();
  std::mt19937_64 random_{seed_};
};

TEST_F(PageReaderTest, EqualsTheBackupEngineOverRandomHistories) {
  SCOPED_TRACE(fmt::format("LITEFLEET_CAPTURE_SEED={}", seed_));
  int histories = 0;
  for (const std::string mode : {"wal", "delete"}) {
    for (int page_size = 512; page_size <= 65536; page_size *= 2) {
      for (const int vacuum : {0, 1, 2}) {
        const std::string path = Path(fmt::format("h{}.db", histories++));
        Sql(path, fmt::format("pragma page_size={}; pragma auto_vacuum={}; pragma encoding='{}'; pragma journal_mode={};"
                              "create table t(id integer primary key, x); create index i on t(x);"
                              "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) "
                              "insert into t select i, randomblob(300) from n",
                              page_size, vacuum, histories % 2 == 0 ? "utf8" : "utf16le", mode));
        // Somebody stays attached, so that the WAL stays.
        Connection holder(path);
        holder.Run("pragma wal_autocheckpoint=0; select count(*) from t");
        for (int step = 0; step < 6; ++step) {
          holder.Run(RandomChange());
          if (random_() % 3 == 0) holder.Run(random_() % 2 == 0 ? "pragma wal_checkpoint(passive)" : "pragma wal_checkpoint(truncate)");
          ExpectSameRoots(path);
          if (HasFailure()) FAIL() << mode << ", pages of " << page_size << ", auto_vacuum " << vacuum << ", step " << step;
        }
      }
    }
  }
}

// One transaction, in which both engines read while another process writes and checkpoints.
TEST_F(PageReaderTest, EqualsTheBackupEngineWhileOthersWrite) {
  SCOPED_TRACE(fmt::format("LITEFLEET_CAPTURE_SEED={}", seed_));
  for (const std::string mode : {"wal", "delete"}) {
    const std::string path = Path(mode + ".db");
    Sql(path, fmt::format("pragma journal_mode={}; create table t(id integer primary key, x);"
                          "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) "
                          "insert into t select i, randomblob(900) from n",
                          mode));
    Child writer([&](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path, 5000);
      connection.Run("pragma synchronous=off; pragma wal_autocheckpoint=50");
      for (int i = 0; !asked_to_stop(); ++i) {
        connection.Try(fmt::format("update t set x = randomblob(900) where id % 97 = {}", i % 97));
        if (i == 0) ready();
      }
      return 0;
    });
    for (int round = 0; round < 15; ++round) {
      auto database = UserDatabase::Open({.path = path});
      ASSERT_TRUE(database.ok()) << database.status();
      auto reader = PageReader::Begin(**database);
      ASSERT_TRUE(reader.ok()) << reader.status();
      const Bytes first = ReadAtRandom(**reader);
      Bytes backup = ByTheBackupApi(**database);
      // Its page 1 is not the source's.
      std::copy_n(first.begin(), std::min<size_t>((*reader)->page_size(), backup.size()), backup.begin());
      const Bytes second = ReadAtRandom(**reader);
      EXPECT_EQ(Root((*reader)->page_size(), first), Root((*reader)->page_size(), backup)) << mode;
      EXPECT_TRUE(first == second) << mode;
      reader->reset();
      ASSERT_TRUE((*database)->Close().ok());
      const std::string copy = Store(first);
      EXPECT_EQ(Query(copy, "pragma integrity_check"), "ok") << mode;
      Shell(fmt::format("rm -f '{}'*", copy));
    }
    EXPECT_EQ(writer.Stop(), 0);
    ExpectSameRoots(path);
  }
}

TEST_F(PageReaderTest, ADamagedLengthReadsAsTheBackupEngineDoes) {
  const std::string path = Path("cut.db");
  Sql(path,
      "create table t(x); with recursive n(i) as (select 1 union all select i + 1 from n where i < 300) "
      "insert into t select randomblob(900) from n");
  Shell(fmt::format("truncate -s -10000 '{}'", path));
  ExpectSameRoots(path);
  Shell(fmt::format("truncate -s +70000 '{}'", path));
  ExpectSameRoots(path);
}

TEST_F(PageReaderTest, ReadingAheadHoldsNothingBetweenItsPieces) {
  for (const std::string mode : {"wal", "delete"}) {
    const std::string path = Path(mode + ".db");
    Sql(path, fmt::format("pragma journal_mode={}; create table t(id integer primary key, x);"
                          "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) "
                          "insert into t select i, randomblob(1000) from n",
                          mode));
    const std::string files = Listing(directory());
    auto source = OpenPrecopySource(Options(path));
    ASSERT_TRUE(source.ok()) << source.status();
    uint32_t extents = 0;
    for (;;) {
      const auto extent = (*source)->Next();
      ASSERT_TRUE(extent.ok()) << extent.status();
      if (!extent->has_value()) break;
      EXPECT_EQ((*extent)->extent, extents++);
      // A writer that does not wait at all.
      Child writer([&](const auto& ready, const auto&) {
        Connection connection(path, 0);
        const int rc = connection.Try(fmt::format("update t set x = randomblob(1000) where id = {}", extents));
        ready();
        return rc;
      });
      EXPECT_EQ(writer.Stop(), SQLITE_OK) << mode;
    }
    EXPECT_GT(extents, 2 * kPrecopyExtents);
    EXPECT_EQ(extents, format::ExtentCount((*source)->info().page_size, (*source)->info().page_count));
    EXPECT_EQ(Listing(directory()).size(), files.size()) << "a file is left";
  }
}

TEST_F(PageReaderTest, ReadingAheadOfWhatShrinksGrowsOrChangesItsPages) {
  const std::string path = Path("a.db");
  const auto make = [&](int rows) {
    Sql(path, fmt::format("pragma journal_mode=wal; create table if not exists t(x);"
                          "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) "
                          "insert into t select randomblob(1000) from n",
                          rows));
  };
  make(9000);
  for (const std::string change : {"delete from t; vacuum", "insert into t select randomblob(1000) from t"}) {
    auto source = OpenPrecopySource(Options(path));
    ASSERT_TRUE(source.ok());
    ASSERT_TRUE((*source)->Next().ok());
    Sql(path, change);
    const uint32_t expected = format::ExtentCount((*source)->info().page_size, (*source)->info().page_count);
    uint32_t extents = 1;
    for (;; ++extents) {
      const auto extent = (*source)->Next();
      ASSERT_TRUE(extent.ok()) << extent.status();
      if (!extent->has_value()) break;
    }
    EXPECT_EQ(extents, expected) << change;
    make(9000);
  }
  auto source = OpenPrecopySource(Options(path));
  ASSERT_TRUE(source.ok());
  Sql(path, "pragma journal_mode=delete; pragma page_size=8192; vacuum");
  absl::Status status;
  while (status.ok()) {
    const auto extent = (*source)->Next();
    status = extent.status();
    if (extent.ok() && !extent->has_value()) break;
  }
  EXPECT_EQ(ReasonOf(status), "SOURCE_CHANGED");
}

}  // namespace
}  // namespace litefleet::capture
