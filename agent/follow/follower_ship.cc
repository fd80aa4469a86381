// The part of Follower that looks, ships, hands over and checkpoints while a database is followed.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/capture/wal_end.h"
#include "agent/follow/follower.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kShort{50};
constexpr seconds kLongestBackoff{10};
constexpr seconds kBehindFor{10};
constexpr seconds kProveAgain{60};
constexpr std::chrono::hours kProveLater{1};  // after it was in the way
constexpr milliseconds kShortestPeek{20};
constexpr milliseconds kRestartBudget{250};  // that writers may have to wait
constexpr milliseconds kFirstRestartWait{250};
constexpr seconds kLongestRestartWait{30};
constexpr milliseconds kCheckpointPause{50};  // after what came to nothing
constexpr seconds kLocal{1};                  // between two looks of a sync; longer is reading
constexpr milliseconds kAside{60};            // two commits, and what the application copies between them

}  // namespace

bool Follower::LookAndShip(const CancelToken& cancel) {
  if (pending_.has_value()) {
    if (!saved_) return ShipPending(cancel);
    // What came since goes with it, where there is room.
    const bool all = backoff_ == milliseconds(0) && LookAndSave();
    if (state_ != State::kFollowing || !ShipPending(cancel) || all) return state_ == State::kFollowing && !pending_.has_value();
  }
  const auto look = attached_->Look();
  if (!look.ok()) {
    // A writer died within its commit: whoever reads next mends the header, and that may be the agent.
    if (Overdue()) {
      GiveUpHold("LEASE_EXPIRED", MessageOf(look.status()));
    } else {
      attached_->Touch().IgnoreError();
    }
    return false;
  }
  const SystemTime taken_at = clock_.Now();
  const auto sight = attached_->SightOf(*look);
  if (!sight.ok()) {
    Fail(sight.status());
    return false;
  }
  const Judgement judgement = Judge(shipped_, attached_->held(), *sight);
  switch (judgement.verdict) {
    case Verdict::kUnchanged: {
      seen_ = *look;
      Progress();
      MutexLock lock(mu_);
      status_.unchanged_at = taken_at;
      return true;
    }
    case Verdict::kDoubt:
      Doubt(judgement.reason);
      return false;
    case Verdict::kGrown:
    case Verdict::kResetOnce:
      break;
  }
  if (sight->now.frame == 0) {  // started over, and nothing since
    shipped_ = sight->now;
    seen_ = *look;
    return HandOver();
  }
  pending_ = Stretch{shipped_, sight->now, *look, taken_at, clock_.SinceBoot()};
  session_id_ = NewUlid(clock_.Now());
  Progress();  // the lease begins
  return ShipPending(cancel);
}

bool Follower::ShipPending(const CancelToken& cancel) {
  if (const std::string why = ShortOfSpace(); !why.empty()) {
    GiveUpHold("DISK_RESERVE", why);
    return false;
  }
  busy_at_ = clock_.Steady();
  if (!shipper_.Connected()) {
    retry_at_ = clock_.Steady() + std::min<milliseconds>(options_.interval, kShort * 4);
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", "the controller could not be reached");
    return false;
  }
  const Stretch stretch = *pending_;
  const uint64_t timeline = home_.Timeline(options_.database);
  CancelToken stop;
  bool behind = false, left = false, overdue = false;
  std::string short_of_space;
  SteadyTime looked_at = clock_.Steady();
  const auto look = [&](bool moved) {
    // What the device itself takes is not the network's.
    const SteadyTime now = clock_.Steady();
    if (now - looked_at > kLocal) progress_at_ += now - looked_at;
    looked_at = now;
    if (moved) Progress();
    if (!behind) behind = Behind();
    if (short_of_space.empty()) short_of_space = ShortOfSpace();
    // Nobody is there any more: the files are let go of, whatever the network does.
    if (!left && noticed_.exchange(false)) left = !OthersAttached();
    overdue = overdue || Overdue();
    if (behind || left || overdue || !short_of_space.empty() || cancel.cancelled()) stop.Interrupt();
  };
  const bool was_saved = saved_;
  const auto shipped = was_saved ? shipper_.SendSaved(session_id_, timeline, stop, look)
                                 : shipper_.Ship(session_id_, timeline, stretch, attached_->holder(), stop, look);
  if (!shipped.ok()) {
    if (cancel.cancelled()) return false;
    if (!short_of_space.empty()) {
      GiveUpHold("DISK_RESERVE", short_of_space);
      return false;
    }
    if (behind) {
      FallBehind();
      return false;
    }
    if (overdue) {
      GiveUpHold("LEASE_EXPIRED", "the controller did not answer");
      return false;
    }
    if (left) noticed_.store(true);
    if (Shipper::IsDoubt(shipped.status())) {
      Doubt(ReasonOf(shipped.status()));
      return false;
    }
    backoff_ = std::min<milliseconds>(std::max(kShort, backoff_ * 2), kLongestBackoff);
    retry_at_ = clock_.Steady() + backoff_;
    if (ReasonOf(shipped.status()) == "WAL_INDEX_BUSY") attached_->Touch().IgnoreError();  // as where it is looked at
    spdlog::info("{}: a sync was interrupted and is tried again: {}", options_.database, MessageOf(shipped.status()));
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", MessageOf(shipped.status()));
    return false;
  }
  backoff_ = milliseconds(0);
  retry_at_ = {};
  pending_.reset();
  saved_ = false;
  session_id_.clear();
  busy_at_ = clock_.Steady();
  Progress();
  if (!shipped->snapshot_id.empty()) Acknowledged(shipped->snapshot_id, stretch.taken_at);
  LF_CRASH_POINT("follow.shipped");
  if (was_saved) return true;  // the hold of now began after it
  shipped_ = stretch.to;
  seen_ = stretch.look;
  return HandOver();
}

