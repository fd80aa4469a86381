#include "agent/agent.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "agent/capture_home.h"
#include "agent/control/control_loop.h"
#include "agent/control/control_reactor.h"
#include "agent/control/database_plan.h"
#include "agent/control/operation_queue.h"
#include "agent/control/run_conditions.h"
#include "agent/control/scheduler.h"
#include "agent/device_policy.h"
#include "agent/end_watch.h"
#include "agent/enroll/enroll.h"
#include "agent/executor.h"
#include "agent/heal/heal_client.h"
#include "agent/health.h"
#include "agent/hooks/database_hooks.h"
#include "agent/hooks/hook_runner.h"
#include "agent/link_limits.h"
#include "agent/local_commands.h"
#include "agent/restore/fetch_reactor.h"
#include "agent/restore/limited_fetch.h"
#include "agent/restore/local_restorer.h"
#include "agent/restore/stream_fetcher.h"
#include "agent/rules/order_rules.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/state/gap_book.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "agent/upload/upload_reactor.h"
#include "common/base/executor.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/io/patient_lock.h"
#include "common/obs/notify.h"
#include "common/rpc/channel_hub.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kTick{500};
constexpr milliseconds kSettle{1000};
// With --once: how long orders may come in after the welcome.
constexpr milliseconds kOrdersWait{1500};
constexpr std::chrono::hours kRenewalInterval{1};
constexpr seconds kClockOffWarn{60};
// Without the controller for so long, scheduled backups go into the spool.
constexpr milliseconds kOfflineAfter{10000};
// An upload of the spool that failed is tried again.
constexpr seconds kDrainAgain{30};
// Operations that a hello names at most.
constexpr size_t kMaxActive = 1000;

// SIGTERM, SIGINT or SIGHUP within `wait`; 0 when none came.
int WaitSignal(milliseconds wait) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  const auto whole = std::chrono::duration_cast<seconds>(wait);
  const struct timespec timeout { static_cast<time_t>(whole.count()), static_cast<long>((wait - whole).count() * 1'000'000) };
  const int number = sigtimedwait(&set, nullptr, &timeout);
  return number < 0 ? 0 : number;
}

// What runs may be a hook of an hour, which nobody may cut short but the end of the program: it is run again at the next start.
constexpr unsigned kStopSeconds = 10;

// A second signal ends the process at once, and so does time.
void BoundStop() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT}) {
    signal(number, SIG_DFL);
    sigaddset(&set, number);
  }
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  alarm(kStopSeconds);
}

absl::Status RefuseNetworkFileSystem(const config::AgentConfig& config) {
  const std::string name = io::NetworkFileSystemName(config.state);
  if (name.empty() || config.allow_network_file_system) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "NETWORK_FILE_SYSTEM",
               fmt::format("{} is on a network file system ({})", config.state, name),
               "keep the state on a local disk, or set allow_network_file_system = true");
}

}  // namespace

class Agent::Impl final : public control::OperationListener {
 public:
  // What the state directory holds, open.
  struct Own {
    std::unique_ptr<const Clock> clock;
    std::unique_ptr<state::GapBook> gaps;
    std::unique_ptr<spool::SnapshotSpool> spool;
  };

