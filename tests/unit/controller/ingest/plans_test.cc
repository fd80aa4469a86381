// How SQLite finds what ingest asks for: nothing reads a table from one end to the other.
#include <gmock/gmock.h>

#include <set>

#include "fmt/format.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using testing::Contains;
using testing::HasSubstr;

// Those that the catalog keeps prepared on the writer's connection, or on a reader's.
std::set<std::string> Prepared(sqlite3* db) {
  std::set<std::string> texts;
  for (sqlite3_stmt* each = sqlite3_next_stmt(db, nullptr); each != nullptr; each = sqlite3_next_stmt(db, each))
    texts.insert(sqlite3_sql(each));
  return texts;
}

// Tables of one row.
constexpr const char* kOneRow[] = {"prune_state", "quarantine_generation"};

// The steps of its plan that read all of something else: a table, or one to make an index of it for this once.
absl::StatusOr<std::vector<std::string>> Scans(sqlite3* db, const std::string& text) {
  std::vector<std::string> scans;
  LF_ASSIGN_OR_RETURN(auto plan, sqlite::Statement::Prepare(db, "explain query plan " + text));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, plan.Step());
    if (!row) return scans;
    std::string step(plan.Text(3));
    bool scan = step.starts_with("SCAN ") && step.find("CONSTANT ROW") == std::string::npos;
    for (const char* table : kOneRow) scan = scan && step != fmt::format("SCAN {}", table);
    if (scan || step.find("AUTOMATIC") != std::string::npos) scans.push_back(std::move(step));
  }
}

class PlansTest : public IngestTest {
 protected:
  std::string Run(const fakes::PagedDatabase& now, fakes::PagedWish wish) {
    wish.session_id = NewSession();
    fakes::PagedUpload upload(*path_->ingest, device_, now, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    EXPECT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    return upload.outcome().snapshot;
  }
};

TEST_F(PlansTest, NoStatementOfIngestReadsATableThatGrowsWithTheStore) {
  Open();
  // Whole ones, one again by another device, one that is cut off and gone on with.
  const fakes::FakeDatabase whole = fakes::FakeDatabase::Make(4096, 64 * 6 + 1, 1);
  ASSERT_TRUE(Upload(whole, device_).status.ok());
  ASSERT_TRUE(Upload(whole, other_).status.ok());
  const fakes::FakeDatabase cut = fakes::FakeDatabase::Make(4096, 64 * 6 + 1, 2);
  const std::string session = NewSession();
  fakes::RunUpload(*path_->ingest, device_, cut, {.session_id = session, .chunks_per_offer = 2, .stop_after_chunks = 3});
  ASSERT_TRUE(Upload(cut, device_, session).status.ok());
  // Deltas, by the device's comparison and by the controller's, and rounds of a pre-copy.
  fakes::PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 1000; ++i) now.pages.push_back(i + 1);
  std::string base = Run(now, {});
  for (const bool precopied : {true, false}) {
    const fakes::PagedDatabase before = now;
    now.pages[precopied ? 100 : 300] += 10'000;
    fakes::PagedWish wish;
    wish.compare = false;
    wish.precopied = precopied;
    wish.base = base;
    wish.base_state = before;
    base = Run(now, std::move(wish));
  }
  fakes::PagedWish compared;
  compared.compare = true;
  now.pages[500] += 10'000;
  Run(now, std::move(compared));

  for (const char* table : kOneRow) EXPECT_EQ(path_->Count(fmt::format("select count(*) from {}", table)), 1);
  std::set<std::string> texts;
  const auto look = [&](sqlite3* db) {
    texts.merge(Prepared(db));
    return absl::OkStatus();
  };
  ASSERT_TRUE(path_->db->Read(look).ok());
  ASSERT_TRUE(path_->db->Write(look).ok());
  for (const char* known :
       {"insert into chunk", "insert into claim", "insert into snapshot", "insert into device_chunk", "insert into manifest_part"})
    EXPECT_THAT(texts, Contains(HasSubstr(known)));
  EXPECT_GT(texts.size(), 40U);
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) -> absl::Status {
                    for (const std::string& text : texts) {
                      LF_ASSIGN_OR_RETURN(const std::vector<std::string> scans, Scans(db, text));
                      EXPECT_TRUE(scans.empty()) << testing::PrintToString(scans) << "\n" << text;
                    }
                    return absl::OkStatus();
                  })
                  .ok());
}

}  // namespace
}  // namespace litefleet::ingest
