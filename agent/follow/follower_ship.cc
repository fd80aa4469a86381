// The part of Follower that looks, ships, hands over and gives way while a database is followed.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
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
constexpr seconds kLocal{1};  // between two looks of a sync; longer is reading
constexpr milliseconds kLocksAgain{100};

// Whether what was sent in an attempt that failed so is progress. Where the controller has heard it and says no, since it has no room for
// instance, it is none, whatever it keeps of it for a while. What else is not of the link may be its disk, or a proxy that cuts streams:
// then what has become durable counts, of which the next attempt sends nothing again.
bool Moved(const absl::Status& status, bool brought_something) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return true;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kInvalidArgument:
      return false;
    default:
      return brought_something;
  }
}

}  // namespace

bool Follower::LookAndShip(const CancelToken& cancel) {
  if (pending_.has_value()) {
    if (!saved_) return ShipPending(cancel);
    // What came since goes with it, where there is room.
    const bool all = backoff_ == milliseconds(0) && LookAndSave();
    if (state_ != State::kFollowing || !ShipPending(cancel) || all) return state_ == State::kFollowing && !pending_.has_value();
  }
  // What is committed between the two may be in what the look finds, or not: with nothing new all is known until `before`, and a state
  // holds nothing that came after `after`.
  const Moment before = Moment::Now(clock_);
  const auto look = attached_->Look();
  if (!look.ok()) {
    // A writer died within its commit: whoever reads next mends the header, and that may be the agent.
    if (FailsForLong(not_looked_at_)) {
      GiveUpHold("LEASE_EXPIRED", MessageOf(look.status()));
    } else {
      attached_->Touch().IgnoreError();
    }
    return false;
  }
  not_looked_at_.reset();
  return ShipUpTo(*look, before, Moment::Now(clock_), cancel);
}