  static absl::StatusOr<std::unique_ptr<Impl>> Make(const Options& options, const config::AgentConfig& config) {
    LF_ASSIGN_OR_RETURN(state::StateDirectory state, state::StateDirectory::Open(config.state));
    LF_RETURN_IF_ERROR(RefuseNetworkFileSystem(config));
    LF_ASSIGN_OR_RETURN(io::ProcessLock lock, io::LockPatiently([&] { return state.Lock(); }));
    LF_ASSIGN_OR_RETURN(state::DeviceIdentity identity, state::LoadIdentity(state.path()));
    auto hub = std::make_unique<rpc::ChannelHub>();
    auto download_rate = std::make_unique<RateLimit>(0);
    std::unique_ptr<restore::FetchTransport> fetches =
        std::make_unique<restore::LimitedFetchTransport>(restore::MakeGrpcFetchTransport(*hub), *download_rate);
    auto fetcher = std::make_unique<restore::StreamFetcher>(*fetches, restore::StreamFetcher::Options());
    restore::RestorerOptions restores;
    restores.state_folder = state.restore_path();
    restores.apply.allow_network_fs = config.allow_network_file_system;
    LF_ASSIGN_OR_RETURN(std::unique_ptr<restore::LocalRestorer> restorer, restore::LocalRestorer::Open(restores, *fetcher));
    std::vector<std::string> damaged;
    LF_ASSIGN_OR_RETURN(std::unique_ptr<state::GapBook> gaps, state::GapBook::Open(state.gaps_path(), damaged));
    for (const std::string& sentence : damaged) spdlog::error("{}", sentence);
    auto clock = std::make_unique<RealClock>();
    damaged.clear();
    LF_ASSIGN_OR_RETURN(std::unique_ptr<spool::SnapshotSpool> spool,
                        spool::SnapshotSpool::Open(state.spooled_path(), *gaps, *clock, damaged));
    for (const std::string& sentence : damaged) spdlog::error("{}", sentence);
    Own own{std::move(clock), std::move(gaps), std::move(spool)};
    return std::make_unique<Impl>(options, config, std::move(state), std::move(lock), std::move(identity), std::move(own), std::move(hub),
                                  std::move(download_rate), std::move(fetches), std::move(fetcher), std::move(restorer));
  }

  Impl(const Options& options, const config::AgentConfig& config, state::StateDirectory state, io::ProcessLock lock,
       state::DeviceIdentity identity, Own own, std::unique_ptr<rpc::ChannelHub> hub, std::unique_ptr<RateLimit> download_rate,
       std::unique_ptr<restore::FetchTransport> fetches, std::unique_ptr<restore::PageFetcher> fetcher,
       std::unique_ptr<restore::LocalRestorer> restorer)
      : options_(options),
        state_(std::move(state)),
        lock_(std::move(lock)),
        own_(std::move(own)),
        policy_(state_, *own_.clock, config),
        identity_(std::move(identity)),
        hub_(std::move(hub)),
        download_rate_(std::move(download_rate)),
        fetches_(std::move(fetches)),
        fetcher_(std::move(fetcher)),
        restorer_(std::move(restorer)),
        upload_rate_(0),
        transport_(upload::MakeGrpcTransport(*hub_)),
        sender_(heal::MakeGrpcSender(*hub_)),
        connector_(control::MakeGrpcConnector([this] { return ChannelOptions(); }, *hub_)),
        capture_(state_, *own_.clock, identity_.device.value(), *transport_, upload_rate_, *own_.gaps, own_.spool.get()),
        health_(
            state_, *own_.clock, policy_, [this] { return ActiveIds(); }, *own_.spool, capture_,
            [this](const std::string& database) { return gate_.Waiting(database); }),
        rules_(state_, *own_.clock),
        executor_({state_,
                   *own_.clock,
                   *transport_,
                   *restorer_,
                   upload_rate_,
                   [this] { return Config(); },
                   identity_.device.value(),
                   {},
                   std::chrono::hours(24),
                   *sender_,
                   hooks_,
                   *own_.spool,
                   [this] { return offline_.load(); },
                   kOfflineAfter,
                   [this](const v1::OperationProgress& progress) { loop_.OnProgress(progress); },
                   [this](const v1::OperationResult& result) { return queue_.AddResult(result); },
                   [this](const hooks::HookFacts& facts) { return HooksOf(facts); },
                   &rules_,
                   options.config_path,
                   [this](const std::string& database, std::string_view why, const CancelToken& cancel) {
                     return capture_.Pause(database, why, cancel);
                   }}),
        queue_(state_, executor_, *own_.clock, QueueOptions()),
        scheduler_(*own_.clock, options.once ? milliseconds(0) : kSettle),
        loop_(health_, *connector_, *own_.clock, LoopOptions()) {
    restorer_->SetHooks([this](const hooks::HookFacts& facts) { return HooksOf(facts); });
  }

  ~Impl() override {
    ending_.Interrupt();
    loop_.Stop();
    queue_.Stop();
    capture_.Stop();
  }

