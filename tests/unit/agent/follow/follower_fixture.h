// A follower, a fake controller and a place for databases.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_FOLLOWER_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_FOLLOWER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "agent/capture/lock_table.h"
#include "agent/follow/follower.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"
#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet::follow {

using capture::CaptureTest;
using std::chrono::milliseconds;

// The real one, which a test may put forward.
class TestClock final : public Clock {
 public:
  SystemTime Now() const override {
    const SystemTime now = real_.Now() + ahead() + std::chrono::nanoseconds(jumped_ns_.load());
    if (after_now) std::exchange(after_now, nullptr)();
    return now;
  }
  SteadyTime Steady() const override {
    ahead_ns_ += each_look_ns_;
    // Not within itself, nor by two threads at once.
    if (each_look_ns_ != 0 && on_look && !looking_.exchange(true)) {
      on_look();
      looking_ = false;
    }
    return real_.Steady() + ahead() + std::chrono::nanoseconds(steady_ahead_ns_.load());
  }
  std::chrono::nanoseconds SinceBoot() const override { return real_.SinceBoot() + ahead(); }
  void Advance(std::chrono::nanoseconds by) { ahead_ns_ += by.count(); }
  // Beside the times of files, which are real.
  void AdvanceSteady(std::chrono::nanoseconds by) { steady_ahead_ns_ += by.count(); }
  // The system time alone: somebody sets the clock.
  void JumpSystem(std::chrono::nanoseconds by) { jumped_ns_ += by.count(); }
  // It goes by that much each time it is looked at; 0: by itself.
  void EachLook(std::chrono::nanoseconds by) { each_look_ns_ = by.count(); }
  std::chrono::nanoseconds ahead() const { return std::chrono::nanoseconds(ahead_ns_.load()); }

  std::function<void()> on_look;            // while EachLook is set
  mutable std::function<void()> after_now;  // once: behind the next time that is said

 private:
  RealClock real_;
  mutable std::atomic<int64_t> ahead_ns_{0};
  std::atomic<int64_t> steady_ahead_ns_{0};
  std::atomic<int64_t> jumped_ns_{0};
  std::atomic<int64_t> each_look_ns_{0};
  mutable std::atomic<bool> looking_{false};
};

class Home final : public FollowerHome {
 public:
  uint64_t Timeline(const std::string&) override {
    if (on_timeline) std::exchange(on_timeline, nullptr)();
    return 1;
  }
  Rested Remembered(const std::string&) override { return rested; }
  void Remember(const std::string&, const Rested& now) override {
    rested = now;
    ++remembered;
  }
  void Gap(const std::string&, const Moment& from, const std::optional<Moment>& until, std::string_view reason,
           const std::string& message) override {
    last_gap = {from, until};
    gap_message = message;
    gaps.push_back(fmt::format("{}{}", reason, until.has_value() ? " ended" : ""));
  }
  void CheckChain(const v1::ChainCheck& check) override { chain_checks.push_back(check); }
  bool BeginTurn(Turn turn) override {
    if (turn == Turn::kDrain) return may_drain;
    if (on_begin_compare) std::exchange(on_begin_compare, nullptr)();
    return may_compare;
  }
  void EndTurn(Turn) override {}

  Rested rested;
  int remembered = 0;
  std::vector<std::string> gaps;
  std::pair<Moment, std::optional<Moment>> last_gap;
  std::string gap_message;  // of the last one
  std::vector<v1::ChainCheck> chain_checks;
  bool may_compare = true, may_drain = true;
  // Once: just before pages are compared or a database is proven, and before what is attached is read or sent.
  std::function<void()> on_begin_compare, on_timeline;
};

class FollowerTest : public CaptureTest {
 protected:
  explicit FollowerTest(const std::string& name = "app.db") : path_(Path(name)) { std::filesystem::create_directory(Path("state")); }

