// The pages of the online source are those of the database, in every geometry.
#include "agent/capture/online_source.h"

#include <cstring>
#include <tuple>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

std::string Fill(int rows, int bytes) {
  return fmt::format(
      "create table t(id integer primary key, x blob); create index t_x on t(substr(x, 1, 8));"
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into t select i, randomblob({}) from n;",
      rows, bytes);
}

class Geometry : public CaptureTest, public testing::WithParamInterface<std::tuple<int, const char*>> {};

TEST_P(Geometry, CopyEqualsTheFile) {
  const auto& [page_size, mode] = GetParam();
  const std::string path = Path("a.db");
  Sql(path, fmt::format("pragma page_size={}; pragma journal_mode={}; {}", page_size, mode, Fill(3000, 700)));
  const Bytes before = FileBytes(path);
  const std::string files = Listing(directory());
  const Copy copy = Backup(path);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_EQ(copy.info.page_size, static_cast<uint32_t>(page_size));
  EXPECT_EQ(copy.info.wal, std::string(mode) == "wal");
  EXPECT_EQ(copy.damage, "");
  EXPECT_TRUE(copy.bytes == before);
  EXPECT_EQ(Listing(directory()), files);
}

TEST_P(Geometry, CopyHasWhatIsOnlyInTheWal) {
  const auto& [page_size, mode] = GetParam();
  const std::string path = Path("a.db");
  Sql(path, fmt::format("pragma page_size={}; pragma journal_mode={}; {}", page_size, mode, Fill(100, 700)));
  Child writer([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(path);
    connection.Run("pragma wal_autocheckpoint=0; update t set x = randomblob(600) where id % 3 = 0; create table u(a)");
    connection.Run("insert into t(x) select randomblob(300) from t, t as again limit 2000; delete from t where id between 10 and 40");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  const Bytes expected = CheckpointedBytes(path);
  const std::string files = Listing(directory());
  const Copy copy = Backup(path);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == expected);
  EXPECT_EQ(copy.damage, "");
  // -shm changes: the lock area's read marks are SQLite's to set.
  EXPECT_EQ(Listing(directory()).size(), files.size());
  EXPECT_EQ(writer.Stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, Geometry,
                         testing::Combine(testing::Values(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
                                          testing::Values("delete", "wal")),
                         [](const auto& test) { return fmt::format("{}_{}", std::get<1>(test.param), std::get<0>(test.param)); });

class OnlineSource : public CaptureTest {};

TEST_F(OnlineSource, EmptyFileHasNoPages) {
  const std::string path = Store({}, "empty.db");
  const std::string files = Listing(directory());
  const Copy copy = Backup(path);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_EQ(copy.info.page_count, 0u);
  EXPECT_FALSE(copy.info.wal);
  EXPECT_EQ(Listing(directory()), files);
}

TEST_F(OnlineSource, EncodingsAutoVacuumAndFreePages) {
  for (const std::string mode : {"delete", "wal"}) {
    for (const std::string setting : {"encoding='UTF-16le'", "encoding='UTF-16be'", "auto_vacuum=full", "auto_vacuum=incremental"}) {
      const std::string path = Path("a.db");
      Sql(path, fmt::format("pragma {}; pragma journal_mode={}; {} insert into t(x) values ('z\u00fcrich'); delete from t where id % 2 = 0",
                            setting, mode, Fill(2000, 500)));
      const Copy copy = Backup(path);
      ASSERT_TRUE(copy.status.ok()) << copy.status;
      EXPECT_TRUE(copy.bytes == FileBytes(path)) << setting << " " << mode;
      EXPECT_EQ(copy.damage, "");
      Shell(fmt::format("rm '{}'", path));
    }
  }
}

TEST_F(OnlineSource, ReservedBytesAreKept) {
  for (const int reserve : {8, 32, 255}) {
    for (const std::string mode : {"delete", "wal"}) {
      const std::string path = Path("a.db");
      Shell(fmt::format("rm -f '{}'", path));
      sqlite3* db = nullptr;
      ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
      int bytes = reserve;
      ASSERT_EQ(sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes), SQLITE_OK);
      ASSERT_EQ(sqlite3_exec(db, fmt::format("pragma page_size=1024; pragma journal_mode={}; {}", mode, Fill(500, 900)).c_str(), nullptr,
                             nullptr, nullptr),
                SQLITE_OK);
      sqlite3_close(db);
      const Bytes before = FileBytes(path);
      ASSERT_EQ(std::to_integer<int>(before[20]), reserve);
      const Copy copy = Backup(path);
      ASSERT_TRUE(copy.status.ok()) << copy.status;
      EXPECT_TRUE(copy.bytes == before);
    }
  }
}

// One page more than the lock-byte page, that page the last one, and some extents after it.
TEST_F(OnlineSource, LockBytePageIsZeros) {
  const Bytes zeros(format::kExtentBytes);
  for (const auto& [page_size, beyond] : {std::pair{65536u, 0u}, std::pair{65536u, 1u}, std::pair{4096u, 200u}}) {
    {
      const std::string path = Path("sparse.db");
      Shell(fmt::format("rm -f '{}'", path));
      Sql(path, fmt::format("pragma page_size={}; pragma journal_mode=wal; create table t(a); insert into t values (1)", page_size));
      const uint32_t lock_page = format::LockBytePage(page_size);
      const uint32_t pages = lock_page + beyond;
      const uint64_t lock_at = uint64_t{lock_page - 1} * page_size;
      // The header's page count, garbage in the lock-byte page and marks around it.
      ASSERT_EQ(
          Shell(fmt::format(
              "cd '{}' && truncate -s {} sparse.db && put() {{ printf \"$2\" | dd of=sparse.db bs=1 seek=$1 conv=notrunc status=none; }}; "
              "put 28 '\\x{:02x}\\x{:02x}\\x{:02x}\\x{:02x}'; put {} garbage; put {} before",
              directory(), uint64_t{pages} * page_size, pages >> 24, pages >> 16 & 255, pages >> 8 & 255, pages & 255, lock_at + 100,
              lock_at - 100)),
          0);
      if (beyond > 0) {
        ASSERT_EQ(Shell(fmt::format("printf after | dd of='{}' bs=1 seek={} conv=notrunc status=none", path, lock_at + page_size + 7)), 0);
      }
      auto source = OpenOnlineSource(Options(path));
      ASSERT_TRUE(source.ok()) << source.status();
      ASSERT_EQ((*source)->info().page_count, pages);
      std::string marks;
      uint64_t bytes = 0;
      for (;;) {
        auto next = (*source)->Next();
        ASSERT_TRUE(next.ok()) << next.status();
        if (!next->has_value()) break;
        const ByteView data = (*next)->data;
        // Past the few real pages there is nothing but the marks.
        if (bytes > 4 * page_size && std::memcmp(data.data(), zeros.data(), data.size()) != 0) {
          for (const std::byte byte : data) {
            if (byte != std::byte{0}) marks += static_cast<char>(byte);
          }
        }
        bytes += data.size();
      }
      EXPECT_EQ(bytes, uint64_t{pages} * page_size);
      EXPECT_EQ(marks, beyond > 0 ? "beforeafter" : "before");
    }
  }
}

TEST_F(OnlineSource, FollowsASymbolicLink) {
  const std::string path = Path("real.db");
  Sql(path, "pragma journal_mode=wal; " + Fill(10, 10));
  ASSERT_EQ(Shell(fmt::format("mkdir '{0}/other' && ln -s '{1}' '{0}/other/link.db'", directory(), path)), 0);
  const std::string files = Listing(directory());
  const Copy copy = Backup(Path("other/link.db"));
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == FileBytes(path));
  EXPECT_EQ(Listing(directory()), files);
}

TEST_F(OnlineSource, InfoAndTimesAreThoseOfThePin) {
  const std::string path = Path("a.db");
  Sql(path, "pragma journal_mode=wal; " + Fill(1000, 1000));
  FakeClock clock;
  OnlineOptions options = Options(path);
  options.clock = &clock;
  auto source = OpenOnlineSource(options);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->info().pinned_at, clock.Now());
  EXPECT_EQ((*source)->info().pinned_since_boot, clock.SinceBoot());
  clock.Advance(std::chrono::seconds(3));
  EXPECT_EQ((*source)->pinned_for(), std::chrono::seconds(3));
  while ((*source)->Next().value().has_value()) {}
  clock.Advance(std::chrono::seconds(3));
  EXPECT_EQ((*source)->pinned_for(), std::chrono::seconds(3));
  EXPECT_TRUE((*source)->Close().ok());
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "SOURCE_CLOSED");
}

}  // namespace
}  // namespace litefleet::capture