bool Follower::NothingNew() {
  const auto look = attached_->Look();
  return look.ok() && seen_.has_value() && *look == *seen_;
}

bool Follower::Behind() {
  const auto look = attached_->Look();
  if (!look.ok()) return false;
  const uint32_t frames = look->salts == shipped_.salts ? look->max_frame - std::min(shipped_.frame, look->max_frame) : look->max_frame;
  const uint64_t most = (options_.allow_restart ? options_.most_behind_with_restart : options_.most_behind) * options_.checkpoint_bytes;
  const uint64_t bytes = capture::WalBytes(look->page_size, frames);
  if (bytes <= most) {
    behind_since_.reset();
    return false;
  }
  // One large transaction is shipped in a moment.
  if (!behind_since_.has_value()) behind_since_ = clock_.Steady();
  return bytes > 2 * most || clock_.Steady() - *behind_since_ > kBehindFor;
}

void Follower::FallBehind() {
  const std::string message = "frames come faster than they are shipped";
  behind_since_.reset();
  compare_at_ = clock_.Steady() + options_.behind_rest;
  if (!options_.allow_restart) return GiveUpHold("BEHIND", message);
  BeginGap("BEHIND", message);
  Doubt("BEHIND");
  RestBeforeComparing();
  MutexLock lock(mu_);
  status_.health.set_message(message);
}

bool Follower::LookAndSave() {
  std::string doubt;
  const bool saved = TrySave(doubt);
  if (!doubt.empty()) Doubt(doubt);
  return saved;
}

bool Follower::TrySave(std::string& doubt) {
  const auto look = attached_->Look();
  if (!look.ok()) return false;
  const SystemTime taken_at = clock_.Now();
  const auto sight = attached_->SightOf(*look);
  if (!sight.ok()) return false;
  const Judgement judgement = Judge(shipped_, attached_->held(), *sight);
  if (judgement.verdict == Verdict::kUnchanged) {
    seen_ = *look;
    return true;
  }
  if (judgement.verdict == Verdict::kDoubt) {
    doubt = judgement.reason;
    return false;
  }
  if (sight->now.frame == 0) {  // started over, and nothing since
    shipped_ = sight->now;
    seen_ = *look;
    return true;
  }
  // What is pending and not saved is still in the WAL, and taken with it.
  Stretch stretch{pending_.has_value() && !saved_ ? pending_->from : shipped_, sight->now, *look, taken_at, clock_.SinceBoot()};
  const auto saved = shipper_.Save(stretch, attached_->holder());
  if (!saved.ok()) {
    doubt = Shipper::IsDoubt(saved.status()) ? ReasonOf(saved.status()) : "WAL_UNREADABLE";
    return false;
  }
  if (!*saved) return false;
  if (saved_) stretch.from = pending_->from;
  if (!pending_.has_value()) Progress();
  pending_ = stretch;
  session_id_ = NewUlid(clock_.Now());
  saved_ = true;
  shipped_ = stretch.to;
  seen_ = stretch.look;
  return true;
}

