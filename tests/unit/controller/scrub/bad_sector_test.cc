// Places that the disk cannot read any more: they are damage of what stands there, and stop nothing.
#include <functional>
#include <utility>

#include "tests/fakes/volatile_files.h"
#include "tests/unit/controller/scrub/scrub_fixture.h"

namespace litefleet::scrub {
namespace {

using fakes::FakeDatabase;

class BadSectorTest : public ScrubberTest {
 protected:
  void SetUp() override {
    disk_ = &files_;
    ScrubberTest::SetUp();
  }
  void SpoilChunk(const FakeDatabase& database, uint32_t extent) {
    const std::string where = " from chunk where name = x'" + database.Name(extent).Hex() + "'";
    const int64_t offset = path_->Count("select offset" + where);
    ASSERT_GT(offset, 0);
    const auto pack = static_cast<uint64_t>(path_->Count("select pack" + where));
    files_.Spoil(directory_ + "/store/packs/000000000000000" + std::to_string(pack) + ".pack", static_cast<uint64_t>(offset) + 100'000);
  }

  std::function<void()> on_open_;  // once
  fakes::VolatileFiles files_{1, 0, [this](fakes::FileCall call) {
                                if (call != fakes::FileCall::kOpen) return fakes::FileFault::kNone;
                                if (const auto hook = std::exchange(on_open_, nullptr)) hook();
                                return fakes::FileFault::kNone;
                              }};
};

TEST_F(BadSectorTest, ChunksAreQuarantinedAndTheOtherPacksAreRead) {
  const FakeDatabase first = FakeDatabase::Make(4096, 64 * 3, 1);
  const FakeDatabase second = FakeDatabase::Make(4096, 64 * 3, 5);
  const auto hit = Upload(first, device_);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const auto whole = Upload(second, other_);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  ASSERT_TRUE(hit.status.ok() && whole.status.ok());
  SpoilChunk(first, 1);
  const Scrubber::Report report = Run();
  EXPECT_EQ(report.packs, 2U);
  EXPECT_EQ(report.chunks_quarantined, 1U);
  EXPECT_EQ(report.snapshots_damaged, 1U);
  EXPECT_EQ(StateOf(hit.snapshot_id), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(StateOf(whole.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(path_->Count("select count(*) from scrub_pack"), 2) << "both are proven";
  // As after any damage, the next backup heals it.
  const auto again = Upload(first, device_);
  EXPECT_EQ(again.chunks_sent, 1U);
  EXPECT_EQ(scrubber_->Heal().value(), 1);
  EXPECT_EQ(StateOf(hit.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(path_->ReadBack(hit.snapshot_id).value(), ingest::WholeOf(first));
  // The controller starts with it.
  CloseAll();
  OpenAll();
  EXPECT_EQ(path_->ReadBack(hit.snapshot_id).value(), ingest::WholeOf(first));
}

// A prune takes the pack away in the moment in which scrub opens it.
TEST_F(BadSectorTest, APackThatGoesMeanwhileIsNoDamage) {
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 2, 1), device_).status.ok());
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kCatalogGeneration, AsBytes(std::string_view("\x08\x01"))).ok());
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const uint64_t newest = path_->store->Packs().back().id;
  on_open_ = [&] {
    const absl::Status removed = path_->store->RemovePack(newest);
    EXPECT_TRUE(removed.ok()) << removed;
  };
  const Scrubber::Report report = Run();
  EXPECT_EQ(report.packs, 1U);
  EXPECT_EQ(report.damaged_bytes, 0U);
  EXPECT_EQ(path_->Count("select count(*) from scrub_pack"), 1);
}

}  // namespace
}  // namespace litefleet::scrub
