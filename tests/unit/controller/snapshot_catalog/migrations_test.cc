// A catalog of each version there has been, with rows in it, is opened by this program: it becomes what a new one is, and nothing is lost.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>

#include "common/base/status.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/catalog/snapshot_catalog.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

// What the first version has tables for. A later migration that changes one of them has to bring these rows with it.
constexpr char kRows[] = R"sql(
insert into device (id, name, state, key_hash, enrolled_ms) values
  ('11111111-1111-4111-8111-111111111111', 'one', 1, x'01', 1000), ('22222222-2222-4222-8222-222222222222', 'two', 2, x'02', 2000);
insert into device_label values ('11111111-1111-4111-8111-111111111111', 'site', 'north');
insert into token (id, secret_hash, created_ms, expires_ms, uses_total, uses_left) values ('t1', x'05', 1, 2, 3, 2);
insert into token_label values ('t1', 'site', 'south');
insert into token_use values ('t1', x'01', '11111111-1111-4111-8111-111111111111', 5);
insert into certificate (serial, device_id, role, key_hash, issued_ms, not_after_ms) values
  ('aa', '11111111-1111-4111-8111-111111111111', 'device', x'01', 1, 2), ('bb', '22222222-2222-4222-8222-222222222222', 'device', x'02', 1, 2);
insert into certificate (serial, operator_name, role, key_hash, issued_ms, not_after_ms) values ('cc', 'ann', 'admin', x'03', 1, 2);
insert into operation (id, device, database, kind, state, active, origin, created_ms, ordered_by, request_id, operation, device_order) values
  ('01JD0000000000000000000001', '11111111-1111-4111-8111-111111111111', 'main', 1, 4, 0, 1, 7, 'operator:ann', 'r1', x'', x'');
insert into database (id, device, name, timeline, sequence, snapshots, newest, proven) values
  (1, '11111111-1111-4111-8111-111111111111', 'main', 2, 2, 2, 2, 1), (2, '22222222-2222-4222-8222-222222222222', 'main', 1, 7, 1, 3, null);
insert into timeline (database, timeline, operation) values (1, 2, '01JD0000000000000000000001');
insert into pack (id, chunks, stored_bytes) values (1, 2, 300);
insert into chunk values (1, x'0101', 4096, 64, 1, 100, 1, 64, 1), (2, x'0202', 4096, 1, 1, 200, 1, 300, 1);
insert into owner (id, device) values (1, '11111111-1111-4111-8111-111111111111'), (2, '22222222-2222-4222-8222-222222222222');
insert into device_chunk (owner, chunk, session) values (1, 1, 1), (1, 2, 1), (2, 2, 2);
insert into upload_session (session, owner, database, state, expires_at) values ('s1', 1, 1, 2, 9), ('s2', 2, 2, 1, 9);
insert into claim (session, chunk) values (2, 2);
)sql";

std::string Snapshot(int key, const char* id, const char* device, int database, int sequence) {
  return fmt::format(
      "insert into snapshot (key, id, device, database, timeline, sequence, method, state, page_size, page_count, root, root_version, "
      "manifest_kind, manifest_parts, taken_at, received_at, effective_at, journal_mode, source_check, source_check_message, check_state, "
      "pages_sent, wire_bytes, stored_bytes, duration_ms, pinned_ms, read_bytes, operation, session, pack, offset) values "
      "({}, '{}', '{}', {}, 1, {}, 1, 1, 4096, 65, x'07', 1, 1, 1, 10, 11, 12, 1, 1, 'fine', 1, 65, 300, 300, 1, 1, 300, '', 's{}', 1, {});"
      "insert into manifest_part values ({}, 0, 1, 1, {});",
      key, id, device, database, sequence, key, 1000 + key, key, 2000 + key);
}

using Rows = std::vector<std::string>;

class MigrationsTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/litefleet-migrations-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::unique_ptr<CatalogDb> Open(const std::string& name, size_t version) {
    auto db = CatalogDb::Open(directory_ + "/" + name, true, std::span(Migrations()).first(version));
    EXPECT_TRUE(db.ok()) << db.status();
    return db.ok() ? *std::move(db) : nullptr;
  }
  // Each row as one text.
  static Rows Ask(CatalogDb& db, const std::string& sql) {
    Rows rows;
    const absl::Status asked = db.Read([&](sqlite3* raw) -> absl::Status {
      LF_ASSIGN_OR_RETURN(auto statement, sqlite::Statement::Prepare(raw, sql));
      for (;;) {
        LF_ASSIGN_OR_RETURN(const bool row, statement.Step());
        if (!row) return absl::OkStatus();
        rows.emplace_back(statement.Text(0));
      }
    });
    EXPECT_TRUE(asked.ok()) << sql << ": " << asked;
    return rows;
  }
  static Rows Schema(CatalogDb& db) {
    return Ask(db, "select type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') from sqlite_schema order by type, name");
  }
  // All columns that the tables of the first version have there, by table.
  static std::map<std::string, std::string> Columns(CatalogDb& db) {
    std::map<std::string, std::string> columns;
    for (const std::string& table : Ask(db, "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")) {
      std::string list;
      for (const std::string& column : Ask(db, fmt::format("select name from pragma_table_info('{}')", table)))
        list += (list.empty() ? "quote(" : " || ' ' || quote(") + column + ")";
      columns[table] = list;
    }
    return columns;
  }

  std::string directory_;
};