  absl::Status Begin() {
    // With a rule that defends orders are refused for it, too.
    if (const absl::Status trusted = rules::OrderRules::CheckConfigFile(options_.config_path); !trusted.ok())
      spdlog::warn("{}; {}", MessageOf(trusted), HintOf(trusted));
    LF_RETURN_IF_ERROR(state_.ClearSpool());
    {
      const EndWatch end;
      LF_RETURN_IF_ERROR(RecoverRestores(end.token()));
      // Nothing may touch the databases before that is done. The signal is Run's.
      if (end.token().interrupted()) return absl::OkStatus();
    }
    link_limits_.Follow(*Config());
    FollowConfig();
    own_.gaps->OnChange([this] { loop_.ReportGaps(); });
    capture_.OnChainCheck([this](const v1::ChainCheck& check) { loop_.CheckChain(check); });
    LF_RETURN_IF_ERROR(queue_.Start(*this));
    loop_.Start(queue_);
    return absl::OkStatus();
  }

  absl::Status Run() {
    const milliseconds tick = std::min(kTick, obs::WatchdogInterval().value_or(kTick));
    obs::Notify("READY=1");
    const SteadyTime began = own_.clock->Steady();
    for (;;) {
      const int number = WaitSignal(tick);
      if (number == SIGTERM || number == SIGINT) {
        spdlog::info("ending: what runs goes on at the next start");
        obs::Notify("STOPPING=1");
        BoundStop();
        loop_.Stop();
        queue_.Stop();
        capture_.Stop();
        return absl::OkStatus();
      }
      if (number == SIGHUP) {
        obs::NotifyReloading();
        Reload();
        obs::Notify("READY=1");
      }
      obs::Notify("WATCHDOG=1");
      FollowConfig();
      link_limits_.Follow(*Config());
      LookAtLink();
      KeepRunTime();
      RunDue();
      if (!options_.once) capture_.Tick(*Config());
      DropOldUndos();
      RenewWhenDue();
      if (options_.once) {
        if (const std::optional<absl::Status> ended = OnceEnded(began)) return *ended;
      }
    }
  }

  // From the queue.
  void OnProgress(const v1::OperationProgress& progress) override { loop_.OnProgress(progress); }
  void OnResult(const v1::OperationResult& result) override {
    if (result.state() == v1::OPERATION_STATE_FAILED) failed_.store(true);
    loop_.OnResult(result);
  }
  void OnDropped(const std::string& operation_id) override { loop_.OnDropped(operation_id); }

 private:
  control::OperationQueue::Options QueueOptions() const {
    control::OperationQueue::Options options;
    options.online = [this] { return hub_->Current() != nullptr; };
    options.held = [this](const v1::Order& order) { return executor_.Held(order); };
    options.spools = [this] { return offline_.load(); };
    return options;
  }

  control::ControlLoop::Options LoopOptions() const {
    control::ControlLoop::Options options;
    options.gaps = own_.gaps.get();
    return options;
  }

  std::shared_ptr<const config::AgentConfig> Config() const { return policy_.Config(); }

  absl::StatusOr<rpc::ChannelOptions> ChannelOptions() const {
    const std::shared_ptr<const config::AgentConfig> config = Config();
    MutexLock lock(mu_);
    return rpc::ChannelOptions{config->controller,
                               {identity_.private_key, identity_.certificate_chain, identity_.ca_certificate},
                               "litefleet-agent/" LITEFLEET_VERSION};
  }

  std::unique_ptr<hooks::DatabaseHooks> HooksOf(const hooks::HookFacts& facts) {
    const std::shared_ptr<const config::AgentConfig> config = Config();
    const config::DatabaseConfig* const database = config->Find(facts.database);
    if (database == nullptr) return nullptr;
    return std::make_unique<hooks::DatabaseHooks>(hooks_, ProgramsOf(*config, *database), facts);
  }

  // Restores that nobody will run again are finished or rolled back, before anything else touches their databases.
  absl::Status RecoverRestores(const CancelToken& stop) {
    std::vector<std::string> damaged;
    LF_ASSIGN_OR_RETURN(const std::vector<storage::v1::AgentOperation> operations, state_.ReadOperations(damaged));
    for (const std::string& sentence : damaged) spdlog::error("{}", sentence);
    std::set<std::string> active;
    for (const storage::v1::AgentOperation& operation : operations) active.insert(operation.operation_id());
    // Databases are compared, and hooks run: longer than a start may take.
    obs::Notify("EXTEND_TIMEOUT_USEC=3600000000");
    return executor_.Recover(active, stop);
  }

