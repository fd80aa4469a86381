// The wal-index as SQLite builds it, against the frames as they lie in the WAL.
#include "agent/capture/wal_index.h"

#include <cstring>
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

// A wal-index in memory, as a writer may have left it at any moment.
class WalIndexHeaderTest : public testing::Test {
 protected:
  static constexpr size_t kCopy = 48;

  WalIndexHeaderTest() {
    shared_.methods.xShmMap = [](sqlite3_file* file, int, int, int, void volatile** region) {
      *region = reinterpret_cast<Shared*>(file)->bytes.data();
      return SQLITE_OK;
    };
    // The reader stands between the two copies.
    shared_.methods.xShmBarrier = [](sqlite3_file* file) {
      auto& shared = *reinterpret_cast<Shared*>(file);
      ++shared.looks;
      if (shared.between) shared.between();
    };
    shared_.file.pMethods = &shared_.methods;
    shared_.bytes.resize(32768);
    SetBoth(7);
  }
  template <class T>
  void Set(size_t at, T value) {
    std::memcpy(&shared_.bytes[at], &value, sizeof value);
  }
  // With the checksum that belongs to it.
  void SetCopy(size_t copy, uint32_t max_frame, uint8_t initialized = 1, uint32_t version = 3007000) {
    const size_t at = copy * kCopy;
    Set<uint32_t>(at, version);
    Set<uint32_t>(at + 8, 42);  // changes
    Set<uint8_t>(at + 12, initialized);
    Set<uint16_t>(at + 14, 4096);
    Set<uint32_t>(at + 16, max_frame);
    Set<uint32_t>(at + 20, 5);  // pages
    for (size_t i = 0; i < 16; ++i) Set<uint8_t>(at + 24 + i, static_cast<uint8_t>(i));
    uint32_t first = 0, second = 0;
    for (size_t i = 0; i < 40; i += 8) {
      first += Word(at + i) + second;
      second += Word(at + i + 4) + first;
    }
    Set(at + 40, first);
    Set(at + 44, second);
  }
  void SetBoth(uint32_t max_frame, uint8_t initialized = 1, uint32_t version = 3007000) {
    for (const size_t copy : {size_t{0}, size_t{1}}) SetCopy(copy, max_frame, initialized, version);
  }
  absl::StatusOr<WalState> Read() { return WalIndex(&shared_.file, nullptr).ReadState(); }
  void ExpectBusy(const std::string& what) {
    const auto state = Read();
    EXPECT_EQ(ReasonOf(state.status()), "WAL_INDEX_BUSY") << what;
    EXPECT_EQ(state.status().code(), absl::StatusCode::kUnavailable) << what;
  }

  struct Shared {
    sqlite3_file file{};  // first: SQLite's methods are given its address
    sqlite3_io_methods methods{};
    Bytes bytes;
    std::function<void()> between;
    int looks = 0;
  } shared_;

 private:
  uint32_t Word(size_t at) const {
    uint32_t word;
    std::memcpy(&word, &shared_.bytes[at], sizeof word);
    return word;
  }
};

TEST_F(WalIndexHeaderTest, IsWhatBothCopiesSay) {
  const auto state = Read();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->max_frame, 7u);
  EXPECT_EQ(state->page_size, 4096u);
  EXPECT_EQ(state->page_count, 5u);
  EXPECT_EQ(state->salts, (std::array<std::byte, 8>{std::byte{8}, std::byte{9}, std::byte{10}, std::byte{11}, std::byte{12}, std::byte{13},
                                                    std::byte{14}, std::byte{15}}));
  EXPECT_EQ(shared_.looks, 1);
}

// A writer changes the second copy before the first one: each is whole, and neither is committed for certain.
TEST_F(WalIndexHeaderTest, CopiesThatDifferAreNone) {
  SetCopy(1, 8);
  ExpectBusy("the second one is ahead");
  SetBoth(7);
  SetCopy(0, 8);
  ExpectBusy("the first one is ahead");
  SetBoth(7);
  Set<uint8_t>(kCopy + 47, 1);
  ExpectBusy("one byte of the second checksum");
}

TEST_F(WalIndexHeaderTest, AWriterWhoComesBetweenTheCopiesIsWaitedFor) {
  shared_.between = [this] {
    if (shared_.looks == 1) SetBoth(8);
  };
  const auto state = Read();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->max_frame, 8u) << "the first look had 7 in one copy, and 8 in the other";
  EXPECT_EQ(shared_.looks, 2);
}

TEST_F(WalIndexHeaderTest, AWrongChecksumIsNoHeader) {
  for (const size_t at : std::initializer_list<size_t>{0, 8, 13, 16, 20, 24, 32, 40, 44, 47}) {
    SetBoth(7);
    for (const size_t copy : {size_t{0}, size_t{1}})
      Set<uint8_t>(copy * kCopy + at, std::to_integer<uint8_t>(shared_.bytes[copy * kCopy + at]) ^ 0x10);
    ExpectBusy("byte " + std::to_string(at) + " of both");
  }
}

// Whoever recovers it takes the header away first; another version is not understood.
TEST_F(WalIndexHeaderTest, WhatIsNotInitializedIsNoHeader) {
  SetBoth(7, 0);
  ExpectBusy("not initialized");
  SetBoth(7, 1, 3007001);
  ExpectBusy("another version");
  shared_.bytes.assign(shared_.bytes.size(), std::byte{0});
  ExpectBusy("nothing at all, of which even the checksum is right");
}

}  // namespace
}  // namespace litefleet::capture
