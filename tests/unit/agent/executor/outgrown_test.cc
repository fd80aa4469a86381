// A dump in rollback mode that the spool cannot hold: what the device remembers of it, over restarts too.
#include <random>

#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

constexpr char kMany[] =
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) insert into t select hex(randomblob(200)) from n";

class OutgrownTest : public ExecutorTest {
 protected:
  void SetUp() override {
    ExecutorTest::SetUp();
    config_.databases[0].method = "dump";
    config_.spool_bytes = 100'000;
    Sql(kMany);
  }
};

// The file system of temporary directories may share blocks, or not: then a copy does not fit either.
TEST_F(OutgrownTest, WhatDidNotFitIsRememberedAndNotSpooledOnceMore) {
  const v1::OperationResult first = Run();
  const storage::v1::AgentDatabase kept = Kept();
  EXPECT_EQ(kept.outgrown_spool_bytes(), config_.spool_bytes);
  EXPECT_EQ(kept.outgrown_database_bytes(), std::filesystem::file_size(path()));
  if (first.state() == v1::OPERATION_STATE_SUCCEEDED) GTEST_SKIP() << "a copy is sent here, which shares its blocks";
  EXPECT_EQ(first.error().info().reason(), "SPOOL_FULL") << first.error().message();
  EXPECT_NE(first.error().message().find("does not fit into a spool"), std::string::npos) << first.error().message();

  // Nothing of it is written: who looks into the directory sees no file come.
  const OpenWatch watch(std::filesystem::path(state_->SpoolFile("x")).parent_path());
  EXPECT_EQ(Run().error().info().reason(), "SPOOL_FULL");
  if (watch.works()) {
    EXPECT_EQ(watch.Take(), 0);
  }
  EXPECT_EQ(Kept().outgrown_database_bytes(), kept.outgrown_database_bytes());

  // A smaller one is tried, and forgotten when it fits.
  Sql("delete from t where rowid > 20; vacuum");
  const v1::OperationResult smaller = Run();
  EXPECT_EQ(smaller.state(), v1::OPERATION_STATE_SUCCEEDED) << smaller.error().message();
  EXPECT_EQ(Kept().outgrown_spool_bytes(), 0u);
  EXPECT_EQ(Kept().outgrown_database_bytes(), 0u);
}

TEST_F(OutgrownTest, ALargerSpoolIsTried) {
  Run();
  config_.spool_bytes = 64 << 20;
  const v1::OperationResult result = Run();
  EXPECT_EQ(result.state(), v1::OPERATION_STATE_SUCCEEDED) << result.error().message();
  EXPECT_EQ(Kept().outgrown_spool_bytes(), 0u);
}

// The text of blobs has twice their size: a copy of such a database fits where its text does not.
TEST_F(OutgrownTest, ACopyThatFitsIsRead) {
  std::mt19937 random(7);
  std::string blob;
  while (blob.size() < 800'000) blob += "0123456789abcdef"[random() % 16];
  Sql("delete from t; insert into t values (x'" + blob + "'); vacuum");
  // What has still to be packed counts as it is.
  config_.spool_bytes = std::filesystem::file_size(path());
  for (int run = 0; run < 2; ++run) {
    const v1::OperationResult result = Run();
    ASSERT_EQ(result.state(), v1::OPERATION_STATE_SUCCEEDED) << result.error().message();
    EXPECT_EQ(Kept().outgrown_database_bytes(), std::filesystem::file_size(path()));
    EXPECT_EQ(Kept().journal_mode(), v1::JOURNAL_MODE_ROLLBACK);
    std::string steps;
    for (const std::string& step : result.steps()) steps += step + "\n";
    EXPECT_NE(steps.find("sent while it was read"), std::string::npos) << steps;
    EXPECT_NE(steps.find("no commit was possible for"), std::string::npos) << steps;
    EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(state_->SpoolFile("x")).parent_path()));
  }
}

}  // namespace
}  // namespace litefleet
