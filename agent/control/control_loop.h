// Keeps one control stream open: connects, drives the session, and connects again with backoff when the stream ends.
//
// Thread safety: all members may be called from any thread. One thread of its own runs the session and every call of the runner; events
// of the transport and reports of operations only fill a mailbox (newest progress an operation, results, one message read ahead).
// Lock order: mu_ is the only lock, nothing is called under it. Deadlines: 30 s to the welcome, 60 s for a write.
#ifndef LITEFLEET_AGENT_CONTROL_CONTROL_LOOP_H_
#define LITEFLEET_AGENT_CONTROL_CONTROL_LOOP_H_

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "agent/control/control_stream.h"
#include "agent/control/operation_runner.h"
#include "agent/control/session.h"
#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::control {

class ControlLoop final : public OperationListener {
 public:
  struct Options {
    Backoff::Options backoff;
    std::chrono::milliseconds welcome_wait{30000};
    std::chrono::milliseconds write_wait{60000};
    state::GapBook* gaps = nullptr;  // outlives the loop
  };
  struct State {
    bool connected = false;
    std::optional<v1::Welcome> welcome;  // the newest one
    uint64_t connections = 0;            // welcomes so far
    std::string last_error;              // of the newest attempt; empty while connected
    bool idle = false;                   // connected, and nothing is left to report
  };

  // `health` and `connector` outlive the loop.
  ControlLoop(HealthSource& health, ControlConnector& connector, const Clock& clock, Options options);
  // Stops.
  ~ControlLoop() override;

  // Once. `runner` outlives Stop.
  void Start(OperationRunner& runner);
  // Ends the stream and the thread; within a second unless the runner blocks. Idempotent.
  void Stop();
  // Databases or their settings have changed: health goes out at once. Without a connection the next hello has it.
  void ReportHealth();
  // The book of gaps has changed: what is new goes out.
  void ReportGaps();
  // Goes out when there is a connection; its answer goes to the HealthSource. One that a cut stream has lost is not repeated.
  void CheckChain(const v1::ChainCheck& check);
  // Ends the stream, and connects again at once: identity or address have changed.
  void Reconnect();
  State state() const;

  void OnProgress(const v1::OperationProgress& progress) override;
  void OnResult(const v1::OperationResult& result) override;
  void OnDropped(const std::string& operation_id) override;

 private:
  class Events;
  // What came in since the last look.
  struct Mail {
    std::optional<v1::ControlResponse> response;
    bool written = false;
    bool health = false;
    bool gaps = false;
    std::map<std::string, v1::ChainCheck> chain_checks;
    std::optional<absl::Status> closed;
    std::map<std::string, v1::OperationProgress> progress;
    std::deque<v1::OperationResult> results;
    std::vector<std::string> dropped;
    std::deque<std::pair<uint64_t, v1::QueryResult>> query_results;

    bool empty() const {
      return !response && !written && !health && !gaps && !closed && chain_checks.empty() && progress.empty() && results.empty() &&
             dropped.empty() && query_results.empty();
    }
  };

  void Run(OperationRunner& runner);
  absl::Status Serve(ControlSession& session, ControlStream& stream, Backoff& backoff);
  // Takes reports over into the session; the rest stays in `mail`.
  static void TakeReports(ControlSession& session, Mail& mail);
  // Until mail, stop, reconnect, or `until`.
  Mail WaitMail(SteadyTime until);
  void Publish(const ControlSession& session, const absl::Status& error);

  const Clock& clock_;
  HealthSource& health_;
  ControlConnector& connector_;
  const Options options_;
  std::thread thread_;

  mutable Mutex mu_;
  CondVar changed_;
  Mail mail_ ABSL_GUARDED_BY(mu_);
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;  // of the stream whose events count
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool reconnect_ ABSL_GUARDED_BY(mu_) = false;
  State state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_CONTROL_LOOP_H_
