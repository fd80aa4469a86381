#include "agent/capture/interrupt_watch.h"

#include <chrono>
#include <utility>

namespace litefleet::capture {
namespace {

constexpr std::chrono::milliseconds kLook{50};

}  // namespace

InterruptWatch::InterruptWatch(UserDatabase& database, std::function<bool()> cancelled)
    : db_(database.db()), cancelled_(std::move(cancelled)), thread_([this] { Look(); }) {}

InterruptWatch::~InterruptWatch() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.SignalAll();
  thread_.join();
  // SQLite forgets an interrupt when a statement begins where none runs; a checkpoint, and the one of a close, would still hear it.
  sqlite3_exec(db_, "pragma query_only", nullptr, nullptr, nullptr);
}

void InterruptWatch::Look() {
  MutexLock lock(mu_);
  while (!stop_) {
    // Again and again: one that comes before the call it is meant for is lost.
    if (cancelled_()) sqlite3_interrupt(db_);
    changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + kLook);
  }
}

}  // namespace litefleet::capture
