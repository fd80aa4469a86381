#include "agent/control/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kId[] = "01JDAAAAAAAAAAAAAAAAAAAAAA";

class FakeRunner final : public OperationRunner {
 public:
  absl::Status Accept(const v1::Order& order) override {
    if (!accept.ok()) return accept;
    accepted.push_back(order.operation_id());
    return absl::OkStatus();
  }
  void Cancel(const std::string& id) override { cancelled.push_back(id); }
  void ResultRecorded(const std::string& id) override { recorded.push_back(id); }
  void Plan(const v1::Query& query, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) override {
    if (query.restore_plan().database().empty()) return done(Error(absl::StatusCode::kNotFound, "DATABASE_UNKNOWN", "no"));
    v1::RestorePlan plan;
    plan.set_size_bytes(5);
    done(plan);
  }
  absl::Status accept;
  std::vector<std::string> accepted, cancelled, recorded;
};

class FakeHealth final : public HealthSource {
 public:
  v1::Hello MakeHello() override {
    v1::Hello hello;
    hello.set_protocol_version(1);
    return hello;
  }
  v1::Health MakeHealth() override {
    v1::Health health;
    health.set_free_bytes(++asked);
    return health;
  }
  void ChainChecked(const v1::ChainChecked& checked) override { gone.push_back("chain " + checked.snapshot_id()); }
  void SnapshotGone(const std::string& database, const std::string& snapshot_id) override { gone.push_back(database + " " + snapshot_id); }
  void PolicyReceived(const v1::DevicePolicy& policy) override { policies.push_back(policy.version()); }
  int asked = 0;
  std::vector<std::string> gone;
  std::vector<int64_t> policies;
};

class ControlSessionTest : public testing::Test {
 protected:
  void Welcome(std::chrono::milliseconds interval = seconds(30)) {
    session_.OnConnected();
    ASSERT_TRUE(session_.NextRequest(now_)->has_hello());
    EXPECT_FALSE(session_.NextRequest(now_)) << "nothing before the welcome";
    v1::ControlResponse response;
    *response.mutable_welcome()->mutable_health_interval() = ToProtoDuration(interval);
    ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  }
  v1::OperationResult Result(const std::string& id = kId) {
    v1::OperationResult result;
    result.set_operation_id(id);
    return result;
  }
  void Recorded(const std::string& id = kId) {
    v1::ControlResponse response;
    response.mutable_result_recorded()->set_operation_id(id);
    ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  }

  FakeRunner runner_;
  FakeHealth health_;
  std::vector<std::pair<uint64_t, v1::QueryResult>> answers_;
  ControlSession session_{runner_, health_,
                          [this](uint64_t stream, v1::QueryResult result) { answers_.emplace_back(stream, std::move(result)); }};
  SteadyTime now_{std::chrono::hours(5)};
};

TEST_F(ControlSessionTest, ReportsHealthAtTheIntervalOfTheWelcome) {
  Welcome(seconds(10));
  EXPECT_EQ(session_.NextDue(), now_ + seconds(10));
  EXPECT_FALSE(session_.NextRequest(now_ + milliseconds(9999)));
  EXPECT_TRUE(session_.NextRequest(now_ += seconds(10))->has_health());
  EXPECT_FALSE(session_.NextRequest(now_));
  EXPECT_TRUE(session_.NextRequest(now_ += seconds(11))->has_health());
}

TEST_F(ControlSessionTest, SaysAtOnceWhenHealthHasChanged) {
  Welcome(seconds(10));
  EXPECT_FALSE(session_.NextRequest(now_));
  session_.HealthChanged();
  EXPECT_LE(session_.NextDue(), now_);
  EXPECT_TRUE(session_.NextRequest(now_)->has_health());
  EXPECT_FALSE(session_.NextRequest(now_)) << "once";
}

TEST_F(ControlSessionTest, HandsOnThatASnapshotIsGone) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_snapshot_gone()->set_database("app");
  response.mutable_snapshot_gone()->set_snapshot_id(kId);
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_EQ(health_.gone, std::vector<std::string>{std::string("app ") + kId});
}

TEST_F(ControlSessionTest, ClampsTheInterval) {
  Welcome(milliseconds(0));
  EXPECT_EQ(session_.NextDue(), now_ + seconds(1));
}

