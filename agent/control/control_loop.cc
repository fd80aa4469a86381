#include "agent/control/control_loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::control {
namespace {

constexpr std::chrono::hours kLong{1};

}  // namespace

// Events of one stream; those of an older one are dropped.
class ControlLoop::Events final : public ControlEvents {
 public:
  Events(ControlLoop& loop, uint64_t generation) : loop_(&loop), generation_(generation) {}

  void OnResponse(v1::ControlResponse response) override {
    Deliver([&](Mail& mail) { mail.response = std::move(response); });
  }
  void OnWritten() override {
    Deliver([](Mail& mail) { mail.written = true; });
  }
  void OnClosed(absl::Status status) override {
    Deliver([&](Mail& mail) { mail.closed = std::move(status); });
  }
  // The loop goes.
  void Detach() {
    MutexLock lock(mu_);
    loop_ = nullptr;
  }

 private:
  template <class Put>
  void Deliver(Put put) {
    MutexLock own(mu_);
    if (loop_ == nullptr) return;
    MutexLock lock(loop_->mu_);
    if (loop_->generation_ != generation_) return;
    put(loop_->mail_);
    loop_->changed_.SignalAll();
  }

  Mutex mu_;  // before the loop's
  ControlLoop* loop_ ABSL_GUARDED_BY(mu_);
  const uint64_t generation_;
};

ControlLoop::ControlLoop(HealthSource& health, ControlConnector& connector, const Clock& clock, Options options)
    : clock_(clock), health_(health), connector_(connector), options_(options) {}

ControlLoop::~ControlLoop() { Stop(); }

void ControlLoop::Start(OperationRunner& runner) {
  thread_ = std::thread([this, &runner] { Run(runner); });
}

void ControlLoop::Stop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void ControlLoop::ReportHealth() {
  {
    MutexLock lock(mu_);
    mail_.health = true;
  }
  changed_.SignalAll();
}

void ControlLoop::ReportGaps() {
  {
    MutexLock lock(mu_);
    mail_.gaps = true;
    state_.idle = false;
  }
  changed_.SignalAll();
}

void ControlLoop::CheckChain(const v1::ChainCheck& check) {
  {
    MutexLock lock(mu_);
    mail_.chain_checks[check.database()] = check;
  }
  changed_.SignalAll();
}

void ControlLoop::Reconnect() {
  {
    MutexLock lock(mu_);
    reconnect_ = true;
  }
  changed_.SignalAll();
}

ControlLoop::State ControlLoop::state() const {
  MutexLock lock(mu_);
  return state_;
}

void ControlLoop::OnProgress(const v1::OperationProgress& progress) {
  {
    MutexLock lock(mu_);
    mail_.progress[progress.operation_id()] = progress;
  }
  changed_.SignalAll();
}

void ControlLoop::OnResult(const v1::OperationResult& result) {
  {
    MutexLock lock(mu_);
    mail_.progress.erase(result.operation_id());
    mail_.results.push_back(result);
    state_.idle = false;
  }
  changed_.SignalAll();
}

void ControlLoop::OnDropped(const std::string& operation_id) {
  {
    MutexLock lock(mu_);
    mail_.progress.erase(operation_id);
    mail_.dropped.push_back(operation_id);
  }
  changed_.SignalAll();
}

ControlLoop::Mail ControlLoop::WaitMail(SteadyTime until) {
  MutexLock lock(mu_);
  while (mail_.empty() && !stop_ && !reconnect_) {
    const SteadyTime now = clock_.Steady();
    if (now >= until) break;
    changed_.WaitUntil(mu_, std::min(until, now + kLong));
  }
  return std::exchange(mail_, Mail());
}

void ControlLoop::TakeReports(ControlSession& session, Mail& mail) {
  for (const auto& [id, progress] : mail.progress) session.OnProgress(progress);
  for (const v1::OperationResult& result : mail.results) session.OnResult(result);
  for (const std::string& id : mail.dropped) session.OnDropped(id);
  if (mail.health) session.HealthChanged();
  for (const auto& [database, check] : mail.chain_checks) session.OnChainCheck(check);
  for (auto& [stream, result] : mail.query_results) session.OnQueryResult(stream, std::move(result));
}

