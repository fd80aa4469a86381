// How far a restore is, on its whole way: the device's restorer, its control session, the controller's fleet, whoever watches. All by one
// clock that stands still until the test moves it.
#include <gmock/gmock.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/control/session.h"
#include "agent/restore/local_restorer.h"
#include "tests/unit/agent/restore/restore_fixture.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;

constexpr milliseconds kTick{100};

class Runner final : public control::OperationRunner {
 public:
  absl::Status Accept(const v1::Order& order) override {
    accepted = order;
    return absl::OkStatus();
  }
  void Cancel(const std::string&) override {}
  void ResultRecorded(const std::string&) override {}
  void Plan(const v1::Query&, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)>) override {}

  std::optional<v1::Order> accepted;
};

class Health final : public control::HealthSource {
 public:
  explicit Health(const Clock& clock) : clock_(clock) {}
  v1::Hello MakeHello() override {
    v1::Hello hello;
    hello.set_protocol_version(1);
    *hello.mutable_device_time() = ToProtoTime(clock_.Now());
    return hello;
  }
  v1::Health MakeHealth() override { return {}; }
  void SnapshotGone(const std::string&, const std::string&) override {}
  void PolicyReceived(const v1::DevicePolicy&) override {}
  void ChainChecked(const v1::ChainChecked&) override {}

 private:
  const Clock& clock_;
};

// A snapshot on the device's side of a slow link.
class Device final : public restore::RestoreFixture {
 public:
  Device() { RestoreFixture::SetUp(); }
  ~Device() override { RestoreFixture::TearDown(); }
  void TestBody() override {}
  using RestoreFixture::fetcher_;
  using RestoreFixture::folder_;
  using RestoreFixture::MakeSnapshot;
  using RestoreFixture::order_;
  using RestoreFixture::target_;
};

class SlowFetcher final : public restore::PageFetcher {
 public:
  SlowFetcher(restore::PageFetcher& inner, std::function<void()> before_extent) : inner_(inner), before_extent_(std::move(before_extent)) {}
  absl::Status Fetch(const std::string& operation, const v1::RestoreOrder& order, uint32_t first, const CancelToken& cancel,
                     const std::function<absl::Status(const restore::FetchedExtent&)>& sink) override {
    return inner_.Fetch(operation, order, first, cancel, [&](const restore::FetchedExtent& extent) {
      before_extent_();
      return sink(extent);
    });
  }
  absl::Status FetchNames(const std::string&, const v1::RestoreOrder&, const CancelToken&,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>&) override {
    return absl::UnimplementedError("all of it is fetched");
  }
  absl::Status FetchPages(const std::string&, const v1::RestoreOrder&, const restore::WantedPages&, const CancelToken&,
                          const std::function<absl::Status(const restore::FetchedPages&)>&) override {
    return absl::UnimplementedError("all of it is fetched");
  }

 private:
  restore::PageFetcher& inner_;
  const std::function<void()> before_extent_;
};

class RestoreProgressTest : public fleet::FleetTest {
 protected:
  struct Seen {
    SteadyTime at;
    v1::Operation operation;
  };