TEST_F(ControlSessionTest, AcknowledgesAnOrderOnlyWhenItIsDurable) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_order()->set_operation_id(kId);
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_EQ(session_.NextRequest(now_)->order_accepted().operation_id(), kId);
  runner_.accept = Error(absl::StatusCode::kUnavailable, "STOPPING", "stopping");
  EXPECT_EQ(ReasonOf(session_.OnResponse(response, now_)), "STOPPING");
  EXPECT_FALSE(session_.NextRequest(now_));
}

TEST_F(ControlSessionTest, AnOrderThatCannotBeTakenOnEndsAndOthersGoOn) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_order()->set_operation_id(kId);
  runner_.accept = Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", "full");
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  const auto request = session_.NextRequest(now_);
  ASSERT_TRUE(request.has_value() && request->has_result());
  EXPECT_EQ(request->result().state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(request->result().error().info().reason(), "DISK_FULL");
  // It comes again, before the controller could record the result, and is not taken on after all.
  session_.OnDisconnected();
  runner_.accept = absl::OkStatus();
  Welcome();
  EXPECT_TRUE(session_.NextRequest(now_)->has_result());
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_TRUE(session_.NextRequest(now_)->has_order_accepted());
  EXPECT_TRUE(session_.NextRequest(now_)->has_result());
  EXPECT_FALSE(session_.NextRequest(now_));
  Recorded();
  EXPECT_TRUE(session_.idle());
}

TEST_F(ControlSessionTest, SendsResultsUntilTheyAreRecorded) {
  session_.OnResult(Result());
  Welcome();
  EXPECT_TRUE(session_.NextRequest(now_)->has_result());
  EXPECT_FALSE(session_.NextRequest(now_));
  EXPECT_FALSE(session_.idle());
  session_.OnDisconnected();
  EXPECT_FALSE(session_.NextRequest(now_));
  Welcome();
  EXPECT_TRUE(session_.NextRequest(now_)->has_result()) << "again on the next stream";
  Recorded();
  EXPECT_EQ(runner_.recorded, std::vector<std::string>{kId});
  EXPECT_TRUE(session_.idle());
  session_.OnDisconnected();
  Welcome();
  EXPECT_FALSE(session_.NextRequest(now_));
}

TEST_F(ControlSessionTest, AnEndedOrderThatComesAgainIsAnsweredByItsResult) {
  Welcome();
  session_.OnResult(Result());
  ASSERT_TRUE(session_.NextRequest(now_)->has_result());
  v1::ControlResponse response;
  response.mutable_order()->set_operation_id(kId);
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_TRUE(session_.NextRequest(now_)->has_order_accepted());
  EXPECT_TRUE(session_.NextRequest(now_)->has_result());
}

TEST_F(ControlSessionTest, SendsTheNewestProgressAboutOnceASecond) {
  Welcome();
  v1::OperationProgress progress;
  progress.set_operation_id(kId);
  for (int i = 1; i <= 3; ++i) {
    progress.mutable_progress()->set_done_bytes(i);
    session_.OnProgress(progress);
  }
  EXPECT_EQ(session_.NextRequest(now_)->progress().progress().done_bytes(), 3);
  progress.mutable_progress()->set_done_bytes(4);
  session_.OnProgress(progress);
  EXPECT_FALSE(session_.NextRequest(now_));
  EXPECT_LE(session_.NextDue(), now_ + seconds(1));
  EXPECT_EQ(session_.NextRequest(now_ += seconds(1))->progress().progress().done_bytes(), 4);
  EXPECT_TRUE(session_.NextRequest(now_ += seconds(1))->has_progress()) << "silence would look like a lost device";
  session_.OnResult(Result());
  EXPECT_TRUE(session_.NextRequest(now_)->has_result());
  session_.OnProgress(progress);
  EXPECT_FALSE(session_.NextRequest(now_ += seconds(1))) << "nothing after the result";
}

