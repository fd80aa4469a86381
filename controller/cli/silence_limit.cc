#include "controller/cli/silence_limit.h"

#include <algorithm>
#include <utility>

namespace litefleet::cli {

SilenceLimit::SilenceLimit(std::chrono::milliseconds limit, std::function<void()> on_silence)
    : limit_(limit), on_silence_(std::move(on_silence)), thread_([this] { Work(); }) {}

SilenceLimit::~SilenceLimit() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.Signal();
  thread_.join();
}

bool SilenceLimit::ran_out() const {
  MutexLock lock(mu_);
  return ran_out_;
}

void SilenceLimit::Set(std::optional<Time> until) {
  MutexLock lock(mu_);
  until_ = until;
}

// Looks now and then: waking it with each answer would cost more than the answers.
void SilenceLimit::Work() {
  const auto look = std::max(std::chrono::milliseconds(1), limit_ / 8);
  {
    MutexLock lock(mu_);
    while (!stop_ && (!until_.has_value() || Time::clock::now() < *until_)) changed_.WaitUntil(mu_, Time::clock::now() + look);
    if (stop_) return;
    ran_out_ = true;
  }
  on_silence_();
}

}  // namespace litefleet::cli
