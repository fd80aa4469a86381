// The wal-index as SQLite builds it, against the frames as they lie in the WAL.
#include "agent/capture/wal_index.h"

#include <map>

#include "agent/capture/pinned_read.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

class WalIndexTest : public CaptureTest {
 protected:
  // An application that keeps everything in the WAL.
  std::string Make(int page_size, int rows) {
    const std::string path = Path("a.db");
    Sql(path, fmt::format("pragma page_size={}; pragma journal_mode=wal; create table t(id integer primary key, x blob)", page_size));
    app_ = std::make_unique<Child>([=](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path);
      connection.Run("pragma wal_autocheckpoint=0; pragma synchronous=off");
      for (int round = 0; round < 6; ++round) {
        connection.Run(
            fmt::format("create table extra{}(a); with recursive n(i) as (select 1 union all select i + 1 from n where i < {})"
                        "insert or replace into t select i * {} % 6007, randomblob(200) from n",
                        round, rows, round + 3));
      }
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
    return path;
  }
  std::unique_ptr<Child> app_;
};

TEST_F(WalIndexTest, FindsTheLastFrameOfEveryPage) {
  const std::string path = Make(512, 4000);
  const Bytes wal = FileBytes(path + "-wal");
  const Bytes expected = CheckpointedBytes(path);
  auto database = UserDatabase::Open({.path = path, .allow_network_fs = true});
  ASSERT_TRUE(database.ok()) << database.status();
  auto read = PinnedRead::Begin(**database);
  ASSERT_TRUE(read.ok()) << read.status();
  const WalState& state = (*read)->wal_state();
  const WalIndex& index = *(*read)->wal_index();
  EXPECT_EQ(state.page_size, 512u);
  EXPECT_GT(state.max_frame, 4062u + 4096u) << "must reach into the third region";
  EXPECT_EQ(uint64_t{state.page_count} * 512, expected.size());

  for (const uint32_t limit : {state.max_frame, state.max_frame / 2, 4063u, 4062u, 1u}) {
    std::map<uint32_t, uint32_t> last;
    for (uint32_t frame = 1; frame <= limit; ++frame) {
      last[LoadBigEndian<uint32_t>(&wal[kWalHeaderBytes + (frame - 1) * (kWalFrameHeaderBytes + 512)])] = frame;
    }
    WalState earlier = state;
    earlier.max_frame = limit;
    for (uint32_t page = 1; page <= state.page_count + 3; ++page) {
      const auto found = index.FindFrame(page, earlier);
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_EQ(*found, last.contains(page) ? last[page] : 0) << page;
    }
  }
  Bytes page(512);
  int from_wal = 0;
  for (uint32_t number = 1; number <= state.page_count; ++number) {
    const auto filled = index.ReadPage(number, state, page);
    ASSERT_TRUE(filled.ok()) << filled.status();
    if (!*filled) continue;
    ++from_wal;
    ASSERT_TRUE(std::equal(page.begin(), page.end(), expected.begin() + (number - 1) * 512)) << number;
  }
  EXPECT_GT(from_wal, 500);
  (*read)->End();
}

TEST_F(WalIndexTest, NothingIsTakenFromAWalThatWasStartedOver) {
  const std::string path = Make(4096, 50);
  Sql(path, "pragma wal_checkpoint(passive)");
  auto database = UserDatabase::Open({.path = path, .allow_network_fs = true});
  ASSERT_TRUE(database.ok()) << database.status();
  auto read = PinnedRead::Begin(**database);
  ASSERT_TRUE(read.ok()) << read.status();
  const WalState state = (*read)->wal_state();
  ASSERT_GT(state.max_frame, 0u);
  Bytes page(4096);
  EXPECT_EQ((*read)->wal_index()->ReadPage(1, state, page).value(), true);
  {
    Child writer([&](const auto& ready, const auto&) {
      Connection connection(path, 0);
      connection.Run("create table after_restart(a)");
      ready();
      return 0;
    });
    EXPECT_EQ(writer.Stop(), 0);
  }
  const auto now = (*read)->wal_index()->ReadState();
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_NE(now->salts, state.salts);
  EXPECT_EQ((*read)->wal_index()->ReadPage(1, state, page).value(), false);
  (*read)->End();
}

TEST_F(WalIndexTest, GrowthIsThatOfTheFile) {
  const std::string path = Make(4096, 50);
  auto database = UserDatabase::Open({.path = path, .allow_network_fs = true});
  ASSERT_TRUE(database.ok()) << database.status();
  auto read = PinnedRead::Begin(**database);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ((*read)->WalGrowth().value(), 0u);
  {
    Child writer([&](const auto& ready, const auto&) {
      Connection(path).Run("insert into t(id, x) values (-1, zeroblob(40960))");
      ready();
      return 0;
    });
    EXPECT_EQ(writer.Stop(), 0);
  }
  EXPECT_GE((*read)->WalGrowth().value(), 40960u);
  (*read)->End();
}

}  // namespace
}  // namespace litefleet::capture