  void DropOldUndos() {
    const SteadyTime now = own_.clock->Steady();
    if (undos_looked_at_ && now - *undos_looked_at_ < std::chrono::minutes(10)) return;
    undos_looked_at_ = now;
    const auto keep = std::chrono::duration_cast<seconds>(Config()->keep_previous);
    const auto busy = [this](const std::string& name) { return queue_.Busy(name); };
    for (const std::string& database : restorer_->DropUndosOlderThan(keep, *own_.clock, busy)) {
      spdlog::info("{}: the state before the last restore was dropped (keep_previous)", database);
    }
  }

  // Where agent.toml or the policy has changed since the last look.
  void FollowConfig() {
    const uint64_t generation = policy_.generation();
    if (generation == followed_) return;
    followed_ = generation;
    Schedule();
    // One run that ends follows nothing.
    if (options_.once) return;
    const EndWatch end;
    const absl::Status status = capture_.Follow(*Config(), end.token());
    if (!status.ok() && !end.token().interrupted()) spdlog::error("{}", MessageOf(status));
  }

  // When a controller answered last, and why none has since, for status and doctor.
  void NoteConnection(const control::ControlLoop::State& control) {
    if (!control.connected && !control.last_error.empty() && control.last_error != noted_error_) {
      noted_error_ = control.last_error;
      storage::v1::AgentConnection connection = state_.ReadConnection().value_or(storage::v1::AgentConnection());
      connection.set_last_error(CleanUtf8(noted_error_, 1000));
      if (const absl::Status status = state_.WriteConnection(connection); !status.ok()) spdlog::error("{}", MessageOf(status));
    }
    if (!control.connected || !control.welcome || control.connections == noted_connections_) return;
    noted_connections_ = control.connections;
    noted_error_.clear();
    storage::v1::AgentConnection connection;
    connection.set_welcomed_at_ms(ToUnixMillis(own_.clock->Now()));
    connection.set_clock_offset_ms(control.welcome->clock_offset_ms());
    connection.set_controller_version(control.welcome->controller_version());
    connection.set_device_name(control.welcome->device_name());
    if (const absl::Status status = state_.WriteConnection(connection); !status.ok()) spdlog::error("{}", MessageOf(status));
    const seconds offset(connection.clock_offset_ms() / 1000);
    if (offset > kClockOffWarn || offset < -kClockOffWarn) {
      spdlog::warn("this device's clock is {} s {} the controller's; times are corrected by that, everything goes on",
                   std::abs(offset.count()), offset.count() > 0 ? "behind" : "ahead of");
    }
  }

  void Schedule() {
    const std::shared_ptr<const config::AgentConfig> config = Config();
    std::string device;
    {
      MutexLock lock(mu_);
      device = identity_.device.value();
    }
    std::vector<std::string> names;
    for (const config::DatabaseConfig& database : config->databases) {
      if (database.schedule.kind() == config::Schedule::Kind::kNever) continue;
      const auto kept = state_.ReadDatabase(database.name);
      scheduler_.Set(database.name, control::PlanOf(database, device, options_.once),
                     kept.ok() ? control::LastRunOf(*kept, BootId()) : control::Scheduler::LastRun());
      names.push_back(database.name);
    }
    scheduler_.Keep(names);
  }

  // Operations that have not ended for the controller: what runs, and what waits in the spool; of the latter the oldest.
  std::vector<std::string> ActiveIds() const {
    std::vector<std::string> ids = queue_.ActiveIds();
    for (const std::string& database : own_.spool->Databases()) {
      for (const spool::SpooledSnapshot& snapshot : own_.spool->List(database)) {
        // A sync of continuous capture is no operation.
        if (ids.size() < kMaxActive && snapshot.header.method() != v1::METHOD_CONTINUOUS) ids.push_back(snapshot.header.operation_id());
      }
    }
    return ids;
  }