bool Follower::ShipUpTo(const capture::WalState& look, const Moment& before, const Moment& after, const CancelToken& cancel) {
  const auto sight = attached_->SightOf(look);
  if (!sight.ok()) {
    Fail(sight.status());
    return false;
  }
  const Judgement judgement = Judge(shipped_, attached_->held(), *sight);
  switch (judgement.verdict) {
    case Verdict::kUnchanged: {
      too_much_since_.reset();
      seen_ = look;
      Progress();
      Unchanged(before);
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
    seen_ = look;
    return HandOver();
  }
  pending_ = Stretch{shipped_, sight->now, look, after.at, after.since_boot.value_or(clock_.SinceBoot())};
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
  // The lease of what was saved, which may have waited for its interval, begins as it is to be sent.
  if (!std::exchange(tried_to_send_, true)) Progress();
  const bool spools = MustSpool();
  if (!spools && !Connected()) {
    retry_at_ = clock_.Steady() + std::min<milliseconds>(options_.interval, kShort * 4);
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", "the controller could not be reached");
    return false;
  }
  const Stretch stretch = *pending_;
  const uint64_t timeline = home_.Timeline(options_.database);
  CancelToken stop;
  bool behind = false, left = false, overdue = false, gives_way = false, stalled = false;
  std::string short_of_space;
  const SteadyTime began = clock_.Steady();
  SteadyTime looked_at = began;
  const auto look = [&](bool moved) {
    // What the device itself takes is not the network's.
    const SteadyTime now = clock_.Steady();
    if (now - looked_at > kLocal) progress_at_ += now - looked_at;
    looked_at = now;
    if (moved) Progress();
    if (!behind) behind = Behind();
    if (short_of_space.empty()) short_of_space = ShortOfSpace();
    // Nobody is there any more: the files are let go of, whatever the network does. The spool takes a moment.
    if (!spools && !left && noticed_.exchange(false)) left = !OthersAttached();
    overdue = overdue || Overdue();
    stalled = stalled || (!spools && shipper_.MaySpool() && now - progress_at_ > options_.spool_after);
    if (!gives_way && now - began > kShort) gives_way = MustGiveWay();
    if (behind || left || overdue || gives_way || stalled || !short_of_space.empty() || cancel.cancelled()) stop.Interrupt();
  };
  const bool was_saved = saved_;
  const SteadyTime progress_before = progress_at_;
  // The same session: it may have been committed, and the answer lost.
  const Shipper::Waiting waiting{session_id_, timeline, current_.at};
  const auto shipped = spools && was_saved ? shipper_.SpoolSaved(waiting, stop, look)
                       : spools            ? shipper_.Spool(waiting, stretch, attached_->holder(), stop, look)
                       : was_saved         ? shipper_.SendSaved(session_id_, timeline, stop, look)
                                           : shipper_.Ship(session_id_, timeline, stretch, attached_->holder(), stop, look);
  if (!shipped.ok()) {
    if (cancel.cancelled()) return false;
    // What was written or sent for nothing is none.
    const bool moved = spools ? ReasonOf(shipped.status()) != spool::kSpoolFull : Moved(shipped.status(), shipper_.brought_something());
    if (!moved) progress_at_ = std::min(progress_at_, progress_before);
    // An attempt that was cut off says nothing of why the ones before it failed.
    if (!absl::IsCancelled(shipped.status())) refused_ = spools || moved ? "" : MessageOf(shipped.status());
    if (!short_of_space.empty()) {
      GiveUpHold("DISK_RESERVE", short_of_space);
      return false;
    }
    if (behind) {
      backoff_ = kShort;  // of this attempt nothing is known
      FallBehind(cancel);
      return false;
    }
    if (overdue) {
      spools ? GiveUpHold(kCaptureSpoolFull, "no room was made in the spool in time")
             : GiveUpHold("LEASE_EXPIRED", refused_.empty() ? "the controller did not answer" : refused_);
      return false;
    }
    if (left) noticed_.store(true);
    if (Shipper::IsDoubt(shipped.status())) {
      Doubt(ReasonOf(shipped.status()));
      return false;
    }
    if (gives_way && !shipper_.committing()) {  // it was not the link
      GiveWay();
      return false;
    }
    if (spools && absl::IsResourceExhausted(shipped.status())) {
      spooling_.full_until = clock_.Steady() + kFullFor;
      GiveUpHold(kCaptureSpoolFull, MessageOf(shipped.status()));
      return false;
    }
    backoff_ = std::min<milliseconds>(std::max(kShort, backoff_ * 2), kLongestBackoff);
    retry_at_ = clock_.Steady() + backoff_;
    if (gives_way) {
      GiveWay();
      return false;
    }
    if (ReasonOf(shipped.status()) == "WAL_INDEX_BUSY") attached_->Touch().IgnoreError();  // as where it is looked at
    spdlog::info("{}: a sync was interrupted and is tried again: {}", options_.database, MessageOf(shipped.status()));
    if (stalled || (shipper_.MaySpool() && clock_.Steady() - progress_at_ > options_.spool_after)) {
      spooling_.stalled = true;
      shipper_.SyncLedger();  // it goes into the spool, and is built on what the ledger stands for
      retry_at_ = {};
    }
    if (Overdue())
      GiveUpHold(ReasonOf(shipped.status()) == spool::kSpoolFull ? kCaptureSpoolFull : "LEASE_EXPIRED", MessageOf(shipped.status()));
    return false;
  }
  backoff_ = milliseconds(0);
  retry_at_ = {};
  pending_.reset();
  saved_ = tried_to_send_ = false;
  session_id_.clear();
  refused_.clear();
  spooling_.stalled = false;
  busy_at_ = clock_.Steady();
  Progress();
  if (!shipped->snapshot_id.empty()) {
    NoteApart(stretch.moment(), "the state before took longer to be sent, or spooled, than states may be apart");
    spools ? Spooled(stretch.moment()) : Acknowledged(shipped->snapshot_id, stretch.moment());
  }
  LF_CRASH_POINT("follow.shipped");
  if (was_saved) return true;  // the hold of now began after it
  shipped_ = stretch.to;
  seen_ = stretch.look;
  if (NothingNew()) too_much_since_.reset();
  return HandOver();
}

bool Follower::NothingNew() {
  const auto look = attached_->Look();
  return look.ok() && seen_.has_value() && *look == *seen_;
}

uint64_t Follower::BytesBehind(const capture::WalPlace& place) {
  const auto look = attached_->Look();
  if (!look.ok()) return 0;
  const uint32_t frames = look->salts == place.salts ? look->max_frame - std::min(place.frame, look->max_frame) : look->max_frame;
  return capture::WalBytes(look->page_size, frames);
}

uint64_t Follower::MostBehind() const {
  return (options_.allow_restart ? options_.most_behind_with_restart : options_.most_behind) * options_.checkpoint_bytes;
}

bool Follower::BehindBy(const capture::WalPlace& place) {
  const uint64_t most = MostBehind(), bytes = BytesBehind(place);
  if (bytes <= most) {
    behind_since_.reset();
    return false;
  }
  // One large transaction is shipped in a moment.
  if (!behind_since_.has_value()) behind_since_ = clock_.Steady();
  return bytes > 2 * most || clock_.Steady() - *behind_since_ > kBehindFor;
}

void Follower::FallBehind(const CancelToken& cancel) {
  // Who has gone writes no more; what he left is folded in, if it is his file yet.
  if (!attached_->SameFiles()) return Doubt("DATABASE_REPLACED");
  if (!OthersAttached()) return Leave(cancel);
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
  const SystemTime taken_at = clock_.Now();
  const std::chrono::nanoseconds since_boot = clock_.SinceBoot();
  if (!look.ok()) return false;
  const auto sight = attached_->SightOf(*look);
  if (!sight.ok()) return false;
  const Judgement judgement = Judge(shipped_, attached_->held(), *sight);
  if (judgement.verdict == Verdict::kUnchanged) {
    too_much_since_.reset();
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
  Stretch stretch{pending_.has_value() && !saved_ ? pending_->from : shipped_, sight->now, *look, taken_at, since_boot};
  const auto saved = shipper_.Save(stretch, attached_->holder());
  if (!saved.ok()) {
    doubt = Shipper::IsDoubt(saved.status()) ? ReasonOf(saved.status()) : "WAL_UNREADABLE";
    return false;
  }
  if (!*saved) {
    if (!too_much_since_.has_value() && !shipper_.others_wait_to_save()) too_much_since_ = clock_.Steady();
    return false;
  }
  too_much_since_.reset();
  if (saved_) stretch.from = pending_->from;
  pending_ = stretch;
  session_id_ = NewUlid(clock_.Now());
  saved_ = true;
  shipped_ = stretch.to;
  seen_ = stretch.look;
  return true;
}

bool Follower::FailsForLong(std::optional<Failing>& failing) const {
  const SteadyTime now = clock_.Steady();
  if (!failing.has_value() || now - failing->last > options_.MostApart()) failing = {now, now};
  failing->last = now;
  if (now - failing->since <= options_.lease) return false;
  failing.reset();
  return true;
}

bool Follower::HandOver() {
  busy_at_ = clock_.Steady();  // the second connection is closed after a while
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
      if (FailsForLong(not_handed_over_)) GiveUpHold("LEASE_EXPIRED", MessageOf(rule.status()));
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

bool Follower::HandOverWhenInTheWay() {
  // Else the next hold could be on mark 0 with what was not shipped.
  if (!NothingNew()) return true;
  if (not_handed_over_.has_value()) return HandOver();
  const auto in_the_way = attached_->InTheWay(*seen_);
  return !in_the_way.ok() || !*in_the_way || HandOver();
}

bool Follower::MustGiveWay() {
  if (attached_ == nullptr || !attached_->MayHoldUp()) {
    checkpoint_waits_since_.reset();
    return false;
  }
  return CheckpointWaits();
}

bool Follower::CheckpointWaits() {
  const SteadyTime now = clock_.Steady();
  if (now - locks_at_ >= kLocksAgain) {
    locks_at_ = now;
    if (!attached_->WriterCheckpoints()) {
      checkpoint_waits_since_.reset();
    } else if (!checkpoint_waits_since_.has_value()) {
      checkpoint_waits_since_ = now;
    }
  }
  return checkpoint_waits_since_.has_value() && now - *checkpoint_waits_since_ >= Attached::kLockWait;
}

SteadyTime Follower::LookForWaitersAt() const {
  if (checkpoint_waits_since_.has_value()) return clock_.Steady() + kLocksAgain;
  return options_.interval > kLookAtLeast ? clock_.Steady() + kLookAtLeast : SteadyTime::max();
}

void Follower::GiveWay() {
  const bool following = state_ == State::kFollowing;
  const bool all = !following || SaveAll();
  if (attached_ == nullptr || (following && state_ != State::kFollowing)) return;
  if (!all) {
    // It waits for the write lock's holder alone, who is itself: no frame is newer, and what the older hold keeps from being copied keeps
    // the next one above mark 0. Once all is copied only the end of the hold is missing.
    const auto look = attached_->Look();
    const auto in_the_way = look.ok() ? attached_->InTheWay(*look) : absl::StatusOr<bool>(look.status());
    if (!in_the_way.ok() || *in_the_way)
      return GiveUpHold("CHECKPOINT_WAITED", "an application's checkpoint waited for what could not be sent or saved");
  }
  if (following) {
    HandOver();
  } else if (const absl::Status status = attached_->HandOver([](const capture::WalState&) {}).status(); !status.ok()) {
    HoldLost(status);
  }
}

bool Follower::SaveAll() {
  if (backoff_ == milliseconds(0)) return LookAndSave();
  if (pending_.has_value() && !saved_) {
    const auto saved = shipper_.Save(*pending_, attached_->holder());
    if (!saved.ok()) {
      Doubt(Shipper::IsDoubt(saved.status()) ? ReasonOf(saved.status()) : "WAL_UNREADABLE");
      return false;
    }
    if (!*saved) return false;
    saved_ = true;
    shipped_ = pending_->to;
    seen_ = pending_->look;
  }
  return NothingNew();
}

}  // namespace litefleet::follow
