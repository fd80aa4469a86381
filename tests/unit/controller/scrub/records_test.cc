// Damage of what is no chunk: the record of a snapshot, without which a rebuild does not know of it, is written anew.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "fmt/format.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/scrub/scrub_fixture.h"

namespace litefleet::scrub {
namespace {

class LostRecordTest : public ScrubberTest {
 protected:
  void SetUp() override {
    ScrubberTest::SetUp();
    // A first backup, one on its base with a layer of its own, and what is uploaded ahead of the next.
    fakes::PagedDatabase now{.page_size = 4096, .pages = {}};
    for (unsigned i = 0; i < 64 * 24; ++i) now.pages.push_back(i);
    fakes::PagedDatabase before;
    for (const bool precopied : {false, false, true}) {
      fakes::PagedWish wish{.session_id = NewSession(), .base = {}, .base_state = before, .precopied = precopied};
      if (!ids_.empty()) wish.base = ids_.back();
      fakes::PagedUpload upload(*path_->ingest, device_, now, std::move(wish));
      while (upload.Step()) {}
      upload.End();
      ASSERT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
      ids_.push_back(upload.outcome().snapshot);
      before = now;
      now.pages[100 + ids_.size()] = 4711;
    }
    ASSERT_GT(path_->Count("select count(*) from snapshot where layers like '% %:%'"), 0);
    whole_ = Records();
    ASSERT_EQ(whole_.size(), ids_.size());
  }
  // As a rebuild would find them.
  std::map<std::string, std::string> Records() {
    std::map<std::string, std::string> records;
    EXPECT_TRUE(path_->store
                    ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& scanned) {
                      storage::v1::SnapshotRecord record;
                      if (scanned.header.type == format::RecordType::kSnapshot &&
                          record.ParseFromArray(scanned.payload.data(), static_cast<int>(scanned.payload.size())))
                        records[record.snapshot_id()] = record.DebugString();
                      return absl::OkStatus();
                    })
                    .ok());
    return records;
  }
  void LoseRecord(const std::string& id) {
    FlipAt(path_->Count("select offset from snapshot where id = '" + id + "'") + 80);
    path_->store->ForgetCached(static_cast<uint64_t>(path_->Count("select pack from snapshot where id = '" + id + "'")));
  }

  std::vector<std::string> ids_;
  std::map<std::string, std::string> whole_;
};

TEST_F(LostRecordTest, IsWrittenAnewAsItWas) {
  for (const std::string& id : ids_) LoseRecord(id);
  ASSERT_TRUE(Records().empty());
  const Scrubber::Report report = Run();
  EXPECT_EQ(report.records_rewritten, ids_.size());
  EXPECT_GT(report.damaged_bytes, 0U);
  EXPECT_EQ(report.snapshots_damaged, 0U) << "all that it needs is there";
  EXPECT_EQ(report.chunks_quarantined, 0U);
  EXPECT_EQ(Records(), whole_);
  EXPECT_TRUE(path_->ReadBack(ids_[1]).ok());
  EXPECT_EQ(Run().records_rewritten, 0U);
}

TEST_F(LostRecordTest, IsToldAsDamage) {
  LoseRecord(ids_[0]);
  ASSERT_TRUE(scrubber_->Begin().ok());
  const auto operation = scrubber_->Start(0, "", "operator:test");
  ASSERT_TRUE(operation.ok()) << operation.status();
  const OperationId id(operation->id());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (catalog::IsActive(parts_->operations.Get(id)->operation.state()) && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  const v1::Operation ended = parts_->operations.Get(id)->operation;
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "DAMAGE_FOUND") << ended.DebugString();
  EXPECT_EQ(ended.scrub().records_rewritten(), 1);
  EXPECT_GT(ended.scrub().damaged_bytes(), 0);
}

TEST_F(LostRecordTest, KilledBeforeTheRowPointsToItItIsWrittenOnceMore) {
  LoseRecord(ids_[1]);
  CloseAll();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", "scrub.after_record_write", 1);
    OpenAll();
    Run();
    _exit(3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << WEXITSTATUS(status);
  OpenAll();
  EXPECT_EQ(Run().records_rewritten, 1U);
  EXPECT_EQ(Records(), whole_);
  EXPECT_EQ(Run().records_rewritten, 0U);
}

}  // namespace
}  // namespace litefleet::scrub