  void LookAtLink() {
    const SteadyTime now = own_.clock->Steady();
    if (hub_->Current() != nullptr) {
      offline_since_.reset();
    } else if (!offline_since_) {
      offline_since_ = now;
    }
    offline_.store(offline_since_ && now - *offline_since_ >= kOfflineAfter);
    if (offline_since_ || (drained_at_ && now - *drained_at_ < kDrainAgain)) return;
    // What is spooled goes up as soon as the controller is there. Where states are missing since then, a backup makes the next one.
    std::map<std::string, bool> names;  // and whether states are missing
    for (const std::string& database : own_.spool->Databases()) names[database] = false;
    // Once a connection: what fails then is the schedule's affair again.
    const uint64_t connection = loop_.state().connections;
    if (connection != drained_connection_) {
      for (const v1::CoverageGap& gap : own_.gaps->OpenGaps("")) {
        if (spool::IsReason(gap.reason())) names[gap.database()] = true;
      }
    }
    for (const auto& [database, missing] : names) {
      if (queue_.Busy(database) || capture_.SeesTo(database)) continue;
      // What the configuration does not name any more goes up all the same.
      const bool backup = missing && Config()->Find(database) != nullptr && !gate_.WouldWait(*Config(), database);
      if (missing && !backup && own_.spool->UsageOf(database).snapshots == 0) continue;
      const absl::Status begun = (backup ? queue_.BeginScheduled(database) : queue_.BeginDrain(database)).status();
      if (!begun.ok()) spdlog::error("what is spooled of {} is not uploaded yet: {}", database, MessageOf(begun));
      drained_at_ = now;
      drained_connection_ = connection;
    }
  }

  void KeepRunTime() {
    if (const absl::Status kept = own_.spool->KeepRunTime(); !kept.ok())
      spdlog::error("what is spooled may be kept for longer than `[limits] spool_age`: {}", MessageOf(kept));
  }

  void RunDue() {
    std::erase_if(scheduled_, [&](const std::string& database) {
      if (queue_.Busy(database)) return false;
      scheduler_.Ended(database);
      return true;
    });
    for (const std::string& database : scheduler_.Due()) {
      if (gate_.Waits(*Config(), database)) continue;
      // A run of it is under way already, ordered or left from before: that is this run.
      const absl::Status begun = queue_.Busy(database) ? absl::OkStatus() : queue_.BeginScheduled(database).status();
      if (!begun.ok()) {
        spdlog::error("the scheduled backup of {} could not begin: {}", database, MessageOf(begun));
        continue;
      }
      scheduler_.Started(database);
      scheduled_.insert(database);
    }
  }

  void Reload() {
    absl::StatusOr<config::AgentConfig> config = config::ReadConfig(options_.config_path);
    absl::StatusOr<state::DeviceIdentity> identity = state::LoadIdentity(state_.path());
    if (!config.ok()) spdlog::error("the configuration stays as it was: {}", MessageOf(config.status()));
    if (!identity.ok()) spdlog::error("the certificate stays as it was: {}", MessageOf(identity.status()));
    bool reconnect = false;
    if (config.ok() && config->state != state_.path()) {
      spdlog::warn("the state directory changes with a restart alone; it stays {}", state_.path());
      config->state = state_.path();
    }
    if (config.ok()) {
      reconnect |= !(config->controller == Config()->controller);
      policy_.SetOwn(*config);
    }
    {
      MutexLock lock(mu_);
      if (identity.ok()) {
        reconnect |= identity->certificate_chain != identity_.certificate_chain || identity->ca_certificate != identity_.ca_certificate;
        identity_ = *identity;
      }
    }
    if (config.ok()) {
      obs::SetupLog(config->log).IgnoreError();  // looked at by ReadConfig
      FollowConfig();
      link_limits_.Follow(*Config());
      spdlog::info("the configuration was read again");
    }
    if (reconnect) {
      loop_.Reconnect();
    } else if (config.ok()) {
      loop_.ReportHealth();
    }
  }

  void RenewWhenDue() {
    const SteadyTime now = own_.clock->Steady();
    const control::ControlLoop::State control = loop_.state();
    NoteConnection(control);
    if (control.connected) refused_since_.reset();
    if (!control.connected && !refused_since_) refused_since_ = now;
    if (renewing_.load() || (renewed_at_ && now - *renewed_at_ < kRenewalInterval)) return;
    // While there was no connection yet, the first try belongs to the control stream.
    if (!control.connected && now - *refused_since_ < seconds(30)) return;
    renewed_at_ = now;
    renewing_.store(true);
    const milliseconds offset(control.welcome ? control.welcome->clock_offset_ms() : 0);
    const enroll::Renewal when = control.connected ? enroll::Renewal::kIfDue : enroll::Renewal::kNow;
    const bool posted = background_.TryPost([this, offset, when] {
      state::DeviceIdentity identity;
      {
        MutexLock lock(mu_);
        identity = identity_;
      }
      const auto renewed =
          enroll::Renew(state_.path(), Config()->controller.Text(), own_.clock->Now() + offset, when, seconds(30), identity, ending_);
      if (renewed.ok() && *renewed) {
        {
          MutexLock lock(mu_);
          identity_ = identity;
        }
        spdlog::info("the device's certificate was renewed");
        loop_.Reconnect();
      } else if (!renewed.ok() && when == enroll::Renewal::kIfDue) {
        spdlog::warn("the device's certificate was not renewed: {}", MessageOf(renewed.status()));
      }
      renewing_.store(false);
    });
    if (!posted) renewing_.store(false);
  }

