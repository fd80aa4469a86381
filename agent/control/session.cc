#include "agent/control/session.h"

#include <google/protobuf/util/time_util.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::control {
namespace {

absl::Status Protocol(std::string_view what) {
  return Error(absl::StatusCode::kInternal, "CONTROL_PROTOCOL", fmt::format("the controller {}", what),
               "run the same release on both sides");
}

}  // namespace

void ControlSession::OnConnected() {
  ++stream_;
  connected_ = true;
  hello_sent_ = false;
  welcome_.reset();
  answers_.clear();
  gap_sent_.reset();
  unsent_results_.clear();
  for (const auto& [id, result] : results_) unsent_results_.insert(id);
  for (auto& [id, running] : progress_) running.announced = false;
}

void ControlSession::OnDisconnected() {
  connected_ = false;
  welcome_.reset();
  answers_.clear();
  gap_sent_.reset();
}

absl::Status ControlSession::OnResponse(const v1::ControlResponse& response, SteadyTime now) {
  if (!welcome_ && response.message_case() != v1::ControlResponse::kWelcome) return Protocol("did not begin with a welcome");
  switch (response.message_case()) {
    case v1::ControlResponse::kWelcome: {
      if (welcome_) return Protocol("sent a second welcome");
      welcome_ = response.welcome();
      const int64_t millis = google::protobuf::util::TimeUtil::DurationToMilliseconds(welcome_->health_interval());
      health_interval_ = std::clamp(std::chrono::milliseconds(millis), std::chrono::milliseconds(1000), std::chrono::milliseconds(3600000));
      health_due_ = now + health_interval_;
      return absl::OkStatus();
    }
    case v1::ControlResponse::kOrder:
      return OnOrder(response.order());
    case v1::ControlResponse::kResultRecorded: {
      const std::string& id = response.result_recorded().operation_id();
      results_.erase(id);
      unsent_results_.erase(id);
      runner_.ResultRecorded(id);
      return absl::OkStatus();
    }
    case v1::ControlResponse::kQuery:
      OnQuery(response.query());
      return absl::OkStatus();
    case v1::ControlResponse::kCancel:
      if (!IsUlid(response.cancel().operation_id())) return Protocol("cancelled something without an id");
      runner_.Cancel(response.cancel().operation_id());
      return absl::OkStatus();
    case v1::ControlResponse::kSnapshotGone:
      health_.SnapshotGone(response.snapshot_gone().database(), response.snapshot_gone().snapshot_id());
      return absl::OkStatus();
    case v1::ControlResponse::kPolicy:
      health_.PolicyReceived(response.policy());
      HealthChanged();
      return absl::OkStatus();
    case v1::ControlResponse::kGapRecorded:
      OnGapRecorded(response.gap_recorded().gap_id());
      return absl::OkStatus();
    case v1::ControlResponse::kChainChecked:
      health_.ChainChecked(response.chain_checked());
      return absl::OkStatus();
    default:
      return absl::OkStatus();  // of a later version
  }
}

absl::Status ControlSession::OnOrder(const v1::Order& order) {
  if (!IsUlid(order.operation_id())) return Protocol("gave an order without an id");
  // It may have ended before this stream began.
  const bool ended = results_.contains(order.operation_id());
  if (const absl::Status taken = ended ? absl::OkStatus() : runner_.Accept(order); !taken.ok()) {
    // An agent that stops takes it with the next stream. One whose disk or queue is full says so: the order ends, and others go on.
    if (absl::IsUnavailable(taken)) return taken;
    spdlog::warn("operation {} was not taken on: {}", order.operation_id(), MessageOf(taken));
    v1::OperationResult& refused = results_[order.operation_id()];
    refused.set_operation_id(order.operation_id());
    refused.set_state(v1::OPERATION_STATE_FAILED);
    *refused.mutable_error() = ToErrorDetail(Annotate(taken, "the device could not take the order on"));
    unsent_results_.insert(order.operation_id());
    return absl::OkStatus();
  }
  v1::ControlRequest answer;
  answer.mutable_order_accepted()->set_operation_id(order.operation_id());
  answers_.push_back(std::move(answer));
  if (ended) unsent_results_.insert(order.operation_id());
  return absl::OkStatus();
}

