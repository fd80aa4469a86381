#include "agent/hooks/pause_watch.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::hooks {

PauseWatch::PauseWatch(HookRunner& runner, Hook hook, const CancelToken& cancel, std::chrono::milliseconds interval)
    : runner_(runner), hook_(std::move(hook)), cancel_(cancel), interval_(interval) {}

PauseWatch::~PauseWatch() {
  ended_.Cancel();
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void PauseWatch::Begin() {
  if (hook_.program.empty()) return;
  Ask(cancel_);
  thread_ = std::thread([this] {
    for (;;) {
      {
        MutexLock lock(mu_);
        const auto until = std::chrono::steady_clock::now() + interval_;
        while (!stop_ && std::chrono::steady_clock::now() < until) changed_.WaitUntil(mu_, until);
        if (stop_) return;
      }
      Ask(ended_);
    }
  });
}

void PauseWatch::Ask(const CancelToken& cancel) {
  HookResult result = runner_.Run(hook_, cancel);
  if (absl::IsCancelled(result.status)) return;
  const bool pause = result.status.ok() && result.run.exit_code() == kPauseExitCode;
  const bool clear = pause || result.succeeded();
  MutexLock lock(mu_);
  const bool changed = runs_.empty() || pause != paused_;
  const bool broke = !clear && (runs_.empty() || runs_.back().exit_code() != result.run.exit_code());
  if (changed && clear) {
    spdlog::info("the pause hook lets backups {}", pause ? "wait" : "go on");
  } else if (broke) {
    spdlog::warn("the pause hook {} (`[limits] pause_hook` of agent.toml) says neither yes nor no, backups go on: {}", hook_.program,
                 result.status.ok() ? fmt::format("exit code {}", result.run.exit_code()) : MessageOf(result.status));
  }
  paused_ = pause;
  if (!changed && !broke) return;
  runs_.push_back(std::move(result.run));
  if (runs_.size() > kMaxRuns) runs_.erase(runs_.begin() + 1);
}

bool PauseWatch::paused() const {
  MutexLock lock(mu_);
  return paused_;
}

std::vector<v1::HookRun> PauseWatch::runs() const {
  MutexLock lock(mu_);
  return {runs_.begin(), runs_.end()};
}

}  // namespace litefleet::hooks
