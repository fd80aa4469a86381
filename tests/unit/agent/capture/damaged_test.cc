// What is damaged but readable goes through byte by byte; what SQLite refuses is refused with a reason.
#include <algorithm>
#include <filesystem>
#include <map>
#include <random>

#include "agent/capture/database_header.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

class Damaged : public CaptureTest, public testing::WithParamInterface<const char*> {
 protected:
  Bytes Healthy() const {
    const std::string path = Path("healthy.db");
    Shell(fmt::format("rm -f '{}'*", path));
    Sql(path,
        fmt::format(
            "pragma page_size=1024; pragma journal_mode={}; create table t(id integer primary key, x blob); create index i on t(x);"
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) insert into t select i, randomblob(200) from n",
            GetParam()));
    return FileBytes(path);
  }
};

TEST_P(Damaged, SchemaAndHeaderFieldsAreNotLookedAt) {
  const Bytes healthy = Healthy();
  const auto damage = [&](size_t from, size_t to, int value) {
    Bytes bytes = healthy;
    for (size_t i = from; i < to; ++i) bytes[i] = static_cast<std::byte>(value + static_cast<int>(i) * 37);
    return bytes;
  };
  const std::map<std::string, Bytes> images = {
      {"whole schema page", damage(100, 1024, 5)}, {"schema cookie", damage(40, 44, 1)},
      {"schema format", damage(44, 48, 9)},        {"default cache size", damage(48, 52, 120)},
      {"largest root", damage(52, 56, 3)},         {"encoding", damage(56, 60, 7)},
      {"user version", damage(60, 64, 7)},         {"reserved", damage(72, 92, 1)},
      {"a table page", damage(2048, 3072, 5)},     {"free list", damage(32, 40, 3)},
      {"change counter", damage(24, 28, 3)},       {"version valid for", damage(92, 96, 3)},
  };
  for (const auto& [name, image] : images) {
    const std::string path = Store(image, "damaged.db");
    const Copy copy = Backup(path);
    ASSERT_TRUE(copy.status.ok()) << name << ": " << copy.status;
    EXPECT_TRUE(copy.bytes == image) << name;
    EXPECT_TRUE(FileBytes(path) == image) << name;
    if (name == "encoding" || name == "schema format" || name == "free list" || name == "whole schema page") {
      EXPECT_NE(copy.damage, "") << name;
    }
  }
}

TEST_P(Damaged, ShorterThanTheHeaderSays) {
  Bytes image = Healthy();
  image.resize(image.size() / 2 / 1024 * 1024);
  Copy copy = Backup(Store(image, "short.db"));
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == image);
  EXPECT_NE(copy.damage.find("shorter"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(Path("short.db-wal")));

  image.resize(image.size() - 300);
  copy = Backup(Store(image, "torn.db"));
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  ASSERT_EQ(copy.bytes.size() % 1024, 0u);
  ASSERT_GE(copy.bytes.size(), image.size());
  EXPECT_TRUE(std::equal(image.begin(), image.end(), copy.bytes.begin()));
  EXPECT_NE(copy.damage.find("ends within a page"), std::string::npos);
}

// Not damage: applications may let SQLite grow files in steps.
TEST_P(Damaged, LongerThanTheHeaderSays) {
  Bytes image = Healthy();
  const Bytes healthy = image;
  image.resize(image.size() + 64 * 1024);
  const Copy copy = Backup(Store(image, "long.db"));
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == healthy);
  EXPECT_EQ(copy.damage, "");
}

TEST_P(Damaged, HeaderThatSqliteRefuses) {
  const Bytes healthy = Healthy();
  for (const auto& [offset, value] : {std::pair{16, 0x33}, std::pair{19, 77}, std::pair{21, 1}}) {
    Bytes image = healthy;
    image[static_cast<size_t>(offset)] = static_cast<std::byte>(value);
    const Copy copy = Backup(Store(image, "refused.db"));
    EXPECT_EQ(ReasonOf(copy.status), "DATABASE_DAMAGED") << offset << ": " << copy.status;
    EXPECT_NE(HintOf(copy.status), "");
  }
}

TEST_P(Damaged, RandomDamageGivesExactCopiesOrReasons) {
  const Bytes healthy = Healthy();
  std::mt19937 random(20);
  int copied = 0;
  for (int round = 0; round < 150; ++round) {
    Bytes image = healthy;
    const size_t span = round % 3 == 0 ? 100 : image.size();
    for (int i = 0; i < 1 + round % 7; ++i) image[16 + random() % (span - 16)] = static_cast<std::byte>(random());
    const std::string path = Store(image, "random.db");
    const Copy copy = Backup(path);
    if (!copy.status.ok()) {
      EXPECT_NE(ReasonOf(copy.status), "") << copy.status;
      continue;
    }
    ++copied;
    ASSERT_LE(copy.bytes.size(), image.size());
    EXPECT_TRUE(std::equal(copy.bytes.begin(), copy.bytes.end(), image.begin())) << round;
  }
  EXPECT_GT(copied, 100);
}

INSTANTIATE_TEST_SUITE_P(Modes, Damaged, testing::Values("delete", "wal"), [](const auto& test) { return std::string(test.param); });

TEST(DatabaseHeader, FirstPagesOfOneStateAreTheSame) {
  Bytes page(512);
  Bytes other = page;
  EXPECT_TRUE(SameFirstPage(page, other));
  for (const size_t rewritten : {18, 19, 24, 27, 28, 40, 43, 92, 99}) other[rewritten] = std::byte{1};
  EXPECT_TRUE(SameFirstPage(page, other));
  for (const size_t kept : {0, 17, 20, 23, 32, 39, 44, 91, 100, 511}) {
    other = page;
    other[kept] = std::byte{1};
    EXPECT_FALSE(SameFirstPage(page, other)) << kept;
  }
  EXPECT_FALSE(SameFirstPage(page, {}));
}

}  // namespace
}  // namespace litefleet::capture
