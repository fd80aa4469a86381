// Ends a call whose peer keeps the connection alive and says nothing.
//
//   SilenceLimit limit(kSilence, [&] { context.TryCancel(); });
//   { SilenceLimit::Wait wait(limit); read = reader->Read(&response); }
//   if (limit.ran_out()) ...
//
// Only time within a Wait counts: what is done with an answer may take as long as it likes. Not for a peer that is gone, which the
// connection's own keepalive notices. Thread safety: one Wait at a time; `on_silence` is called once at most, on another thread.
#ifndef LITEFLEET_CONTROLLER_CLI_SILENCE_LIMIT_H_
#define LITEFLEET_CONTROLLER_CLI_SILENCE_LIMIT_H_

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "common/base/mutex.h"

namespace litefleet::cli {

class SilenceLimit {
 public:
  SilenceLimit(std::chrono::milliseconds limit, std::function<void()> on_silence);
  ~SilenceLimit();
  SilenceLimit(const SilenceLimit&) = delete;
  SilenceLimit& operator=(const SilenceLimit&) = delete;

  bool ran_out() const;

  class Wait {
   public:
    explicit Wait(SilenceLimit& limit) : limit_(limit) { limit_.Set(std::chrono::steady_clock::now() + limit_.limit_); }
    ~Wait() { limit_.Set(std::nullopt); }
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    SilenceLimit& limit_;
  };

 private:
  using Time = std::chrono::steady_clock::time_point;

  void Set(std::optional<Time> until);
  void Work();

  const std::chrono::milliseconds limit_;
  const std::function<void()> on_silence_;
  mutable Mutex mu_;
  CondVar changed_;
  std::optional<Time> until_ ABSL_GUARDED_BY(mu_);
  bool ran_out_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_SILENCE_LIMIT_H_
