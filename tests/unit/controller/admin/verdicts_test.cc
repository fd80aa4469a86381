// `policy simulate` and what retention then does, over databases with everything that counts: pins, orders, checks, damage, parts, holds.
#include <map>
#include <random>
#include <set>

#include "tests/unit/controller/admin/admin_fixture.h"

namespace litefleet::rpc {
namespace {

struct Row {
  std::string id, database, part;
  bool good = false, checked = false, pinned = false, ordered = false;
  int64_t pinned_until = 0;
};

class VerdictsTest : public AdminTest {
 protected:
  void Sql(const std::string& text) {
    const absl::Status status = db_->Write([&](sqlite3* db) { return sqlite::Execute(db, text); });
    ASSERT_TRUE(status.ok()) << status;
  }
  // Everything is there again, and another thing is wrong with each.
  void Shuffle(std::mt19937& random) {
    std::string sql =
        "update snapshot set state = 1, trashed_at = -1, trashed_by = '', pinned = 0, pinned_until = 0; delete from operation;"
        "delete from retention_hold;";
    for (Row& row : rows_) {
      row.good = random() % 6 != 0;
      row.checked = row.good && random() % 8 == 0;
      row.pinned = random() % 6 == 0;
      const int64_t now = ToUnixMillis(clock_.Now());  // at which retention runs
      row.pinned_until = row.pinned ? std::vector<int64_t>{0, now - 1, now, now + 1}[random() % 4] : 0;
      row.part = random() % 5 != 0 ? "" : random() % 2 == 0 ? "table a" : "table b";
      row.ordered = random() % 15 == 0;
      sql += fmt::format("update snapshot set state = {}, check_state = {}, pinned = {}, pinned_until = {}, part = '{}' where id = '{}';",
                         static_cast<int>(row.good ? v1::SNAPSHOT_STATE_COMMITTED : v1::SNAPSHOT_STATE_DAMAGED),
                         static_cast<int>(row.checked ? v1::CHECK_STATE_OK : v1::CHECK_STATE_UNKNOWN), row.pinned ? 1 : 0, row.pinned_until,
                         row.part, row.id);
    }
    const std::string proven = fmt::format("s.check_state = {} and s.state = {}", static_cast<int>(v1::CHECK_STATE_OK),
                                           static_cast<int>(v1::SNAPSHOT_STATE_COMMITTED));
    for (const auto& [column, which] : {std::pair("newest", "1"), std::pair("proven", proven.c_str())}) {
      sql += fmt::format(
          "update database set {} = (select key from snapshot s where s.database = database.id and s.part = '' and {} "
          "order by sequence desc limit 1);",
          column, which);
    }
    Sql(sql + "update database set snapshots = (select count(*) from snapshot s where s.database = database.id);");
    for (const Row& row : rows_) {
      if (!row.ordered) continue;
      catalog::OperationRow order;
      order.operation.set_id(NewUlid(clock_.Now()));
      order.operation.set_kind(v1::OPERATION_KIND_RESTORE);
      order.operation.set_state(v1::OPERATION_STATE_QUEUED);
      *order.operation.mutable_created_at() = ToProtoTime(clock_.Now());
      order.order.mutable_restore()->set_snapshot_id(row.id);
      ASSERT_TRUE(operations_->Create({order}).ok());
    }
  }
  // Those that would stay.
  std::set<std::string> Simulate(const std::string& text) {
    std::set<std::string> keep;
    v1::ListPolicyVerdictsRequest request;
    request.set_text(text);
    do {
      const auto page = admin_->ListPolicyVerdicts(request);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) return keep;
      for (const v1::PolicyVerdict& verdict : page->verdicts()) {
        EXPECT_GT(verdict.reasons_size(), 0);
        if (verdict.keep()) keep.insert(verdict.snapshot().id());
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return keep;
  }
  std::set<std::string> Left() {
    std::set<std::string> left;
    const auto listed = snapshots_->List(DeviceId(), "", 1000, "");
    for (const v1::Snapshot& snapshot : listed->items) left.insert(snapshot.id());
    return left;
  }
  // What no plan may do, whatever simulate says.
  void ExpectNoHarm(const std::set<std::string>& left, size_t keep_last, size_t floor) {
    std::map<std::string, std::vector<const Row*>> whole, good, parts;  // newest first
    for (auto row = rows_.rbegin(); row != rows_.rend(); ++row) {
      const bool pinned = row->pinned && (row->pinned_until == 0 || row->pinned_until > ToUnixMillis(clock_.Now()));
      EXPECT_TRUE(left.contains(row->id) || !(pinned || row->ordered)) << "pinned or ordered";
      if (row->part.empty()) whole[row->database].push_back(&*row);
      if (row->good) (row->part.empty() ? good[row->database] : parts[row->database + row->part]).push_back(&*row);
    }
    for (const auto& [database, all] : whole) EXPECT_TRUE(left.contains(all.front()->id)) << "the newest";
    for (const auto& [database, all] : good) {
      for (size_t i = 0; i < std::min(keep_last, all.size()); ++i) EXPECT_TRUE(left.contains(all[i]->id)) << "keep_last";
      const auto checked = std::find_if(all.begin(), all.end(), [](const Row* row) { return row->checked; });
      EXPECT_TRUE(checked == all.end() || left.contains((*checked)->id)) << "the newest that was checked";
      const auto there = std::count_if(all.begin(), all.end(), [&](const Row* row) { return left.contains(row->id); });
      EXPECT_GE(static_cast<size_t>(there), std::min(floor, all.size())) << "the floor";
    }
    for (const auto& [database, all] : parts)
      for (size_t i = 0; i < std::min(keep_last, all.size()); ++i) EXPECT_TRUE(left.contains(all[i]->id)) << "keep_last of a part";
  }

  std::vector<Row> rows_;  // of a database by sequence
};

TEST_F(VerdictsTest, RetentionDoesWhatSimulateSays) {
  std::mt19937 random(11);
  const std::vector<std::pair<std::string, std::string>> places = {{"kiosk", "oslo"}, {"till", "bergen"}};
  for (const auto& [name, site] : places) {
    const DeviceId device = Enrol(name, {{"site", site}}, {"orders", "stock"});
    for (const char* database : {"orders", "stock"}) {
      SystemTime at = clock_.Now() - hours(24 * 20);
      for (int i = 0; i < 14; ++i) {
        at += minutes(random() % 3000);
        rows_.push_back({.id = Snap(device, database, at), .database = name + "/" + database, .part = ""});
      }
    }
  }
  int64_t trashed = 0, held = 0;
  for (int round = 0; round < 16; ++round) {
    SCOPED_TRACE(round);
    Shuffle(random);
    const size_t keep_last = random() % 4, floor = 1 + random() % 4;
    std::set<std::string> said;
    std::vector<std::string> texts;
    for (const auto& [name, site] : places) {
      texts.push_back(
          fmt::format("name = \"{0}\"\nselector = \"site={0}\"\n[retention]\nkeep_last = {1}\nfloor = {2}\ntiers = [{{every = "
                      "\"{3}h\", for = \"{4}h\"}}]\n",
                      site, keep_last, floor, 1 + random() % 60, 40 + random() % 400));
      said.merge(Simulate(texts.back()));
    }
    if (round % 3 == 0) {
      // What an operator has not looked at stays as it is, and he is told so.
      const Row& row = rows_[random() % rows_.size()];
      const DeviceId device(identities_->ResolveDevice(row.database.substr(0, row.database.find('/')))->id());
      ASSERT_TRUE(policies_->Hold(device, row.database.substr(row.database.find('/') + 1), "SUDDENLY_MANY", "x", clock_.Now()).ok());
      said.clear();
      for (const std::string& text : texts) said.merge(Simulate(text));
      for (const Row& each : rows_) EXPECT_TRUE(each.database != row.database || said.contains(each.id)) << "on hold";
    }
    EXPECT_EQ(Left().size(), rows_.size()) << "a simulation changes nothing";
    for (const std::string& text : texts) {
      v1::ApplyPolicyRequest apply;
      apply.set_text(text);
      ASSERT_TRUE(admin_->ApplyPolicy(apply).ok());
    }
    const auto totals = retention_->Run(time_->Tick()->time, [] { return false; });
    ASSERT_TRUE(totals.ok()) << totals.status();
    trashed += totals->trashed;
    held += totals->held;
    const std::set<std::string> left = Left();
    EXPECT_EQ(left, said);
    EXPECT_EQ(static_cast<int64_t>(rows_.size() - left.size()), totals->trashed);
    ExpectNoHarm(left, keep_last, floor);
    clock_.Advance(hours(random() % 30));
  }
  EXPECT_GT(trashed, 100);
  EXPECT_GT(held, 4);
}

}  // namespace
}  // namespace litefleet::rpc