  std::optional<absl::Status> OnceEnded(SteadyTime began) {
    const control::ControlLoop::State control = loop_.state();
    const SteadyTime now = own_.clock->Steady();
    if (!control.connected) {
      quiet_since_.reset();
      if (now - began < options_.once_wait) return std::nullopt;
      return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE",
                   fmt::format("the controller could not be reached: {}", control.last_error.empty() ? "no answer" : control.last_error),
                   "what is due stays due");
    }
    // The wait begins anew while something happens.
    if (!control.idle || !queue_.idle() || !scheduler_.Due().empty())
      quiet_since_.reset();
    else if (!quiet_since_)
      quiet_since_ = now;
    if (!quiet_since_ || now - *quiet_since_ < kOrdersWait) return std::nullopt;
    if (!failed_.load()) return absl::OkStatus();
    return Error(absl::StatusCode::kUnknown, "OPERATIONS_FAILED", "an operation failed; the log and the controller have the reason");
  }

  const Options options_;
  const state::StateDirectory state_;
  const io::ProcessLock lock_;

  const Own own_;
  DevicePolicyKeeper policy_;
  mutable Mutex mu_;
  state::DeviceIdentity identity_ ABSL_GUARDED_BY(mu_);

  const std::unique_ptr<rpc::ChannelHub> hub_;
  const std::unique_ptr<RateLimit> download_rate_;
  const std::unique_ptr<restore::FetchTransport> fetches_;
  const std::unique_ptr<restore::PageFetcher> fetcher_;
  const std::unique_ptr<restore::LocalRestorer> restorer_;
  RateLimit upload_rate_;
  LinkLimits link_limits_{*own_.clock, upload_rate_, *download_rate_};
  const std::unique_ptr<upload::UploadTransport> transport_;
  const std::unique_ptr<heal::WantedSender> sender_;
  const std::unique_ptr<control::ControlConnector> connector_;
  hooks::ProcessHookRunner hooks_;
  CaptureHome capture_;
  DeviceHealth health_;
  rules::OrderRules rules_;
  DeviceExecutor executor_;
  control::OperationQueue queue_;
  control::Scheduler scheduler_;
  control::RunGate gate_{scheduler_, *own_.clock, state_.path() + "/databases"};
  control::ControlLoop loop_;

  // Of the main thread.
  std::set<std::string> scheduled_;
  std::optional<SteadyTime> quiet_since_;
  std::optional<SteadyTime> refused_since_;
  std::optional<SteadyTime> renewed_at_;
  std::optional<SteadyTime> undos_looked_at_;
  std::optional<SteadyTime> offline_since_;
  std::optional<SteadyTime> drained_at_;
  uint64_t drained_connection_ = 0;
  uint64_t noted_connections_ = 0;
  std::string noted_error_;
  uint64_t followed_ = 0;  // generation of the configuration

  std::atomic<bool> failed_{false};
  std::atomic<bool> offline_{false};
  std::atomic<bool> renewing_{false};
  CancelToken ending_;                   // of what the background does
  ThreadPoolExecutor background_{1, 4};  // goes first
};

Agent::Agent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Agent::~Agent() = default;

absl::StatusOr<std::unique_ptr<Agent>> Agent::Start(const Options& options, const config::AgentConfig& config) {
  LF_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::Make(options, config));
  LF_RETURN_IF_ERROR(impl->Begin());
  return std::unique_ptr<Agent>(new Agent(std::move(impl)));
}

absl::Status Agent::Run() { return impl_->Run(); }

}  // namespace litefleet