bool Follower::HandOver() {
  Judgement judgement;
  const auto rule = attached_->HandOver([&](const capture::WalState& look) {
    const auto sight = attached_->SightOf(look);
    judgement = sight.ok() ? Judge(shipped_, attached_->held(), *sight) : Judgement{Verdict::kDoubt, "LOOK_FAILED"};
    if (judgement.verdict == Verdict::kResetOnce) shipped_ = BeforeFirstFrame(shipped_, sight->now);
  });
  if (!rule.ok()) {
    if (ReasonOf(rule.status()) == "DATABASE_REPLACED") {
      Doubt("DATABASE_REPLACED");
    } else if (ReasonOf(rule.status()) == "WAL_REMOVED") {
      Fail(rule.status());
    } else {
      // The hold before it lasts: nothing is lost yet. But while it is on mark 0 nobody folds the WAL, however much of it is shipped.
      spdlog::warn("{}: a read transaction could not be handed over: {}", options_.database, MessageOf(rule.status()));
      const SteadyTime now = clock_.Steady();
      if (!not_handed_over_.has_value() || now - not_handed_over_->last > std::max(options_.short_gap, 2 * options_.interval))
        not_handed_over_ = {now, now};
      not_handed_over_->last = now;
      if (Overdue() || now - not_handed_over_->since > options_.lease) {
        not_handed_over_.reset();
        GiveUpHold("LEASE_EXPIRED", MessageOf(rule.status()));
      }
    }
    return false;
  }
  not_handed_over_.reset();
  if (*rule == Attached::Rule::kNotSeenFree) judgement = {Verdict::kDoubt, "CHECKPOINT_LOCK_HELD"};
  if (judgement.verdict == Verdict::kDoubt) {
    Doubt(judgement.reason);
    return false;
  }
  return true;
}

bool Follower::PlanPeek() {
  peek_at_ = SteadyTime::max();
  if (state_ != State::kFollowing || attached_ == nullptr) return false;
  const auto look = attached_->Look();
  if (!look.ok() || look->page_size == 0) return false;
  const SteadyTime now = clock_.Steady();
  if (now - filled_.at >= kShortestPeek) {
    const uint32_t grown = filled_.salts == look->salts ? look->max_frame - std::min(filled_.frame, look->max_frame) : look->max_frame;
    const double seconds = std::chrono::duration<double>(now - filled_.at).count();
    filled_ = {now, look->salts, look->max_frame, static_cast<double>(capture::WalBytes(look->page_size, grown)) / seconds};
  }
  // On mark 0 the next writer starts a WAL over of which everything was copied.
  const Held held = attached_->held();
  const bool waits_for_reset = held.may_be_mark0 && held.begun == capture::PlaceOf(*look);
  // Before an application would do it itself; where that came to nothing in this generation, with its help.
  const uint64_t due = tried_ == look->salts ? options_.checkpoint_bytes : options_.checkpoint_bytes / 4 * 3;
  const uint64_t bytes = waits_for_reset ? 0 : capture::WalBytes(look->page_size, look->max_frame);
  if (bytes >= due && now >= checkpoint_at_) {
    peek_at_ = now;
    return true;
  }
  if (filled_.bytes_per_second <= 0) return false;  // the next look is soon enough
  const std::chrono::duration<double> until_due(
      std::min(static_cast<double>(due - std::min(bytes, due)) / filled_.bytes_per_second, 3600.0));
  peek_at_ = now + std::clamp<std::chrono::nanoseconds>(std::chrono::duration_cast<std::chrono::nanoseconds>(until_due), kShortestPeek,
                                                        seconds(1));
  peek_at_ = std::max(peek_at_, checkpoint_at_);
  return false;
}

void Follower::CheckpointWhenDue(const CancelToken& cancel) {
  if (pending_.has_value() && backoff_ != milliseconds(0)) return;  // nothing is sent now
  if (!PlanPeek()) return;
  bool done = CheckpointOnce(cancel);
  // Too much to be saved: what there is goes first, from the WAL.
  if (!done && state_ == State::kFollowing && !saved_ && !cancel.cancelled() && LookAndShip(cancel)) done = CheckpointOnce(cancel);
  if (!done) done = RestartWhenDue();
  busy_at_ = clock_.Steady();
  checkpoint_at_ = done ? SteadyTime{} : clock_.Steady() + kCheckpointPause;
  // So that the next one finds room.
  if (state_ == State::kFollowing && saved_ && shipper_.saved_bytes() > Shipper::kSavedBytes / 4) ShipPending(cancel);
}

bool Follower::CheckpointOnce(const CancelToken& cancel) {
  const auto look = attached_->Look();
  if (!look.ok()) return false;
  const bool again = std::exchange(tried_, look->salts) == look->salts;
  return (again && StandAside()) || (state_ == State::kFollowing && CheckpointInRounds(cancel));
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
    if (!done->ran) break;  // the application is at it
  }
  return false;
}