TEST_F(ControlSessionTest, AnswersQueriesOfThisStreamAlone) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_query()->set_query_id(3);
  response.mutable_query()->mutable_restore_plan()->set_database("app");
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  ASSERT_EQ(answers_.size(), 1u);
  session_.OnQueryResult(answers_[0].first, answers_[0].second);
  EXPECT_EQ(session_.NextRequest(now_)->query_result().restore_plan().size_bytes(), 5);
  response.mutable_query()->mutable_restore_plan()->set_database("");
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  session_.OnQueryResult(answers_[1].first, answers_[1].second);
  EXPECT_EQ(session_.NextRequest(now_)->query_result().error().info().reason(), "DATABASE_UNKNOWN");
  response.mutable_query()->clear_query();
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_EQ(session_.NextRequest(now_)->query_result().error().info().reason(), "QUERY_UNKNOWN");
  session_.OnDisconnected();
  Welcome();
  session_.OnQueryResult(answers_[0].first, answers_[0].second);
  EXPECT_FALSE(session_.NextRequest(now_));
}

TEST_F(ControlSessionTest, HandsCancelsOn) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_cancel()->set_operation_id(kId);
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_EQ(runner_.cancelled, std::vector<std::string>{kId});
  response.mutable_cancel()->set_operation_id("../../etc/passwd");
  EXPECT_EQ(ReasonOf(session_.OnResponse(response, now_)), "CONTROL_PROTOCOL");
}

TEST_F(ControlSessionTest, RefusesWhatIsAgainstTheProtocol) {
  session_.OnConnected();
  v1::ControlResponse response;
  response.mutable_order()->set_operation_id(kId);
  EXPECT_EQ(ReasonOf(session_.OnResponse(response, now_)), "CONTROL_PROTOCOL") << "before the welcome";
  Welcome();
  response.mutable_order()->set_operation_id("../x");
  EXPECT_EQ(ReasonOf(session_.OnResponse(response, now_)), "CONTROL_PROTOCOL");
  v1::ControlResponse welcome;
  welcome.mutable_welcome();
  EXPECT_EQ(ReasonOf(session_.OnResponse(welcome, now_)), "CONTROL_PROTOCOL");
  EXPECT_TRUE(runner_.accepted.empty());
}

TEST_F(ControlSessionTest, StopsReadingWhileAnswersAreNotTaken) {
  Welcome();
  v1::ControlResponse response;
  response.mutable_order()->set_operation_id(kId);
  for (size_t i = 0; i < ControlSession::kMaxAnswers; ++i) {
    EXPECT_TRUE(session_.ready_to_read());
    ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  }
  EXPECT_FALSE(session_.ready_to_read());
  EXPECT_TRUE(session_.NextRequest(now_));
  EXPECT_TRUE(session_.ready_to_read());
}

TEST_F(ControlSessionTest, APolicyIsAnsweredByHealthAtOnce) {
  Welcome();
  EXPECT_FALSE(session_.NextRequest(now_));
  v1::ControlResponse response;
  response.mutable_policy()->set_version(7);
  ASSERT_TRUE(session_.OnResponse(response, now_).ok());
  EXPECT_EQ(health_.policies, std::vector<int64_t>{7});
  const auto answer = session_.NextRequest(now_);
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->has_health());
}

// ---- gaps

class GapSessionTest : public ControlSessionTest {
 protected:
  static std::string MakeDirectory() {
    std::string path = testing::TempDir() + "/lf-session-gaps-XXXXXX";
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    return path;
  }
  static std::unique_ptr<state::GapBook> OpenBook(const std::string& path, const Clock* clock) {
    std::vector<std::string> damaged;
    return std::move(state::GapBook::Open(path, damaged, clock).value());
  }
  ~GapSessionTest() override { std::filesystem::remove_all(path_); }
  void Connect(int64_t offset_ms) {
    gap_session_.OnConnected();
    ASSERT_TRUE(gap_session_.NextRequest(now_)->has_hello());
    v1::ControlResponse response;
    *response.mutable_welcome()->mutable_health_interval() = ToProtoDuration(seconds(30));
    response.mutable_welcome()->set_clock_offset_ms(offset_ms);
    ASSERT_TRUE(gap_session_.OnResponse(response, now_).ok());
  }
  void GapRecorded(const std::string& id) {
    v1::ControlResponse response;
    response.mutable_gap_recorded()->set_gap_id(id);
    ASSERT_TRUE(gap_session_.OnResponse(response, now_).ok());
  }
  std::string Begin(int64_t at_ms, const std::string& database) {
    state::GapBook::Begun begun{.database = database, .from = FromUnixMillis(at_ms), .reason = "SPOOL_FULL", .message = ""};
    if (begun.from == clock_.Now()) begun.from_since_boot = clock_.SinceBoot();
    return gaps_->Begin(begun).value();
  }

