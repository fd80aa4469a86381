// Whether a WAL tells what has changed since the last state that was shipped: the heart of continuous capture, as a pure function.
//
//   unchanged   nothing was committed
//   grown       the frames behind the shipped one are what was committed
//   reset once  the WAL was started over from just the shipped state: all its frames are what was committed
//   doubt       it does not tell; the pages have to be compared
//
// README.md has the table and the reason why no frame is missed. The names are those of tests/model/wal. Not a check of frames: those are
// read by capture/wal_frames. Thread safety: values and pure functions.
#ifndef LITEFLEET_AGENT_FOLLOW_CONTINUITY_H_
#define LITEFLEET_AGENT_FOLLOW_CONTINUITY_H_

#include <cstdint>
#include <string_view>

#include "agent/capture/wal_frames.h"

namespace litefleet::follow {

enum class Verdict { kUnchanged, kGrown, kResetOnce, kDoubt };

// A salt-1 that is less by up to so much was taken back by a recovery.
inline constexpr uint32_t kTakenBack = 64;

// The read transaction that has lasted since before the last look.
struct Held {
  capture::WalPlace begun;
  // Everything in the WAL was in the database when it began, as far as that can be told.
  bool may_be_mark0 = false;
};

struct Sight {
  capture::WalPlace now;
  // The path still leads to the file that is open.
  bool same_file = true;
  uint64_t wal_bytes = 0;
};

struct Judgement {
  Verdict verdict = Verdict::kUnchanged;
  // Of doubt: stable, UPPER_SNAKE_CASE.
  std::string_view reason = {};
};

Judgement Judge(const capture::WalPlace& shipped, const Held& held, const Sight& sight);

// The same when nothing was held for a moment, and everything up to `shipped` had been taken before. Reset once: by one who had started it
// over before, so that salt-1 counts; how the generation of `shipped` ended is still to be found. Doubt where the file is gone, was cut or
// the new generation has come to where that end would be.
Judgement JudgeAfterStandingAside(const capture::WalPlace& shipped, const Sight& sight);

// What `shipped` becomes when a hand-over finds the WAL started over (kResetOnce by the hold that is about to end): the next hold may keep
// frames of the new generation, and could not explain how it began.
capture::WalPlace BeforeFirstFrame(const capture::WalPlace& shipped, const capture::WalPlace& now);

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_CONTINUITY_H_