  void Make(uint32_t page_size = 4096, const std::string& more = "") {
    Sql(path_,
        fmt::format(
            "pragma page_size={}; {} pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'a')",
            page_size, more));
  }
  void Start() {
    ShipperOptions shipper;
    shipper.database = "app";
    shipper.ledger_file = Path("state/app.ledger");
    shipper.names_file = Path("state/app.names");
    shipper.spool_file = Path("state/app.spool");
    shipper.backup.attempt.no_progress = no_progress_;
    shipper.backup.spool.max_bytes = spool_bytes_;
    shipper.snapshots = snapshots_;
    shipper.spool_age = spool_age_;
    shipper.most_spooled = most_spooled_;
    shipper_ = std::make_unique<Shipper>(shipper, controller_, rate_, saved_turns_, clock_);
    FollowOptions options;
    options.database = "app";
    options.source = Options(configured_path_.empty() ? path_ : configured_path_);
    options.source.clock = &clock_;
    options.interval = interval_;
    options.attach_after = attach_after_;
    options.lease = lease_;
    options.checkpoint_bytes = checkpoint_bytes_;
    options.compare_rest = 0;
    options.behind_rest = behind_rest_;
    if (most_behind_ != 0) options.most_behind = options.most_behind_with_restart = most_behind_;
    options.prove_every = prove_every_;
    options.short_gap = short_gap_;
    options.never_settles = never_settles_;
    options.spool_after = spool_after_;
    options.allow_restart = allow_restart_;
    options.while_aside = [this] {
      if (const auto now = while_aside_) now();  // it may take itself away
    };
    follower_ = std::make_unique<Follower>(options, *shipper_, home_, clock_);
  }
  void Stop() {
    follower_.reset();
    shipper_.reset();
  }
  v1::CaptureState state() const { return follower_->status().health.state(); }
  uint32_t doubts() const { return follower_->status().health.doubts(); }

  // Steps until there is nothing to do.
  void Settle() {
    for (int i = 0; i < 400; ++i) {
      if (!follower_->Glance()) {
        // Detached: files have to rest for a while before anything is said of them.
        if (state() != v1::CAPTURE_STATE_FAILED) return;
      }
      follower_->Step(cancel_);
      if (state() == v1::CAPTURE_STATE_FOLLOWING && !follower_->Glance()) return;
      if (state() != v1::CAPTURE_STATE_FOLLOWING) std::this_thread::sleep_for(milliseconds(10));
    }
  }
  void StepUntil(v1::CaptureState wanted) {
    for (int i = 0; i < 400 && state() != wanted; ++i) {
      follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(10));
    }
  }
  // Steps where something is to be done, until `still` says false, or for a minute.
  void StepWhile(const std::function<bool()>& still) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (still() && std::chrono::steady_clock::now() < deadline) {
      if (follower_->Glance()) follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(2));
    }
  }
  // Steps until so many gaps have been told.
  void StepUntilGaps(size_t count) {
    StepWhile([&] { return home_.gaps.size() < count; });
    ASSERT_EQ(home_.gaps.size(), count);
  }
  void Attach() {
    Start();
    Settle();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
    // A look of less than a second ago counts, by a clock that no test puts forward: it may be that of another test, without this
    // application.
    capture::LocksOfLate(milliseconds(0));
    ExpectShipped();
  }
  // What the controller has is what the application has.
  void ExpectShipped() {
    const Bytes wanted = capture::CheckpointedBytes(path_);
    const std::string content = controller_.Content();
    ASSERT_EQ(content.size(), wanted.size());
    ASSERT_TRUE(content == AsText(wanted)) << "the contents differ";
    const v1::UploadCommit last = controller_.commits().back();
    format::RootBuilder root(last.page_size(), last.page_count());
    for (uint32_t extent = 0; extent < format::ExtentCount(last.page_size(), last.page_count()); ++extent) {
      root.Add(format::NameChunkOf(
          last.page_size(),
          AsBytes(content).subspan(size_t{extent} * format::kExtentBytes,
                                   size_t{format::PagesIn(last.page_size(), last.page_count(), extent)} * last.page_size())));
    }
    ASSERT_EQ(root.Finish().AsString(), last.root_digest()) << "the root is not that of the content";
  }

  const std::string path_;
  std::string configured_path_;  // where it leads to path_ by a link
  TestClock clock_;
  milliseconds interval_{100};
  milliseconds attach_after_{0};
  std::chrono::seconds lease_{30};
  uint64_t checkpoint_bytes_ = 4 << 20;
  milliseconds prove_every_ = std::chrono::hours(24);
  bool allow_restart_ = false;
  milliseconds behind_rest_{300};
  milliseconds short_gap_{15'000};
  milliseconds never_settles_{10'000};
  uint64_t most_behind_ = 0;  // 0: as users have it
  spool::SnapshotSpool* snapshots_ = nullptr;
  uint64_t spool_bytes_ = 256 << 20;
  uint32_t most_spooled_ = 4096;
  milliseconds spool_age_{0};
  milliseconds no_progress_{2000};
  milliseconds spool_after_{10'000};
  std::function<void()> while_aside_;
  fakes::FakeUploadController controller_;
  RateLimit rate_{0};
  SavedTurns saved_turns_{1};
  CancelToken cancel_;
  Home home_;
  std::unique_ptr<Shipper> shipper_;
  std::unique_ptr<Follower> follower_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_FOLLOWER_FIXTURE_H_