  void SetUp() override {
    FleetTest::SetUp();
    device_.MakeSnapshot("delete", 12'000);
    session_.OnConnected();
    v1::ControlRequest hello = *session_.NextRequest(clock_.Steady());
    ASSERT_TRUE(fleet_->Connected(kDevice, link_, hello.hello()).ok());
    Exchange();
    ASSERT_TRUE(session_.welcomed());
  }

  // What each side has for the other at this moment.
  void Exchange() {
    for (bool more = true; more;) {
      more = false;
      for (const v1::ControlResponse& message : link_->Take()) {
        ASSERT_TRUE(session_.OnResponse(message, clock_.Steady()).ok());
        more = true;
      }
      while (const std::optional<v1::ControlRequest> request = session_.NextRequest(clock_.Steady())) {
        if (request->has_progress()) ++sent_;
        ASSERT_TRUE(fleet_->Received(kDevice, *link_, *request).ok());
        more = true;
      }
    }
  }
  // As the agent's loop does, which sleeps until something is due.
  void Pass(milliseconds time) {
    for (milliseconds passed{0}; passed < time; passed += kTick) {
      clock_.Advance(kTick);
      if (session_.NextDue() <= clock_.Steady()) Exchange();
    }
  }
  // Orders it, carries it out with `link` before each extent, and watches.
  void Restore(std::function<void()> link) {
    auto ordered = fleet_->StartRestore(kDevice, device_.order_, std::chrono::hours(1), "", "operator:ada");
    ASSERT_TRUE(ordered.ok()) << ordered.status();
    id_ = ordered->id();
    Exchange();
    ASSERT_TRUE(runner_.accepted.has_value());
    auto watch = fleet_->Watch(OperationId(id_), [this](const v1::Operation& now) { seen_.push_back({clock_.Steady(), now}); });
    ASSERT_TRUE(watch.ok()) << watch.status();
    began_ = clock_.Steady();
    sent_ = 0;

    SlowFetcher fetcher(device_.fetcher_, std::move(link));
    restore::RestorerOptions options;
    options.state_folder = device_.folder_ + "/state";
    options.now = [this] { return clock_.Steady(); };
    auto restorer = restore::LocalRestorer::Open(options, fetcher);
    ASSERT_TRUE(restorer.ok()) << restorer.status();
    v1::OperationProgress report;
    report.set_operation_id(id_);
    report.set_kind(v1::OPERATION_KIND_RESTORE);
    report.set_database("app");
    const restore::Outcome outcome =
        (*restorer)->Run(id_, runner_.accepted->restore(), device_.target_, CancelToken(), [&](const v1::Progress& now) {
          *report.mutable_progress() = now;
          reports_of_restore_.push_back(clock_.Steady());
          session_.OnProgress(report);
          Exchange();
        });
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    v1::OperationResult result;
    result.set_operation_id(id_);
    result.set_kind(v1::OPERATION_KIND_RESTORE);
    result.set_database("app");
    result.set_state(v1::OPERATION_STATE_SUCCEEDED);
    *result.mutable_progress() = report.progress();
    session_.OnResult(result);
    Exchange();
  }
  // As `operation show` has it now.
  v1::Operation Shown() {
    v1::Operation operation = Stored(id_);
    fleet_->FillLive(operation);
    return operation;
  }
  // Somebody who watches is told something once a second, and never less than before.
  void ExpectSteady() const {
    int64_t done = 0;
    SteadyTime last = began_;
    for (const Seen& each : seen_) {
      EXPECT_LE(each.at - last, seconds(1)) << "silence at " << (each.at - began_) / milliseconds(1) << " ms";
      EXPECT_GE(each.operation.progress().done_bytes(), done);
      last = each.at;
      done = each.operation.progress().done_bytes();
    }
    ASSERT_FALSE(seen_.empty());
    const v1::Operation& end = seen_.back().operation;
    EXPECT_EQ(end.state(), v1::OPERATION_STATE_SUCCEEDED);
    EXPECT_EQ(end.progress().done_bytes(), end.progress().total_bytes());
    EXPECT_EQ(end.progress().total_bytes(), int64_t{device_.order_.page_count()} * device_.order_.page_size());
  }

  Device device_;
  Runner runner_;
  Health health_{clock_};
  control::ControlSession session_{runner_, health_, [](uint64_t, v1::QueryResult) {}};
  const std::shared_ptr<fleet::FakeLink> link_ = std::make_shared<fleet::FakeLink>();
  std::string id_;
  SteadyTime began_{};
  std::vector<Seen> seen_;
  std::vector<SteadyTime> reports_of_restore_;
  int sent_ = 0;  // messages with progress
};

TEST_F(RestoreProgressTest, IsToldOnceASecondWhateverThePaceOfTheRestore) {
  std::vector<int64_t> shown;
  Restore([&] {
    Pass(milliseconds(300));
    shown.push_back(Shown().progress().done_bytes());
  });
  ExpectSteady();
  const auto took = clock_.Steady() - began_;
  ASSERT_GE(took, seconds(3)) << "too short a restore to tell";
  EXPECT_LE(sent_, took / control::ControlSession::kProgressInterval + 1) << "a fast one costs no more messages than a slow one";
  EXPECT_GE(sent_, took / seconds(1));
  // The view of the operation has what was told last, and is not of the end alone.
  EXPECT_TRUE(std::is_sorted(shown.begin(), shown.end()));
  EXPECT_GT(shown.back(), shown.front());
  EXPECT_THAT(shown, Contains(testing::AllOf(testing::Gt(0), testing::Lt(Shown().progress().total_bytes()))));
}

// The device is there, and only what it waits for is not: it says so.
TEST_F(RestoreProgressTest, AFetchThatStandsStillIsToldAsSuchEverySecond) {
  bool stalled = false;
  Restore([&] {
    if (std::exchange(stalled, true)) return;
    Pass(seconds(20));
  });
  ExpectSteady();
  EXPECT_GE(sent_, 20);
}

// One without any delay is told where it begins, at its phases, and at its end.
TEST_F(RestoreProgressTest, TheRestorerItselfReportsFiveTimesASecondAtMost) {
  Restore([&] { Pass(kTick); });
  ExpectSteady();
  size_t in_phases = 0;
  for (size_t i = 1; i < reports_of_restore_.size(); ++i) {
    if (reports_of_restore_[i] - reports_of_restore_[i - 1] < milliseconds(200)) ++in_phases;
  }
  EXPECT_LE(in_phases, 6U) << "but for the beginnings of phases and the end";
}

}  // namespace
}  // namespace litefleet