TEST_F(MigrationsTest, ACatalogOfEachVersionBecomesWhatANewOneIs) {
  const size_t newest = Migrations().size();
  const auto fresh = Open("fresh.db", newest);
  ASSERT_NE(fresh, nullptr);
  const Rows wanted = Schema(*fresh);
  EXPECT_GT(wanted.size(), 60U);
  std::map<std::string, std::string> columns;
  {
    const auto first = Open("first.db", 1);
    ASSERT_NE(first, nullptr);
    columns = Columns(*first);
  }
  for (size_t version = 1; version <= newest; ++version) {
    SCOPED_TRACE(version);
    const std::string name = fmt::format("{}.db", version);
    std::map<std::string, Rows> before;
    const auto rows = [&](CatalogDb& db) {
      std::map<std::string, Rows> all;
      for (const auto& [table, list] : columns) all[table] = Ask(db, fmt::format("select {} from {} order by 1", list, table));
      return all;
    };
    {
      const auto old = Open(name, version);
      ASSERT_NE(old, nullptr);
      const absl::Status filled = old->Write([](sqlite3* raw) {
        return sqlite::Execute(raw, kRows + Snapshot(1, "01JD00000000000000000000S1", "11111111-1111-4111-8111-111111111111", 1, 1) +
                                        Snapshot(2, "01JD00000000000000000000S2", "11111111-1111-4111-8111-111111111111", 1, 2) +
                                        Snapshot(3, "01JD00000000000000000000S3", "22222222-2222-4222-8222-222222222222", 2, 7));
      });
      ASSERT_TRUE(filled.ok()) << filled;
      before = rows(*old);
      for (const auto& [table, some] : before) EXPECT_FALSE(some.empty()) << table << ": nothing that may be lost";
    }
    const auto now = Open(name, newest);
    ASSERT_NE(now, nullptr);
    EXPECT_EQ(Ask(*now, "pragma user_version"), Rows{std::to_string(newest)});
    EXPECT_EQ(Schema(*now), wanted);
    EXPECT_EQ(rows(*now), before);
    EXPECT_EQ(Ask(*now, "pragma integrity_check"), Rows{"ok"});
    EXPECT_EQ(Ask(*now, "pragma foreign_key_check"), Rows{});
    // What is kept beside them is as it would be had they been written by this version.
    EXPECT_EQ(Ask(*now, "select held_bytes from owner order by id"), (Rows{"300", "200"}));
    EXPECT_EQ(Ask(*now, "select count(*) from record_due where kind = 1"), Rows{"2"});
    SnapshotCatalog snapshots(*now);
    const auto snapshot = snapshots.Resolve("01JD00000000000000000000S3");
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    EXPECT_EQ(snapshot->state(), v1::SNAPSHOT_STATE_COMMITTED);
    EXPECT_EQ(snapshot->content(), v1::SNAPSHOT_CONTENT_DATABASE);
    EXPECT_EQ(snapshots.List(DeviceId(), "", 10, "")->items.size(), 3U);
  }
}

TEST_F(MigrationsTest, APinOfBeforeHoldsUntilItIsUnpinned) {
  constexpr size_t kBeforeLimits = 24;  // the last version of the catalog whose pins have no limit
  {
    const auto old = Open("pins.db", kBeforeLimits);
    ASSERT_NE(old, nullptr);
    const absl::Status filled = old->Write([](sqlite3* raw) {
      return sqlite::Execute(raw, kRows + Snapshot(1, "01JD00000000000000000000S1", "11111111-1111-4111-8111-111111111111", 1, 1) +
                                      Snapshot(2, "01JD00000000000000000000S2", "11111111-1111-4111-8111-111111111111", 1, 2) +
                                      "update snapshot set pinned = 1 where key = 1;");
    });
    ASSERT_TRUE(filled.ok()) << filled;
    EXPECT_EQ(Ask(*old, "select count(*) from pragma_table_info('snapshot') where name = 'pinned_until'"), Rows{"0"});
  }
  const auto now = Open("pins.db", Migrations().size());
  ASSERT_NE(now, nullptr);
  EXPECT_EQ(Ask(*now, "select pinned || ' ' || pinned_until from snapshot order by key"), (Rows{"1 0", "0 0"}));
  EXPECT_EQ(Ask(*now, "select snapshot from mark_due"), Rows{"01JD00000000000000000000S1"}) << "what was due is due";
  SnapshotCatalog snapshots(*now);
  EXPECT_TRUE(snapshots.Resolve("01JD00000000000000000000S1")->pinned_by_operator());
  EXPECT_FALSE(snapshots.Resolve("01JD00000000000000000000S1")->has_pinned_until());
  EXPECT_FALSE(snapshots.Resolve("01JD00000000000000000000S2")->pinned_by_operator());
}

}  // namespace
}  // namespace litefleet::catalog
