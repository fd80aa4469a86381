#include "common/sqlite/handle.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace litefleet::sqlite {
namespace {

DatabaseHandle Memory() {
  auto db = Open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  EXPECT_TRUE(db.ok()) << db.status();
  return *std::move(db);
}

TEST(HandleTest, BindsAndReads) {
  const DatabaseHandle db = Memory();
  ASSERT_TRUE(Execute(db.get(), "create table t(a integer, b text, c blob, d)").ok());
  auto insert = Statement::Prepare(db.get(), "insert into t values(?, ?, ?, ?)");
  ASSERT_TRUE(insert.ok());
  const std::string with_nul("x\0y", 3);
  ASSERT_TRUE(insert->Bind(1, int64_t{1} << 60).Bind(2, with_nul).BindBlob(3, {}).BindNull(4).Run().ok());
  auto select = Statement::Prepare(db.get(), "select a, b, c, d, typeof(c) from t");
  ASSERT_TRUE(select.ok());
  ASSERT_TRUE(*select->Step());
  EXPECT_EQ(select->Int(0), int64_t{1} << 60);
  EXPECT_EQ(select->Text(1), with_nul);
  EXPECT_EQ(select->Blob(2).size(), 0u);
  EXPECT_TRUE(select->IsNull(3));
  EXPECT_EQ(select->Text(4), "blob");
  EXPECT_FALSE(*select->Step());
}

TEST(HandleTest, ErrorsHaveReasons) {
  EXPECT_EQ(ReasonOf(Open("/nonexistent/x.db", SQLITE_OPEN_READONLY).status()), "DATABASE_NOT_OPENED");
  const DatabaseHandle db = Memory();
  EXPECT_EQ(ReasonOf(Statement::Prepare(db.get(), "select nonsense").status()), "SQLITE_ERROR");
  auto bad_bind = Statement::Prepare(db.get(), "select ?");
  ASSERT_TRUE(bad_bind.ok());
  EXPECT_FALSE(bad_bind->Bind(2, int64_t{1}).Step().ok());
  EXPECT_EQ(ReasonOf(ToStatus(SQLITE_NOTADB, nullptr, "open x")), "NOT_A_DATABASE");
  EXPECT_EQ(ToStatus(SQLITE_IOERR_READ, nullptr, "read").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ToStatus(SQLITE_BUSY_RECOVERY, nullptr, "read").code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ToStatus(SQLITE_ROW, nullptr, "step").ok());
}

}  // namespace
}  // namespace litefleet::sqlite