  const std::string path_ = MakeDirectory();
  FakeClock clock_;
  const std::unique_ptr<state::GapBook> gaps_ = OpenBook(path_, &clock_);
  ControlSession gap_session_{runner_, health_, [](uint64_t, v1::QueryResult) {}, gaps_.get(), &clock_};
};

TEST_F(GapSessionTest, GapsGoOutOneAfterTheOtherByTheControllersClock) {
  const std::string first = Begin(1'000'000, "a");
  const std::string second = Begin(2'000'000, "b");
  Connect(5000);
  EXPECT_FALSE(gap_session_.idle());
  const auto request = gap_session_.NextRequest(now_);
  ASSERT_TRUE(request && request->has_gap());
  EXPECT_EQ(request->gap().gap().id(), first);
  EXPECT_EQ(TimestampMillis(request->gap().gap().from()), 1'005'000);
  EXPECT_FALSE(gap_session_.NextRequest(now_)) << "the first was not recorded yet";
  GapRecorded(first);
  EXPECT_EQ(gap_session_.NextRequest(now_)->gap().gap().id(), second);
  GapRecorded(second);
  EXPECT_TRUE(gap_session_.idle());
  EXPECT_FALSE(gap_session_.NextRequest(now_));
}

TEST_F(GapSessionTest, WhatWasNotRecordedIsToldOnTheNextStream) {
  const std::string id = Begin(1'000'000, "a");
  Connect(0);
  ASSERT_TRUE(gap_session_.NextRequest(now_)->has_gap());
  gap_session_.OnDisconnected();
  Connect(0);
  const auto again = gap_session_.NextRequest(now_);
  ASSERT_TRUE(again && again->has_gap());
  ASSERT_TRUE(gaps_->End(id, FromUnixMillis(3'000'000)).ok());
  GapRecorded(id);
  const auto ended = gap_session_.NextRequest(now_);
  ASSERT_TRUE(ended && ended->has_gap()) << "what was recorded is the gap before it ended";
  EXPECT_EQ(TimestampMillis(ended->gap().gap().until()), 3'000'000);
  GapRecorded("01JDAAAAAAAAAAAAAAAAAAAAAA");  // one that nobody asked about
  EXPECT_FALSE(std::filesystem::is_empty(path_));
  GapRecorded(id);
  EXPECT_TRUE(gap_session_.idle());
  EXPECT_TRUE(std::filesystem::is_empty(path_));
}

// A machine without a battery: it has connected before its clock was set, to the right time.
TEST_F(GapSessionTest, AClockThatIsSetAfterTheWelcomeMovesNoGap) {
  const int64_t year_ms = int64_t{365} * 86'400'000;
  const int64_t before_ms = ToUnixMillis(clock_.Now());
  const std::string before = Begin(before_ms, "a");
  Connect(year_ms);
  clock_.Advance(std::chrono::minutes(10));
  clock_.JumpSystem(std::chrono::hours(24 * 365));
  const int64_t after_ms = ToUnixMillis(clock_.Now());
  const std::string after = Begin(after_ms, "b");
  ASSERT_TRUE(gaps_->End(before, FromUnixMillis(after_ms)).ok());
  const auto first = gap_session_.NextRequest(now_);
  ASSERT_TRUE(first && first->has_gap());
  ASSERT_EQ(first->gap().gap().id(), before);
  EXPECT_EQ(TimestampMillis(first->gap().gap().from()), before_ms + year_ms) << "by a clock that was a year behind";
  EXPECT_EQ(TimestampMillis(first->gap().gap().until()), after_ms) << "by one that is right";
  GapRecorded(before);
  const auto second = gap_session_.NextRequest(now_);
  ASSERT_TRUE(second && second->has_gap());
  EXPECT_EQ(TimestampMillis(second->gap().gap().from()), after_ms);
  // The next hello is by the clock as it is now.
  gap_session_.OnDisconnected();
  Connect(0);
  const auto again = gap_session_.NextRequest(now_);
  ASSERT_TRUE(again && again->has_gap());
  EXPECT_EQ(TimestampMillis(again->gap().gap().from()), after_ms);
}

}  // namespace
}  // namespace litefleet::control
