// Asks a device's pause hook whether a scheduled backup may go on: before it begins, and at intervals while it lasts.
//
//   exit 0                 go on
//   exit 75 (EX_TEMPFAIL)  pause: nothing is read or sent until it says otherwise
//   anything else          go on, with a word in the log: a hook that is broken must not be what keeps a device without backups
//
// Thread safety: all members may be called from any thread. One thread of its own from Begin to the end.
#ifndef LITEFLEET_AGENT_HOOKS_PAUSE_WATCH_H_
#define LITEFLEET_AGENT_HOOKS_PAUSE_WATCH_H_

#include <chrono>
#include <deque>
#include <thread>
#include <vector>

#include "agent/hooks/hook_runner.h"
#include "common/base/cancel_token.h"
#include "common/base/mutex.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::hooks {

inline constexpr int kPauseExitCode = 75;

class PauseWatch {
 public:
  // What is kept of the runs: the first, and those that changed the answer.
  static constexpr size_t kMaxRuns = 16;

  // `hook.program` empty: nothing is ever paused. `runner` and `cancel` outlive this; a cancel ends a run of the hook.
  PauseWatch(HookRunner& runner, Hook hook, const CancelToken& cancel, std::chrono::milliseconds interval = std::chrono::minutes(1));
  // Ends a run of the hook.
  ~PauseWatch();
  PauseWatch(const PauseWatch&) = delete;
  PauseWatch& operator=(const PauseWatch&) = delete;

  // Asks for the first time, and from then on at intervals.
  void Begin();
  bool paused() const;
  std::vector<v1::HookRun> runs() const;

 private:
  void Ask(const CancelToken& cancel);

  HookRunner& runner_;
  const Hook hook_;
  const CancelToken& cancel_;
  const std::chrono::milliseconds interval_;
  CancelToken ended_;
  std::thread thread_;

  mutable Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::HookRun> runs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::hooks

#endif  // LITEFLEET_AGENT_HOOKS_PAUSE_WATCH_H_
