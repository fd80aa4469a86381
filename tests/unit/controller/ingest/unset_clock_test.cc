// When a snapshot was taken of which the device knows no age: it was spooled before the machine was started again, and the clock may not
// have been set then.
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using std::chrono::seconds;

class UnsetClockTest : public IngestTest {
 protected:
  // `at`: seconds of the device's clock.
  v1::Snapshot Upload(int64_t at) {
    return UploadCommit([at](v1::UploadCommit& commit) {
      commit.mutable_taken_at()->set_seconds(at);
      commit.clear_age();
    });
  }
  int64_t NowSeconds() const { return ToUnixMillis(clock_.Now()) / 1000; }
};

TEST_F(UnsetClockTest, OneOf1970IsNextToWhatIsKnown) {
  Open();
  path_->previous_contact = clock_.Now() - seconds(1000);
  const int64_t heard = NowSeconds() - 1000;
  // Of an agent that sends what its clock said.
  for (const int64_t at : {600, 1200}) {
    const v1::Snapshot told = Upload(at);
    EXPECT_EQ(told.taken_at().seconds(), heard) << at;
    EXPECT_EQ(told.effective_at().seconds(), heard) << at;
  }
  // Those that it has put between their neighbours stay there, for tiers as well.
  for (const int64_t ago : {700, 300}) {
    const v1::Snapshot told = Upload(NowSeconds() - ago);
    EXPECT_EQ(told.taken_at().seconds(), NowSeconds() - ago);
    EXPECT_EQ(told.effective_at().seconds(), NowSeconds() - ago);
  }
}

TEST_F(UnsetClockTest, WhatIsCountedBackFrom1970IsMadeRightByTheOffset) {
  Open();
  path_->previous_contact = clock_.Now() - seconds(1000);
  path_->clock_offset_ms = (NowSeconds() - 100) * 1000;  // its clock says 100 now
  const v1::Snapshot told = Upload(-200);
  EXPECT_EQ(told.taken_at().seconds(), NowSeconds() - 300);
  EXPECT_EQ(told.effective_at().seconds(), NowSeconds() - 300);
}

}  // namespace
}  // namespace litefleet::ingest
