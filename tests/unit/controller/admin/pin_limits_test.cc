// Pins that end by themselves: by the controller's own time, which no clock moves ahead.
#include "tests/unit/controller/admin/admin_fixture.h"

namespace litefleet::rpc {
namespace {

constexpr char kPolicy[] = "name = \"p\"\n[retention]\nkeep_last = 1\n";

class PinLimitsTest : public AdminTest {
 protected:
  PinLimitsTest() {
    const DeviceId device = Enrol("kiosk", {}, {"orders"});
    for (std::string& id : ids_) {
      id = Snap(device, "orders", clock_.Now());
      clock_.Advance(minutes(1));
    }
    EXPECT_TRUE(time_->Tick().ok());
    v1::ApplyPolicyRequest apply;
    apply.set_text(kPolicy);
    EXPECT_TRUE(admin_->ApplyPolicy(apply).ok());
  }
  absl::StatusOr<v1::Snapshot> Pin(const std::string& id, std::optional<seconds> duration, bool at_least = false) {
    v1::PinSnapshotRequest request;
    request.set_snapshot(id);
    if (duration.has_value()) request.mutable_duration()->set_seconds(duration->count());
    request.set_at_least(at_least);
    LF_ASSIGN_OR_RETURN(const v1::PinSnapshotResponse response, admin_->PinSnapshot(request));
    return response.snapshot();
  }
  std::string Delete(const std::string& id) {
    v1::DeleteSnapshotRequest request;
    request.set_snapshot(id);
    request.set_force(true);
    return ReasonOf(admin_->DeleteSnapshot(request, "operator:ann").status());
  }
  // What a simulation says of it.
  v1::PolicyVerdict Verdict(const std::string& id) {
    v1::ListPolicyVerdictsRequest request;
    request.set_text(kPolicy);
    const auto page = admin_->ListPolicyVerdicts(request);
    EXPECT_TRUE(page.ok()) << page.status();
    for (const v1::PolicyVerdict& verdict : page->verdicts())
      if (verdict.snapshot().id() == id) return verdict;
    ADD_FAILURE() << "no verdict of " << id;
    return {};
  }
  int64_t Retain() {
    const auto now = time_->Trusted();
    EXPECT_TRUE(now.ok()) << now.status();
    return retention_->Run(*now, [] { return false; })->trashed;
  }

