// Interrupts what SQLite does on a connection once somebody asks to stop, for as long as it lives: for statements that ask nobody.
//
//   const InterruptWatch watch(database, [&] { return cancel.cancelled(); });
//   sqlite3_wal_checkpoint_v2(database.db(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);  // SQLITE_INTERRUPT
//
// Asks every 50 ms. Of SQLite's long calls a checkpoint hears it between two frames, and a statement between two steps; a recovery, the
// roll-back of a journal and a sync do not. Nothing of it stays: the next call on the connection is not interrupted. Not around Close():
// what a last closer has to fold is folded. REQUIRES: no statement of the connection runs when it goes; the connection outlives it.
// Thread safety: of the connection's thread; it has a thread of its own, on which `cancelled` is asked.
#ifndef LITEFLEET_AGENT_CAPTURE_INTERRUPT_WATCH_H_
#define LITEFLEET_AGENT_CAPTURE_INTERRUPT_WATCH_H_

#include <functional>
#include <thread>

#include "agent/capture/user_database.h"
#include "common/base/mutex.h"

namespace litefleet::capture {

class InterruptWatch {
 public:
  InterruptWatch(UserDatabase& database, std::function<bool()> cancelled);
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  void Look();

  sqlite3* const db_;
  const std::function<bool()> cancelled_;
  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_INTERRUPT_WATCH_H_
