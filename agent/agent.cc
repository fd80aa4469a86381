#include "agent/agent.h"

#include <signal.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "agent/control/control_loop.h"
#include "agent/control/control_reactor.h"
#include "agent/control/operation_queue.h"
#include "agent/control/scheduler.h"
#include "agent/enroll/enroll.h"
#include "agent/executor.h"
#include "agent/heal/heal_client.h"
#include "agent/health.h"
#include "agent/restore/fetch_reactor.h"
#include "agent/restore/local_restorer.h"
#include "agent/restore/stream_fetcher.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "agent/upload/upload_reactor.h"
#include "common/base/executor.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
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

// The second SIGTERM ends the process at once.
void LetNextSignalKill() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT}) {
    signal(number, SIG_DFL);
    sigaddset(&set, number);
  }
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

absl::Status RefuseNetworkFileSystem(const config::AgentConfig& config) {
  const std::string name = io::NetworkFileSystemName(config.state);
  if (name.empty() || config.allow_network_file_system) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "NETWORK_FILE_SYSTEM",
               fmt::format("{} is on a network file system ({})", config.state, name),
               "keep the state on a local disk, or set allow_network_file_system = true");
}

// `litefleet-agent status` holds the lock for a moment to see whether an agent runs.
absl::StatusOr<io::ProcessLock> LockState(const state::StateDirectory& state) {
  absl::StatusOr<io::ProcessLock> lock = state.Lock();
  for (int i = 0; i < 3 && !lock.ok() && ReasonOf(lock.status()) == "ALREADY_RUNNING"; ++i) {
    std::this_thread::sleep_for(milliseconds(100));
    lock = state.Lock();
  }
  return lock;
}

}  // namespace

class Agent::Impl final : public control::OperationListener {
 public:
  static absl::StatusOr<std::unique_ptr<Impl>> Make(const Options& options, const config::AgentConfig& config) {
    LF_ASSIGN_OR_RETURN(state::StateDirectory state, state::StateDirectory::Open(config.state));
    LF_RETURN_IF_ERROR(RefuseNetworkFileSystem(config));
    LF_ASSIGN_OR_RETURN(io::ProcessLock lock, LockState(state));
    LF_ASSIGN_OR_RETURN(state::DeviceIdentity identity, state::LoadIdentity(state.path()));
    auto hub = std::make_unique<rpc::ChannelHub>();
    std::unique_ptr<restore::FetchTransport> fetches = restore::MakeGrpcFetchTransport(*hub);
    auto fetcher = std::make_unique<restore::StreamFetcher>(*fetches, restore::StreamFetcher::Options());
    restore::RestorerOptions restores;
    restores.state_folder = state.restore_path();
    LF_ASSIGN_OR_RETURN(std::unique_ptr<restore::LocalRestorer> restorer, restore::LocalRestorer::Open(restores, *fetcher));
    return std::make_unique<Impl>(options, config, std::move(state), std::move(lock), std::move(identity), std::move(hub),
                                  std::move(fetches), std::move(fetcher), std::move(restorer));
  }

  Impl(const Options& options, const config::AgentConfig& config, state::StateDirectory state, io::ProcessLock lock,
       state::DeviceIdentity identity, std::unique_ptr<rpc::ChannelHub> hub, std::unique_ptr<restore::FetchTransport> fetches,
       std::unique_ptr<restore::PageFetcher> fetcher, std::unique_ptr<restore::LocalRestorer> restorer)
      : options_(options),
        state_(std::move(state)),
        lock_(std::move(lock)),
        config_(std::make_shared<const config::AgentConfig>(config)),
        identity_(std::move(identity)),
        hub_(std::move(hub)),
        fetches_(std::move(fetches)),
        fetcher_(std::move(fetcher)),
        restorer_(std::move(restorer)),
        rate_(config.upload_bytes_per_second),
        transport_(upload::MakeGrpcTransport(*hub_)),
        sender_(heal::MakeGrpcSender(*hub_)),
        connector_(control::MakeGrpcConnector([this] { return ChannelOptions(); }, *hub_)),
        health_(
            state_, clock_, [this] { return Config(); }, [this] { return queue_.ActiveIds(); }),
        executor_({state_,
                   clock_,
                   *transport_,
                   *restorer_,
                   rate_,
                   [this] { return Config(); },
                   identity_.device.value(),
                   {},
                   std::chrono::hours(24),
                   *sender_}),
        queue_(state_, executor_, clock_, QueueOptions()),
        scheduler_(clock_, options.once ? milliseconds(0) : kSettle),
        loop_(health_, *connector_, clock_, {}),
        upload_rate_(config.upload_bytes_per_second) {}