void ControlSession::OnQuery(const v1::Query& query) {
  const uint64_t stream = stream_;
  const uint64_t id = query.query_id();
  if (query.query_case() == v1::Query::QUERY_NOT_SET) {
    v1::QueryResult result;
    result.set_query_id(id);
    *result.mutable_error() =
        ToErrorDetail(Error(absl::StatusCode::kUnimplemented, "QUERY_UNKNOWN", "this agent does not know the question"));
    OnQueryResult(stream, std::move(result));
    return;
  }
  runner_.Plan(query, [done = plan_done_, stream, id](absl::StatusOr<v1::RestorePlan> plan) {
    v1::QueryResult result;
    result.set_query_id(id);
    if (plan.ok()) {
      *result.mutable_restore_plan() = *std::move(plan);
    } else {
      *result.mutable_error() = ToErrorDetail(plan.status());
    }
    done(stream, std::move(result));
  });
}

void ControlSession::OnQueryResult(uint64_t stream, v1::QueryResult result) {
  if (!connected_ || stream != stream_) return;
  v1::ControlRequest answer;
  *answer.mutable_query_result() = std::move(result);
  answers_.push_back(std::move(answer));
}

void ControlSession::OnProgress(const v1::OperationProgress& progress) {
  if (results_.contains(progress.operation_id())) return;
  Running& running = progress_[progress.operation_id()];
  running.progress = progress;
}

void ControlSession::OnResult(const v1::OperationResult& result) {
  progress_.erase(result.operation_id());
  results_[result.operation_id()] = result;
  unsent_results_.insert(result.operation_id());
}

std::optional<v1::ControlRequest> ControlSession::NextRequest(SteadyTime now) {
  if (!connected_) return std::nullopt;
  v1::ControlRequest request;
  if (!hello_sent_) {
    *request.mutable_hello() = health_.MakeHello();
    hello_base_ = ClockBase();
    hello_sent_ = true;
    return request;
  }
  if (!welcome_) return std::nullopt;
  if (!answers_.empty()) {
    request = std::move(answers_.front());
    answers_.pop_front();
    return request;
  }
  if (!unsent_results_.empty()) {
    *request.mutable_result() = results_[*unsent_results_.begin()];
    unsent_results_.erase(unsent_results_.begin());
    return request;
  }
  if (auto gap = NextGap()) return gap;
  if (auto progress = NextProgress(now)) return progress;
  if (!chain_checks_.empty()) {
    *request.mutable_chain_check() = std::move(chain_checks_.extract(chain_checks_.begin()).mapped());
    return request;
  }
  if (now >= health_due_) {
    health_due_ = now + health_interval_;
    *request.mutable_health() = health_.MakeHealth();
    return request;
  }
  return std::nullopt;
}

std::optional<v1::ControlRequest> ControlSession::NextProgress(SteadyTime now) {
  for (auto& [id, running] : progress_) {
    // At least once a second, also when nothing moves: silence would look like a lost device.
    if (running.announced && now - running.sent_at < kProgressInterval) continue;
    v1::ControlRequest request;
    *request.mutable_progress() = running.progress;
    running.announced = true;
    running.sent_at = now;
    return request;
  }
  return std::nullopt;
}

std::optional<v1::ControlRequest> ControlSession::NextGap() {
  if (gaps_ == nullptr || gap_sent_) return std::nullopt;
  gap_sent_ = gaps_->NextUnrecorded();
  if (!gap_sent_) return std::nullopt;
  v1::ControlRequest request;
  v1::CoverageGap& gap = *request.mutable_gap()->mutable_gap();
  // The welcome compared the clock of the hello, which may have been set since.
  gap = gaps_->OnThisClock(*gap_sent_, std::chrono::milliseconds(welcome_->clock_offset_ms()) - (ClockBase() - hello_base_));
  return request;
}

std::chrono::milliseconds ControlSession::ClockBase() const {
  if (clock_ == nullptr) return std::chrono::milliseconds(0);
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock_->Now().time_since_epoch() - clock_->SinceBoot());
}

void ControlSession::OnGapRecorded(const std::string& id) {
  if (!gap_sent_ || gap_sent_->id() != id) return;
  if (const absl::Status status = gaps_->Recorded(*gap_sent_); !status.ok()) {
    // It is told again on the next stream, not at once: a full disk does not make a loop.
    spdlog::error("that the controller has recorded gap {} could not be kept: {}", id, MessageOf(status));
    return;
  }
  gap_sent_.reset();
}

SteadyTime ControlSession::NextDue() const {
  if (!connected_ || !welcome_) return SteadyTime::max();
  SteadyTime due = health_due_;
  for (const auto& [id, running] : progress_)
    due = std::min(due, running.announced ? running.sent_at + kProgressInterval : SteadyTime::min());
  return due;
}

}  // namespace litefleet::control
