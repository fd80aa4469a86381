// A follower whose syncs wait in a spool while the controller cannot be reached.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_SPOOLING_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_SPOOLING_FIXTURE_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "agent/spool/snapshot_spool.h"
#include "common/base/proto_time.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {

class SpoolingTest : public FollowerTest {
 protected:
  SpoolingTest() {
    std::filesystem::create_directory(Path("state/gaps"));
    OpenSpool();
    // What the controller had before the next upload began.
    controller_.on_request = [this](const v1::UploadRequest& request) {
      if (request.has_begin()) Note();
      return on_begin_ && request.has_begin() ? on_begin_(request.begin()) : absl::OkStatus();
    };
  }
  void OpenSpool(const std::string& boot_id = BootId()) {
    spool_.reset();
    gaps_.reset();
    std::vector<std::string> damaged;
    auto gaps = state::GapBook::Open(Path("state/gaps"), damaged);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    said_.clear();
    auto spool = spool::SnapshotSpool::Open(Path("state/spooled"), *gaps_, clock_, said_, boot_id);
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    snapshots_ = spool_.get();
  }
  // What `app_` has open is followed, and then the controller is away.
  void FollowOffline() {
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run("insert into t values(2, 'b')");
    Attach();
    controller_.connected = false;
  }
  void Note() {
    const size_t commits = controller_.commits().size();
    if (commits > 0 && commits != arrived_.size()) arrived_.resize(commits), arrived_.back() = controller_.Content();
  }
  uint32_t Spooled() const { return spool_->UsageOf("app").snapshots; }
  // Commits, and steps once: the sync goes into the spool.
  void Sync(Application& app, const std::string& sql) {
    app.Run(sql);
    const uint32_t before = Spooled();
    for (int i = 0; i < 200 && Spooled() == before; ++i) {
      if (follower_->Glance()) follower_->Step(cancel_);
      if (Spooled() == before) std::this_thread::sleep_for(milliseconds(5));
    }
    ASSERT_EQ(Spooled(), before + 1) << sql;
    wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  }
  void StepUntilDrained() {
    controller_.connected = true;
    StepWhile([&] { return Spooled() > 0; });
    ASSERT_EQ(Spooled(), 0u);
    Note();
  }
  // The last ones that the controller made are those that were wanted, in their order, and so are their times.
  void ExpectArrived() {
    const auto commits = controller_.commits();
    ASSERT_GE(commits.size(), wanted_.size());
    const size_t first = commits.size() - wanted_.size();
    for (size_t i = 0; i < wanted_.size(); ++i) {
      ASSERT_TRUE(arrived_[first + i] == wanted_[i]) << "state " << i << " of " << wanted_.size();
      if (first + i > 0) {
        EXPECT_GE(TimestampMillis(commits[first + i].taken_at()), TimestampMillis(commits[first + i - 1].taken_at()));
      }
    }
  }
  std::vector<std::string> Reasons() const {
    std::vector<std::string> reasons;
    for (const v1::CoverageGap& gap : gaps_->OpenGaps("")) reasons.push_back(gap.reason());
    return reasons;
  }

  std::function<absl::Status(const v1::UploadBegin&)> on_begin_;
  std::vector<std::string> wanted_;   // contents
  std::vector<std::string> arrived_;  // by commit; empty where nobody looked
  std::vector<std::string> said_;
  std::unique_ptr<Application> app_;
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<spool::SnapshotSpool> spool_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_SPOOLING_FIXTURE_H_