bool Follower::StandAside() {
  if (state_ != State::kFollowing || !LookAndSave()) return false;
  const capture::WalPlace before = shipped_;
  if (attached_->held().may_be_mark0 && (!HandOver() || attached_->held().may_be_mark0)) return false;
  if (shipped_ != before) return false;
  const auto rule = attached_->StandAside(kAside, options_.while_aside);
  if (!rule.ok()) {
    GiveUpHold("HOLD_LOST", MessageOf(rule.status()));
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

bool Follower::MayRestart() { return options_.allow_restart && clock_.Steady() >= restart_at_; }

absl::StatusOr<bool> Follower::Restart(const std::function<bool()>& save) {
  LF_ASSIGN_OR_RETURN(const bool done, attached_->Restart(kRestartBudget, save));
  restart_wait_ = done ? milliseconds(0) : std::min<milliseconds>(std::max(kFirstRestartWait, restart_wait_ * 2), kLongestRestartWait);
  restart_at_ = clock_.Steady() + restart_wait_;
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
    GiveUpHold("HOLD_LOST", MessageOf(done.status()));
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

void Follower::ProveWhenDue(const CancelToken& cancel) {
  if (state_ != State::kFollowing || pending_.has_value() || !seen_.has_value()) return;
  if (clock_.Steady() < prove_at_ || !home_.BeginCompare()) return;
  const auto end = absl::MakeCleanup([this] { home_.EndCompare(); });
  const SteadyTime began = clock_.Steady();
  bool in_the_way = false, gone = false;
  const auto stop = [&] {
    // Nobody else is there any more, or another file: what was read proves nothing, and keeps the WAL.
    if (!gone && noticed_.exchange(false)) gone = !OthersAttached();
    gone = gone || !attached_->SameFiles();
    // What is committed meanwhile waits, and an application's RESTART or TRUNCATE.
    const auto checkpoint_waits = attached_->InTheWay(*seen_);
    in_the_way = in_the_way || Behind() || !ShortOfSpace().empty() || (checkpoint_waits.ok() && *checkpoint_waits) ||
                 (clock_.Steady() - began > options_.lease / 2 && !NothingNew());
    return gone || in_the_way || cancel.cancelled();
  };
  const auto proof = shipper_.Prove(options_.source, shipped_, stop);
  if (cancel.cancelled()) return;
  if (gone || !attached_->SameFiles()) return noticed_.store(true);  // looked at at once
  if (in_the_way) {
    spdlog::info("{}: what was shipped is compared later: the reading was in the way of others", options_.database);
    prove_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(options_.prove_every, kProveLater);
    return;
  }
  if (!proof.ok()) {
    spdlog::warn("{}: it could not be compared with what was shipped: {}", options_.database, MessageOf(proof.status()));
    prove_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(options_.prove_every, kProveAgain);
    return;
  }
  // Of a database that changes all the time the next sync is tried.
  if (!proof->has_value()) return;
  prove_at_ = clock_.Steady() + options_.prove_every;
  v1::ChainCheck check;
  check.set_database(options_.database);
  check.set_snapshot_id((*proof)->snapshot_id);
  check.set_root_digest(std::string((*proof)->read.AsString()));
  check.set_page_size((*proof)->page_size);
  check.set_page_count((*proof)->page_count);
  {
    MutexLock lock(mu_);
    chain_asked_ = check.snapshot_id();
  }
  home_.CheckChain(check);
  // The ledger's is the one that the controller had proven when it was acknowledged.
  if ((*proof)->read != (*proof)->known) ChainDiffers();
}

void Follower::ChainChecked(const v1::ChainChecked& checked) {
  MutexLock lock(mu_);
  if (checked.snapshot_id().empty() || checked.snapshot_id() != chain_asked_) return;
  chain_asked_.clear();
  if (!checked.equal()) chain_differs_.store(true);
}

void Follower::ChainDiffers() {
  spdlog::error("{}: the database is not what its last snapshot says, by its root: snapshots since the last comparison are in question",
                options_.database);
  {
    MutexLock lock(mu_);
    chain_asked_.clear();  // the answer would say it again
  }
  fresh_base_ = true;
  Doubt("CHAIN_DIFFERS");
  MutexLock lock(mu_);
  status_.health.set_message(
      "the database was not what its last snapshot said; pages are compared, and snapshots of before are in question");
}

}  // namespace litefleet::follow
