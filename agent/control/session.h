// The agent's end of one control stream as a state machine, without gRPC, threads or clocks.
//
//   hello -> welcome -> orders, cancels, queries | health, acknowledgements, progress, results
//
// What it keeps between streams is only what is worth sending again: results that the controller has not recorded, and the newest
// progress of each operation. Coverage gaps are taken from their book one at a time: the next goes out when the last one is recorded.
// Outbound order: hello first, then answers, results, gaps, progress, checks of chains, health. The queue of answers is bounded: while
// it is full nothing more is read (ready_to_read()).
//
// Thread safety: none. Errors: what the peer does against the protocol is kInternal CONTROL_PROTOCOL and ends the stream.
#ifndef LITEFLEET_AGENT_CONTROL_SESSION_H_
#define LITEFLEET_AGENT_CONTROL_SESSION_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/control/operation_runner.h"
#include "agent/state/gap_book.h"
#include "common/base/clock.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::control {

// Facts about the device at the time of the call.
class HealthSource {
 public:
  virtual ~HealthSource() = default;
  virtual v1::Hello MakeHello() = 0;
  virtual v1::Health MakeHealth() = 0;
  // The controller does not have, or cannot restore, the snapshot that was reported as the last one of the database.
  virtual void SnapshotGone(const std::string& database, const std::string& snapshot_id) = 0;
  // What rules the device from now on; the next health acknowledges it.
  virtual void PolicyReceived(const v1::DevicePolicy& policy) = 0;
  // The answer to a check of a chain.
  virtual void ChainChecked(const v1::ChainChecked& checked) = 0;
};

class ControlSession {
 public:
  static constexpr size_t kMaxAnswers = 64;
  static constexpr std::chrono::milliseconds kProgressInterval{900};

  // `plan_done` is called with the answer to a query, on another thread; whoever drives this brings it back by OnQueryResult. `gaps` may be
  // null, and so may `clock`: then the device's clock counts as one that nobody sets while a stream lasts. The references outlive the
  // session.
  ControlSession(OperationRunner& runner, HealthSource& health, std::function<void(uint64_t stream, v1::QueryResult)> plan_done,
                 state::GapBook* gaps = nullptr, const Clock* clock = nullptr)
      : runner_(runner), health_(health), plan_done_(std::move(plan_done)), gaps_(gaps), clock_(clock) {}

  // A new stream is there: hello is due.
  void OnConnected();
  void OnDisconnected();
  absl::Status OnResponse(const v1::ControlResponse& response, SteadyTime now);
  // From the runner.
  void OnProgress(const v1::OperationProgress& progress);
  void OnResult(const v1::OperationResult& result);
  // The operation has no result, and nothing more to tell.
  void OnDropped(const std::string& operation_id) { progress_.erase(operation_id); }
  // To be sent once, on this stream or the next one; the newest of a database replaces one that was not sent.
  void OnChainCheck(const v1::ChainCheck& check) { chain_checks_[check.database()] = check; }
  // An answer to a query of stream number `stream`; a later stream drops it.
  void OnQueryResult(uint64_t stream, v1::QueryResult result);

  // Something that health tells of has changed: it is due at once.
  void HealthChanged() { health_due_ = {}; }

  // The next message, if one is due.
  std::optional<v1::ControlRequest> NextRequest(SteadyTime now);
  // When NextRequest may have something although nothing happened.
  SteadyTime NextDue() const;

  bool ready_to_read() const { return answers_.size() < kMaxAnswers; }
  bool welcomed() const { return welcome_.has_value(); }
  // REQUIRES: welcomed().
  const v1::Welcome& welcome() const { return *welcome_; }
  // Nothing is left that the controller should hear of.
  bool idle() const {
    // A controller of an older release never says that it has recorded a gap.
    return answers_.empty() && unsent_results_.empty() && results_.empty() && progress_.empty() &&
           (gaps_ == nullptr || gap_sent_ || !gaps_->NextUnrecorded().has_value());
  }

 private:
  struct Running {
    v1::OperationProgress progress;
    bool announced = false;  // on this stream
    SteadyTime sent_at{};
  };

  absl::Status OnOrder(const v1::Order& order);
  void OnQuery(const v1::Query& query);
  std::optional<v1::ControlRequest> NextProgress(SteadyTime now);
  std::optional<v1::ControlRequest> NextGap();
  void OnGapRecorded(const std::string& id);
  // How far the device's clock is from its boot clock.
  std::chrono::milliseconds ClockBase() const;

  OperationRunner& runner_;
  HealthSource& health_;
  const std::function<void(uint64_t, v1::QueryResult)> plan_done_;
  state::GapBook* const gaps_;
  const Clock* const clock_;

  uint64_t stream_ = 0;
  bool connected_ = false;
  bool hello_sent_ = false;
  std::chrono::milliseconds hello_base_{0};  // when the hello said the device's time
  std::optional<v1::Welcome> welcome_;
  std::chrono::milliseconds health_interval_{std::chrono::minutes(1)};
  SteadyTime health_due_{};

  std::deque<v1::ControlRequest> answers_;
  std::map<std::string, v1::OperationResult> results_;  // not recorded by the controller
  std::set<std::string> unsent_results_;                // of these, not sent on this stream
  std::map<std::string, Running> progress_;
  std::map<std::string, v1::ChainCheck> chain_checks_;
  std::optional<v1::CoverageGap> gap_sent_;  // on this stream, as the book has it; not recorded yet
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_SESSION_H_