void ControlLoop::Publish(const ControlSession& session, const absl::Status& error) {
  MutexLock lock(mu_);
  if (session.welcomed() && !state_.connected) ++state_.connections;
  state_.connected = session.welcomed();
  if (session.welcomed()) state_.welcome = session.welcome();
  state_.last_error = error.ok() ? std::string() : MessageOf(error);
  state_.idle = session.welcomed() && session.idle() && mail_.results.empty();
}

void ControlLoop::Run(OperationRunner& runner) {
  Backoff backoff(options_.backoff, std::random_device{}());
  ControlSession session(
      runner, health_,
      [this](uint64_t stream, v1::QueryResult result) {
        {
          MutexLock lock(mu_);
          mail_.query_results.emplace_back(stream, std::move(result));
        }
        changed_.SignalAll();
      },
      options_.gaps, &clock_);
  std::string logged;
  for (;;) {
    uint64_t generation;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      reconnect_ = false;
      generation = ++generation_;
      mail_.response.reset();
      mail_.written = false;
      mail_.closed.reset();
    }
    const auto events = std::make_shared<Events>(*this, generation);
    absl::StatusOr<std::shared_ptr<ControlStream>> stream = connector_.Open(events);
    absl::Status status = stream.status();
    if (stream.ok()) {
      session.OnConnected();
      (*stream)->Start();
      status = Serve(session, **stream, backoff);
      connector_.Closed();
      (*stream)->Cancel();
      session.OnDisconnected();
    }
    events->Detach();
    Publish(session, status);
    {
      MutexLock lock(mu_);
      if (stop_) return;
      if (reconnect_) continue;
    }
    const std::chrono::milliseconds delay = backoff.Next(clock_.Steady());
    // The same trouble again and again is one line.
    const std::string trouble = fmt::format("{}: {}", ReasonOf(status), MessageOf(status));
    if (trouble != logged) spdlog::warn("no connection to the controller: {}", MessageOf(status));
    logged = trouble;
    const SteadyTime until = clock_.Steady() + delay;
    for (SteadyTime now = clock_.Steady(); now < until; now = clock_.Steady()) {
      Mail mail = WaitMail(until);
      TakeReports(session, mail);
      MutexLock lock(mu_);
      if (stop_ || reconnect_) break;
    }
  }
}

absl::Status ControlLoop::Serve(ControlSession& session, ControlStream& stream, Backoff& backoff) {
  const SteadyTime welcome_by = clock_.Steady() + options_.welcome_wait;
  std::optional<SteadyTime> written_by;
  bool welcomed = false;
  bool read_owed = false;  // a message was taken, the next one is not asked for yet
  for (;;) {
    const SteadyTime now = clock_.Steady();
    if (!written_by) {
      if (std::optional<v1::ControlRequest> request = session.NextRequest(now)) {
        stream.Write(*std::move(request));
        written_by = now + options_.write_wait;
      }
    }
    if (read_owed && session.ready_to_read()) {
      read_owed = false;
      stream.ReadMore();
    }
    Publish(session, absl::OkStatus());
    SteadyTime until = written_by ? *written_by : session.NextDue();
    if (!welcomed) until = std::min(until, welcome_by);
    Mail mail = WaitMail(until);
    TakeReports(session, mail);
    if (mail.written) written_by.reset();
    if (mail.response) {
      LF_RETURN_IF_ERROR(session.OnResponse(*mail.response, clock_.Steady()));
      read_owed = true;
      if (!welcomed && session.welcomed()) {
        welcomed = true;
        backoff.Connected(clock_.Steady());
        connector_.Welcomed();
        spdlog::info("connected to the controller as {} (clock offset {} ms)", session.welcome().device_name(),
                     session.welcome().clock_offset_ms());
      }
    }
    if (mail.closed) {
      if (!mail.closed->ok()) return *mail.closed;
      return Error(absl::StatusCode::kUnavailable, "CONTROLLER_CLOSED", "the controller ended the control stream");
    }
    {
      MutexLock lock(mu_);
      if (stop_) return Error(absl::StatusCode::kCancelled, "STOPPED", "the agent is stopping");
      if (reconnect_) return Error(absl::StatusCode::kCancelled, "RECONNECT", "the connection is made anew");
    }
    const SteadyTime after = clock_.Steady();
    if (!welcomed && after >= welcome_by) {
      return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_UNREACHABLE", "the controller did not answer in time",
                   "look at the address in agent.toml, the network, and whether the controller runs");
    }
    if (written_by && after >= *written_by) {
      return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_SILENT", "the controller does not take any data");
    }
  }
}

}  // namespace litefleet::control