  std::string ids_[4];  // of one database
};

TEST_F(PinLimitsTest, RetentionSimulationAndDeletionKeepToTheLimit) {
  const auto pinned = Pin(ids_[0], hours(2));
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  ASSERT_TRUE(pinned->pinned_by_operator());
  EXPECT_EQ(FromProtoTime(pinned->pinned_until()), FromUnixMillis(ToUnixMillis(clock_.Now() + hours(2))));
  ASSERT_TRUE(Pin(ids_[1], std::nullopt).ok());
  ASSERT_TRUE(Pin(ids_[2], hours(2)).ok());
  EXPECT_EQ(Retain(), 0);
  clock_.Advance(hours(2) - std::chrono::milliseconds(1));
  EXPECT_EQ(Delete(ids_[0]), "SNAPSHOT_PINNED");
  EXPECT_TRUE(Verdict(ids_[0]).keep());
  EXPECT_EQ(Verdict(ids_[0]).reasons(0), "pinned until " + FormatRfc3339(FromProtoTime(pinned->pinned_until())));
  EXPECT_EQ(Verdict(ids_[1]).reasons(0), "pinned");
  EXPECT_EQ(Retain(), 0) << "before";
  EXPECT_TRUE(snapshots_->Resolve(ids_[0])->pinned_by_operator());

  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_FALSE(Verdict(ids_[0]).keep()) << "at the limit";
  EXPECT_TRUE(Verdict(ids_[1]).keep());
  EXPECT_FALSE(snapshots_->Resolve(ids_[0])->pinned_by_operator());
  EXPECT_FALSE(snapshots_->Resolve(ids_[0])->has_pinned_until());
  EXPECT_TRUE(snapshots_->Resolve(ids_[1])->pinned_by_operator());
  EXPECT_EQ(Delete(ids_[2]), "");
  EXPECT_EQ(Delete(ids_[1]), "SNAPSHOT_PINNED");
  EXPECT_EQ(Retain(), 1);
  EXPECT_EQ(snapshots_->Resolve(ids_[0])->state(), v1::SNAPSHOT_STATE_TRASH);
  EXPECT_EQ(snapshots_->Resolve(ids_[1])->state(), v1::SNAPSHOT_STATE_COMMITTED);
}

TEST_F(PinLimitsTest, TheLastCallCountsUnlessItSaysAtLeast) {
  ASSERT_TRUE(Pin(ids_[0], hours(5)).ok());
  const SystemTime in_two = FromUnixMillis(ToUnixMillis(clock_.Now() + hours(2)));
  EXPECT_EQ(FromProtoTime(Pin(ids_[0], hours(2))->pinned_until()), in_two) << "shorter";
  EXPECT_EQ(FromProtoTime(Pin(ids_[0], hours(1), true)->pinned_until()), in_two) << "at least";
  EXPECT_EQ(FromProtoTime(Pin(ids_[0], hours(3), true)->pinned_until()), in_two + hours(1));
  EXPECT_FALSE(Pin(ids_[0], std::nullopt, true)->has_pinned_until());
  EXPECT_FALSE(Pin(ids_[0], hours(900), true)->has_pinned_until()) << "until it is unpinned is longer than any";
  EXPECT_TRUE(Pin(ids_[0], hours(2))->has_pinned_until());
  EXPECT_FALSE(Pin(ids_[0], std::nullopt)->has_pinned_until());
  // One that has ended is no longer than any.
  ASSERT_TRUE(Pin(ids_[1], hours(1)).ok());
  clock_.Advance(hours(1));
  EXPECT_TRUE(Pin(ids_[1], seconds(1), true)->pinned_by_operator());
  // Out of the trash nothing is pinned, as before.
  EXPECT_EQ(Delete(ids_[1]), "SNAPSHOT_PINNED");
  clock_.Advance(seconds(1));
  EXPECT_EQ(Delete(ids_[1]), "");
  v1::RestoreTrashRequest back;
  back.set_snapshot(ids_[1]);
  EXPECT_FALSE(admin_->RestoreTrash(back)->snapshot().pinned_by_operator());
  EXPECT_EQ(ReasonOf(Pin(ids_[1], seconds(0)).status()), "DURATION_OUT_OF_RANGE");
  EXPECT_EQ(ReasonOf(Pin(ids_[1], hours(24 * 366 * 101)).status()), "DURATION_OUT_OF_RANGE");
}

TEST_F(PinLimitsTest, AClockThatJumpsEndsNoPin) {
  const SystemTime until = FromProtoTime(Pin(ids_[0], hours(24 * 30))->pinned_until());
  clock_.JumpSystem(hours(24 * 365));
  EXPECT_EQ(Delete(ids_[0]), "SNAPSHOT_PINNED");
  EXPECT_TRUE(Verdict(ids_[0]).keep());
  EXPECT_TRUE(snapshots_->Resolve(ids_[0])->pinned_by_operator());
  EXPECT_EQ(ReasonOf(time_->Trusted().status()), "CLOCK_ON_HOLD") << "no retention runs";
  // Nobody knows when thirty days will have passed.
  const auto other = Pin(ids_[1], hours(24 * 30));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_TRUE(other->pinned_by_operator());
  EXPECT_FALSE(other->has_pinned_until());
  // In 1970 as well, and when it is right again.
  clock_.JumpSystem(-(clock_.Now() - FromUnixMillis(1'000'000)));
  EXPECT_EQ(Delete(ids_[0]), "SNAPSHOT_PINNED");
  clock_.JumpSystem(until - clock_.Now() - hours(24 * 30));
  EXPECT_TRUE(time_->Trusted().ok());
  EXPECT_EQ(FromProtoTime(snapshots_->Resolve(ids_[0])->pinned_until()), until);
  clock_.Advance(hours(24 * 30));
  EXPECT_EQ(Delete(ids_[0]), "");
}

// Older programs read `pinned` alone: what they do not know makes a pin longer, never shorter.
TEST_F(PinLimitsTest, MarksSayWhenItEnds) {
  ASSERT_TRUE(marks_->WriteDue().ok());
  const SystemTime until = FromUnixMillis(ToUnixMillis(clock_.Now() + hours(2)));
  ASSERT_TRUE(deletions_->SetPinned(SnapshotId(ids_[0]), true, {.until = until}).ok());
  ASSERT_TRUE(deletions_->SetPinned(SnapshotId(ids_[1]), true).ok());
  auto due = deletions_->DueMarks(10);
  ASSERT_EQ(due->size(), 2U);
  EXPECT_TRUE((*due)[0].mark.pinned());
  EXPECT_EQ((*due)[0].mark.pinned_until_ms(), ToUnixMillis(until));
  EXPECT_TRUE((*due)[1].mark.pinned());
  EXPECT_EQ((*due)[1].mark.pinned_until_ms(), 0) << "as marks were before: the field is not written";
  ASSERT_TRUE(deletions_->MarksWritten(*due).ok());
  // Another limit is another mark, the same one is none.
  ASSERT_TRUE(deletions_->SetPinned(SnapshotId(ids_[0]), true, {.until = until}).ok());
  EXPECT_EQ(deletions_->DueMarks(10)->size(), 0U);
  ASSERT_TRUE(deletions_->SetPinned(SnapshotId(ids_[0]), true, {.until = until + hours(1)}).ok());
  due = deletions_->DueMarks(10);
  ASSERT_EQ(due->size(), 1U);
  EXPECT_EQ((*due)[0].mark.pinned_until_ms(), ToUnixMillis(until + hours(1)));
  ASSERT_TRUE(deletions_->SetPinned(SnapshotId(ids_[0]), false).ok());
  due = deletions_->DueMarks(10);
  ASSERT_EQ(due->size(), 1U);
  EXPECT_FALSE((*due)[0].mark.pinned());
  EXPECT_EQ((*due)[0].mark.pinned_until_ms(), 0);
}

}  // namespace
}  // namespace litefleet::rpc
