// What the loop waits between connections, on a clock that goes on at each look and with streams that end when the test says so.
#include "agent/control/control_loop.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::control {
namespace {

using std::chrono::milliseconds;

// Far in the past of the real one, so that no wait for one of its times takes any.
class TickingClock final : public Clock {
 public:
  static constexpr milliseconds kTick{20};

  SystemTime Now() const override { return SystemTime(Passed()); }
  SteadyTime Steady() const override { return SteadyTime(Passed()); }
  std::chrono::nanoseconds SinceBoot() const override { return Passed(); }
  void Advance(milliseconds by) { passed_ += by.count(); }
  void SetTicking(bool ticking) { ticking_ = ticking; }

 private:
  milliseconds Passed() const { return milliseconds(ticking_ ? passed_ += kTick.count() : passed_.load()); }
  mutable std::atomic<int64_t> passed_{-int64_t{3'600'000} * 24 * 365};
  std::atomic<bool> ticking_{true};
};

class NoRunner final : public OperationRunner {
 public:
  absl::Status Accept(const v1::Order&) override { return absl::OkStatus(); }
  void Cancel(const std::string&) override {}
  void ResultRecorded(const std::string&) override {}
  void Plan(const v1::Query&, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)>) override {}
};

class NoHealth final : public HealthSource {
 public:
  v1::Hello MakeHello() override { return {}; }
  v1::Health MakeHealth() override { return {}; }
  void SnapshotGone(const std::string&, const std::string&) override {}
  void PolicyReceived(const v1::DevicePolicy&) override {}
  void ChainChecked(const v1::ChainChecked&) override {}
};

// One attempt of a round: it fails, or it is welcomed and the connection ends after a time. `cap` bounds the delay that follows.
struct Attempt {
  milliseconds connected;
  milliseconds cap;
};
constexpr milliseconds kFails{-1};

class ScriptedConnector final : public ControlConnector {
 public:
  ScriptedConnector(TickingClock& clock, std::vector<Attempt> script, size_t rounds)
      : clock_(clock), script_(std::move(script)), attempts_(rounds * script_.size()), delays_(script_.size()) {}

  absl::StatusOr<std::shared_ptr<ControlStream>> Open(std::shared_ptr<ControlEvents> events) override {
    const SteadyTime now = clock_.Steady();
    if (opened_ > 0 && opened_ <= attempts_) {
      delays_[(opened_ - 1) % script_.size()].push_back(std::chrono::duration_cast<milliseconds>(now - ended_));
      if (opened_ == attempts_) {
        MutexLock lock(mu_);
        done_ = true;
        changed_.SignalAll();
      }
    }
    const Attempt& attempt = script_[opened_++ % script_.size()];
    ended_ = now;
    if (attempt.connected == kFails) return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", "nobody is there");
    clock_.SetTicking(false);  // a connection lasts exactly as long as the script says
    connected_ = attempt.connected;
    events_ = std::move(events);
    return std::make_shared<Stream>(events_);
  }
  void Welcomed() override {
    clock_.Advance(connected_);
    events_->OnClosed(Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", "the connection was cut"));
  }
  void Closed() override {
    ended_ = clock_.Steady();
    clock_.SetTicking(true);
  }

  void Wait() {
    MutexLock lock(mu_);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (!done_) ASSERT_TRUE(changed_.WaitUntil(mu_, deadline) || done_) << "after " << opened_ << " attempts";
  }
  // After the loop has stopped.
  const std::vector<milliseconds>& DelaysAfter(size_t attempt) const { return delays_[attempt]; }

 private:
  class Stream final : public ControlStream {
   public:
    explicit Stream(std::shared_ptr<ControlEvents> events) : events_(std::move(events)) {}
    void Start() override {
      v1::ControlResponse response;
      *response.mutable_welcome()->mutable_health_interval() = ToProtoDuration(std::chrono::hours(1));
      events_->OnResponse(std::move(response));
    }
    void ReadMore() override {}
    void Write(v1::ControlRequest) override { events_->OnWritten(); }
    void Cancel() override {}

   private:
    const std::shared_ptr<ControlEvents> events_;
  };

  TickingClock& clock_;
  const std::vector<Attempt> script_;
  const size_t attempts_;
  // Of the loop's thread.
  std::vector<std::vector<milliseconds>> delays_;
  std::shared_ptr<ControlEvents> events_;
  milliseconds connected_{0};
  SteadyTime ended_;
  std::atomic<size_t> opened_{0};

  Mutex mu_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
};

TEST(ControlLoopTest, WaitsFromOneSecondDoublingToSixtyWithFullJitterAndAnewAfterSixtyConnected) {
  constexpr size_t kRounds = 60;
  const auto ms = [](int64_t count) { return milliseconds(count); };
  const std::vector<Attempt> script = {{ms(60000), ms(1000)}, {kFails, ms(2000)},  {kFails, ms(4000)},     {kFails, ms(8000)},
                                       {kFails, ms(16000)},   {kFails, ms(32000)}, {ms(59900), ms(60000)}, {kFails, ms(60000)}};
  // 59.9 s are short of the 60 s by more than the clock goes on while the loop comes to the delay.
  TickingClock clock;
  NoRunner runner;
  NoHealth health;
  ScriptedConnector connector(clock, script, kRounds);
  ControlLoop loop(health, connector, clock, {});
  spdlog::set_level(spdlog::level::err);  // a thousand attempts are no news
  loop.Start(runner);
  connector.Wait();
  loop.Stop();
  spdlog::set_level(spdlog::level::info);
  EXPECT_GE(loop.state().connections, 2 * kRounds);
  for (size_t i = 0; i < script.size(); ++i) {
    const std::vector<milliseconds>& delays = connector.DelaysAfter(i);
    ASSERT_EQ(delays.size(), kRounds);
    const auto [least, most] = std::minmax_element(delays.begin(), delays.end());
    const milliseconds cap = script[i].cap;
    EXPECT_GT(least->count(), 0) << "after attempt " << i;
    EXPECT_LE(*most, cap + 4 * TickingClock::kTick) << "after attempt " << i;
    // All of the span is used: sixty draws without one in either end of it are one run of billions.
    EXPECT_GT(*most, cap * 7 / 10) << "after attempt " << i;
    EXPECT_LT(*least, cap * 3 / 10 + 4 * TickingClock::kTick) << "after attempt " << i;
  }
}

}  // namespace
}  // namespace litefleet::control
