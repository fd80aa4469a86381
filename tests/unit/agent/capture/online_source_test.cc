// The pages of the online source are those of the database, in every geometry.
#include "agent/capture/online_source.h"

#include <tuple>

#include "tests/unit/agent/capture/capture_fixture.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

std::string Fill(int rows, int bytes) {
  return fmt::format("create table t(id integer primary key, x blob); create index t_x on t(substr(x, 1, 8));"
                     "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into t select i, randomblob({}) from n;", rows, bytes);
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
                         testing::Combine(testing::Values(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536), testing::Values("delete", "wal")),
                         [](const auto& test) { return fmt::format("{}_{}", std::get<1>(test.param), std::get<0>(test.param)); });

}  // namespace
}  // namespace litefleet::capture
