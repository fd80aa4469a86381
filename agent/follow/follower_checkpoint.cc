// The part of Follower that keeps the WAL small while a database is followed: when, and the three ways of README.md, "Checkpoints".
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/capture/wal_end.h"
#include "agent/follow/follower.h"
#include "common/base/ids.h"
#include "common/base/status.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kShortestPeek{20};
constexpr milliseconds kRestartBudget{250};  // that writers may have to wait
constexpr milliseconds kFirstRestartWait{250};
constexpr seconds kLongestRestartWait{30};
constexpr milliseconds kCheckpointPause{50};   // after what came to nothing
constexpr seconds kLongestCheckpointPause{5};  // where another reader is why
constexpr milliseconds kAside{60};             // two commits, and what the application copies between them

}  // namespace

bool Follower::PlanPeek() {
  const bool due = PlanCheckpoint();
  if (state_ != State::kFollowing || attached_ == nullptr) return due;
  peek_at_ = std::min(peek_at_, LookForWaitersAt());
  PlanDrain();
  return due;
}

bool Follower::PlanCheckpoint() {
  peek_at_ = SteadyTime::max();
  if (state_ != State::kFollowing || attached_ == nullptr) return false;
  const auto look = attached_->Look();
  if (!look.ok() || look->page_size == 0) return false;
  const SteadyTime now = clock_.Steady();
  Filled& filled = checkpoints_.filled;
  if (now - filled.at >= kShortestPeek) {
    const uint32_t grown = filled.salts == look->salts ? look->max_frame - std::min(filled.frame, look->max_frame) : look->max_frame;
    const double seconds = std::chrono::duration<double>(now - filled.at).count();
    filled = {now, look->salts, look->max_frame, static_cast<double>(capture::WalBytes(look->page_size, grown)) / seconds};
  }
  // On mark 0 the next writer starts a WAL over of which everything was copied.
  const Held held = attached_->held();
  const bool waits_for_reset = held.may_be_mark0 && held.begun == capture::PlaceOf(*look);
  // Before an application would do it itself; where that came to nothing in this generation, with its help.
  const uint64_t due = checkpoints_.tried == look->salts ? options_.checkpoint_bytes : options_.checkpoint_bytes / 4 * 3;
  const uint64_t bytes = waits_for_reset ? 0 : capture::WalBytes(look->page_size, look->max_frame);
  // Who read what is old has gone, or reads something newer.
  if (const auto& held_back = checkpoints_.held_back; held_back.has_value() && checkpoints_.HeldBackForLong() && now < checkpoints_.at) {
    const auto copied = attached_->Backfilled();
    if (look->salts != held_back->salts || !copied.ok() || *copied != held_back->copied) checkpoints_.NotHeldBack();
  }
  if (bytes >= due && now >= checkpoints_.at) {
    peek_at_ = now;
    return true;
  }
  if (filled.bytes_per_second <= 0) return false;  // the next look is soon enough
  const std::chrono::duration<double> until_due(
      std::min(static_cast<double>(due - std::min(bytes, due)) / filled.bytes_per_second, 3600.0));
  peek_at_ = now + std::clamp<std::chrono::nanoseconds>(std::chrono::duration_cast<std::chrono::nanoseconds>(until_due), kShortestPeek,
                                                        seconds(1));
  peek_at_ = std::max(peek_at_, checkpoints_.at);
  return false;
}

void Follower::CheckpointWhenDue(const CancelToken& cancel) {
  if (pending_.has_value() && backoff_ != milliseconds(0)) return;  // nothing is sent now
  if (!PlanPeek()) return;
  const auto held_back = std::exchange(checkpoints_.held_back, std::nullopt);
  bool done = CheckpointOnce(cancel);
  // Too much to be saved: what there is goes first, from the WAL.
  const capture::WalPlace before = shipped_;
  if (!done && state_ == State::kFollowing && !saved_ && !cancel.cancelled() && LookAndShip(cancel) &&
      (shipped_ != before || !checkpoints_.HeldBackForLong()))
    done = CheckpointOnce(cancel);
  if (!done) done = RestartWhenDue();
  busy_at_ = clock_.Steady();
  const bool as_before = !done && checkpoints_.held_back.has_value() && checkpoints_.held_back == held_back;
  checkpoints_.held_back_for = as_before ? checkpoints_.held_back_for + 1 : !done && checkpoints_.held_back.has_value() ? 1 : 0;
  checkpoints_.pause =
      checkpoints_.HeldBackForLong() ? std::min<milliseconds>(checkpoints_.pause * 2, kLongestCheckpointPause) : kCheckpointPause;
  checkpoints_.at = done ? SteadyTime{} : clock_.Steady() + checkpoints_.pause;
  if (!done && TooMuchToCheckpoint()) return FallBehind(cancel);
  // So that the next one finds room, and the next database.
  if (state_ == State::kFollowing && saved_ && (shipper_.saved_bytes() > Shipper::kSavedBytes / 4 || shipper_.others_wait_to_save()))
    ShipPending(cancel);
}

bool Follower::TooMuchToCheckpoint() {
  if (state_ != State::kFollowing || !too_much_since_.has_value() || clock_.Steady() - *too_much_since_ <= kBehindFor) return false;
  const auto look = attached_->Look();
  return look.ok() && capture::WalBytes(look->page_size, look->max_frame) > MostBehind();
}

bool Follower::CheckpointOnce(const CancelToken& cancel) {
  const auto look = attached_->Look();
  if (!look.ok()) return false;
  const bool again = std::exchange(checkpoints_.tried, look->salts) == look->salts;
  // Whoever reads what is old is in the application's way as well.
  return (again && !checkpoints_.HeldBackForLong() && StandAside()) || (state_ == State::kFollowing && CheckpointInRounds(cancel));
}