  ~Impl() override {
    loop_.Stop();
    queue_.Stop();
  }

  absl::Status Begin() {
    LF_RETURN_IF_ERROR(state_.ClearSpool());
    LF_RETURN_IF_ERROR(RecoverRestores());
    LimitRate();
    Schedule();
    LF_RETURN_IF_ERROR(queue_.Start(*this));
    loop_.Start(queue_);
    return absl::OkStatus();
  }

  absl::Status Run() {
    const milliseconds tick = std::min(kTick, obs::WatchdogInterval().value_or(kTick));
    obs::Notify("READY=1");
    const SteadyTime began = clock_.Steady();
    for (;;) {
      const int number = WaitSignal(tick);
      if (number == SIGTERM || number == SIGINT) {
        spdlog::info("ending: what runs goes on at the next start");
        obs::Notify("STOPPING=1");
        LetNextSignalKill();
        loop_.Stop();
        queue_.Stop();
        return absl::OkStatus();
      }
      if (number == SIGHUP) {
        obs::NotifyReloading();
        Reload();
        obs::Notify("READY=1");
      }
      obs::Notify("WATCHDOG=1");
      LimitRate();
      RunDue();
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

 private:
  control::OperationQueue::Options QueueOptions() const {
    control::OperationQueue::Options options;
    options.online = [this] { return hub_->Current() != nullptr; };
    return options;
  }

  std::shared_ptr<const config::AgentConfig> Config() const {
    MutexLock lock(mu_);
    return config_;
  }

  absl::StatusOr<rpc::ChannelOptions> ChannelOptions() const {
    MutexLock lock(mu_);
    return rpc::ChannelOptions{config_->controller,
                               {identity_.private_key, identity_.certificate_chain, identity_.ca_certificate},
                               "litefleet-agent/" LITEFLEET_VERSION};
  }

  // Restores that nobody will run again are finished or rolled back, before anything else touches their databases.
  absl::Status RecoverRestores() {
    std::vector<std::string> damaged;
    LF_ASSIGN_OR_RETURN(const std::vector<storage::v1::AgentOperation> operations, state_.ReadOperations(damaged));
    for (const std::string& sentence : damaged) spdlog::error("{}", sentence);
    std::set<std::string> active;
    for (const storage::v1::AgentOperation& operation : operations) active.insert(operation.operation_id());
    return executor_.Recover(active);
  }

  void DropOldUndos() {
    const SteadyTime now = clock_.Steady();
    if (undos_looked_at_ && now - *undos_looked_at_ < std::chrono::minutes(10)) return;
    undos_looked_at_ = now;
    const auto keep = std::chrono::duration_cast<seconds>(Config()->keep_previous);
    for (const std::string& database : restorer_->DropUndosOlderThan(keep, clock_)) {
      spdlog::info("{}: the state before the last restore was dropped (keep_previous)", database);
    }
  }

  // By the limits of this time of the day.
  void LimitRate() {
    const std::shared_ptr<const config::AgentConfig> config = Config();
    const auto now = static_cast<time_t>(ToUnixMillis(clock_.Now()) / 1000);
    struct tm local {};
    if (localtime_r(&now, &local) == nullptr) return;
    const int64_t rate = config::UploadRateAt(config->upload_windows, config->upload_bytes_per_second, local);
    if (rate == upload_rate_) return;
    upload_rate_ = rate;
    rate_.SetRate(rate);
    spdlog::info("uploads may take {} now", rate == 0 ? "the whole link" : fmt::format("{} bytes a second", rate));
  }

  // When a controller answered last, for status and doctor.
  void NoteConnection(const control::ControlLoop::State& control) {
    if (!control.connected || !control.welcome || control.connections == noted_connections_) return;
    noted_connections_ = control.connections;
    storage::v1::AgentConnection connection;
    connection.set_welcomed_at_ms(ToUnixMillis(clock_.Now()));
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
    std::vector<std::string> names;
    for (const config::DatabaseConfig& database : Config()->databases) {
      if (!database.schedule) continue;
      std::optional<SystemTime> last_run;
      const auto kept = state_.ReadDatabase(database.name);
      if (kept.ok() && kept->last_run_at_ms() != 0) last_run = FromUnixMillis(kept->last_run_at_ms());
      scheduler_.Set(database.name, *database.schedule, last_run);
      names.push_back(database.name);
    }
    scheduler_.Keep(names);
  }

  void RunDue() {
    std::erase_if(scheduled_, [&](const std::string& database) {
      if (queue_.Busy(database)) return false;
      scheduler_.Ended(database);
      return true;
    });
    for (const std::string& database : scheduler_.Due()) {
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
    {
      MutexLock lock(mu_);
      if (config.ok()) {
        reconnect |= !(config->controller == config_->controller);
        config_ = std::make_shared<const config::AgentConfig>(*config);
      }
      if (identity.ok()) {
        reconnect |= identity->certificate_chain != identity_.certificate_chain || identity->ca_certificate != identity_.ca_certificate;
        identity_ = *identity;
      }
    }
    if (config.ok()) {
      obs::SetupLog(config->log).IgnoreError();  // looked at by ReadConfig
      LimitRate();
      Schedule();
      spdlog::info("the configuration was read again");
    }
    if (reconnect) {
      loop_.Reconnect();
    } else if (config.ok()) {
      loop_.ReportHealth();
    }
  }

  void RenewWhenDue() {
    const SteadyTime now = clock_.Steady();
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
      const auto renewed = enroll::Renew(state_.path(), Config()->controller.Text(), clock_.Now() + offset, when, seconds(30), identity);
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
    const SteadyTime now = clock_.Steady();
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
  const RealClock clock_;
  const state::StateDirectory state_;
  const io::ProcessLock lock_;

  mutable Mutex mu_;
  std::shared_ptr<const config::AgentConfig> config_ ABSL_GUARDED_BY(mu_);
  state::DeviceIdentity identity_ ABSL_GUARDED_BY(mu_);

  const std::unique_ptr<rpc::ChannelHub> hub_;
  const std::unique_ptr<restore::FetchTransport> fetches_;
  const std::unique_ptr<restore::PageFetcher> fetcher_;
  const std::unique_ptr<restore::LocalRestorer> restorer_;
  upload::RateLimit rate_;
  const std::unique_ptr<upload::UploadTransport> transport_;
  const std::unique_ptr<heal::WantedSender> sender_;
  const std::unique_ptr<control::ControlConnector> connector_;
  DeviceHealth health_;
  DeviceExecutor executor_;
  control::OperationQueue queue_;
  control::Scheduler scheduler_;
  control::ControlLoop loop_;

  // Of the main thread.
  std::set<std::string> scheduled_;
  std::optional<SteadyTime> quiet_since_;
  std::optional<SteadyTime> refused_since_;
  std::optional<SteadyTime> renewed_at_;
  std::optional<SteadyTime> undos_looked_at_;
  uint64_t noted_connections_ = 0;
  int64_t upload_rate_;

  std::atomic<bool> failed_{false};
  std::atomic<bool> renewing_{false};
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