bool Follower::CheckpointInRounds(const CancelToken& cancel) {
  // A hold bounds what is copied, so the last round has to end before the next transaction begins: each copies what was committed during
  // the one before. A hold on mark 0 begins only when all that it has was shipped, or is kept in memory.
  for (int round = 0; round <= kCheckpointRounds && !cancel.cancelled(); ++round) {
    if (!LookAndSave() || !HandOver()) return false;
    const Held held = attached_->held();
    if (held.may_be_mark0) {
      // Whoever was within a transaction then goes on where the WAL ends.
      const auto look = attached_->Look();
      if (!look.ok() || look->salts != held.begun.salts || look->max_frame == held.begun.frame) return true;
      continue;
    }
    if (round == kCheckpointRounds) break;
    const auto done = attached_->Checkpoint();
    if (!done.ok()) {
      spdlog::warn("{}: a checkpoint failed: {}", options_.database, MessageOf(done.status()));
      return false;
    }
    checkpoints_.held_back.reset();
    if (!done->ran) break;  // the application is at it
    if (done->copied < held.begun.frame) checkpoints_.held_back = {held.begun.salts, done->copied};
  }
  return false;
}

bool Follower::StandAside() {
  if (state_ != State::kFollowing || !LookAndSave()) return false;
  const capture::WalPlace before = shipped_;
  if (attached_->held().may_be_mark0 && (!HandOver() || attached_->held().may_be_mark0)) return false;
  if (shipped_ != before) return false;
  // Somebody cut it: whoever copies it copies what is not there. While the hold is above mark 0 nobody starts it over.
  if (const auto there = attached_->Look(); there.ok()) {
    const auto sight = attached_->SightOf(*there);
    if (sight.ok() && sight->wal_bytes < capture::WalBytes(there->page_size, there->max_frame)) {
      Doubt("WAL_SHORTER");
      return false;
    }
  }
  // What it takes to hold again is there before anything is let go of.
  if (const absl::Status ready = attached_->Touch(); !ready.ok()) {
    if (ReasonOf(ready) == "DATABASE_REPLACED") Doubt("DATABASE_REPLACED");
    return false;
  }
  const auto rule = attached_->StandAside(kAside, options_.while_aside);
  if (!rule.ok()) {
    HoldLost(rule.status());
    return false;
  }
  if (*rule == Attached::Rule::kNotSeenFree) {
    Doubt("CHECKPOINT_LOCK_HELD");
    return false;
  }
  const auto look = attached_->Look();
  const auto sight = look.ok() ? attached_->SightOf(*look) : absl::StatusOr<Sight>(look.status());
  if (!sight.ok()) {
    Doubt("LOOK_FAILED");
    return false;
  }
  if (sight->now.salts == before.salts) return false;  // it has grown: what came is still there
  const Judgement judgement = JudgeAfterStandingAside(before, *sight);
  if (judgement.verdict == Verdict::kDoubt) {
    Doubt(judgement.reason);
    return false;
  }
  return TakeEnd(before, *look);
}

bool Follower::MayRestart() { return options_.allow_restart && clock_.Steady() >= checkpoints_.restart_at; }

absl::StatusOr<bool> Follower::Restart(const std::function<bool()>& save) {
  LF_ASSIGN_OR_RETURN(const bool done, attached_->Restart(kRestartBudget, save));
  milliseconds& wait = checkpoints_.restart_wait;
  wait = done ? milliseconds(0) : std::min<milliseconds>(std::max(kFirstRestartWait, wait * 2), kLongestRestartWait);
  checkpoints_.restart_at = clock_.Steady() + wait;
  return done;
}

bool Follower::RestartWhenDue() {
  if (state_ != State::kFollowing || !MayRestart()) return false;
  const auto look = attached_->Look();
  if (!look.ok() || capture::WalBytes(look->page_size, look->max_frame) <= 4 * options_.checkpoint_bytes) return false;
  if (!LookAndSave()) return false;
  if (attached_->held().may_be_mark0 && (!HandOver() || attached_->held().may_be_mark0)) return false;
  std::string doubt;
  const auto done = Restart([&] { return TrySave(doubt); });
  if (!doubt.empty()) {
    Doubt(doubt);
    return false;
  }
  if (!done.ok() && state_ == State::kFollowing) {
    HoldLost(done.status());
    return false;
  }
  return done.ok() && *done && state_ == State::kFollowing;
}

bool Follower::TakeEnd(const capture::WalPlace& before, const capture::WalState& look) {
  capture::UserDatabase& database = attached_->holder();
  const auto end = capture::EndOfGeneration(database.wal_file(), before);
  if (!end.ok()) {
    spdlog::info("{}: {}", options_.database, MessageOf(end.status()));
    Doubt("END_NOT_CERTAIN");
    return false;
  }
  if (*end != before) {
    Stretch stretch{before, *end, look, clock_.Now(), clock_.SinceBoot()};
    const auto saved = shipper_.SaveEnd(stretch, database);
    if (!saved.ok() || !*saved) {
      spdlog::info("{}: {}", options_.database, saved.ok() ? "the end of the WAL is more than is kept" : MessageOf(saved.status()));
      Doubt("END_NOT_CERTAIN");
      return false;
    }
    if (saved_) stretch.from = pending_->from;
    pending_ = stretch;
    session_id_ = NewUlid(clock_.Now());
    saved_ = true;
  }
  shipped_ = BeforeFirstFrame(*end, capture::PlaceOf(look));
  seen_.reset();
  // So that the time of what is pending is that of what it holds: the new generation has begun.
  if (LookAndSave()) return true;
  if (state_ == State::kFollowing) Doubt("END_NOT_CERTAIN");
  return false;
}

}  // namespace litefleet::follow
