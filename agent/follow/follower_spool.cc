// The part of Follower that goes on without the controller: into the spool, and out of it again.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/follow/follower.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kDrainFor{5};  // in one turn, unless one upload takes longer
constexpr milliseconds kDrainLook{100};
constexpr std::chrono::minutes kSmallAgain{1};
constexpr seconds kAskAgain{10};  // what there is to compare with
constexpr milliseconds kFirstDrainBackoff{1000};
constexpr seconds kLongestDrainBackoff{30};
constexpr seconds kLongestPause{60};  // between two syncs while older ones are uploaded; where it is a gap, that is told

}  // namespace

bool Follower::Connected() {
  const bool connected = shipper_.Connected();
  if (connected) {
    spooling_.offline_since.reset();
  } else if (!spooling_.offline_since.has_value()) {
    spooling_.offline_since = clock_.Steady();
    shipper_.SyncLedger();
  }
  return connected;
}

bool Follower::MustSpool() { return !Connected() ? shipper_.MaySpool() : shipper_.Spooled() || spooling_.stalled; }

void Follower::Spooled(const Moment& taken) {
  current_ = taken;
  remembered_.clear();
  // As looks are, by whole intervals: the next one is not left out because this one came late.
  const auto interval = std::chrono::duration_cast<std::chrono::nanoseconds>(options_.interval);
  const SteadyTime now = clock_.Steady();
  spooling_.sync_at = SteadyTime((now.time_since_epoch() / interval + 1) * interval);
  if (spooling_.sync_pause > interval) spooling_.sync_at = std::max(spooling_.sync_at, now + spooling_.sync_pause);
  Unchanged(taken);
}

bool Follower::PausedForLong() const {
  const Moment known = KnownUntil();
  return known.known() && Between(known, Moment::Now(clock_)) > options_.MostApart();
}

void Follower::NoteApart(const Moment& taken, const std::string& message) {
  if (gap_.has_value()) return;
  if (const Moment known = KnownUntil(); known.known() && Between(known, taken) > options_.MostApart()) BeginGap(kLinkSlow, message);
}

void Follower::KnownAgain(const Moment& at) {
  if (!gap_.has_value() || gap_->reason != kLinkSlow) return;
  // It ended with the state before this one.
  const Moment before = KnownUntil();
  if (Between(before, at) <= options_.MostApart()) EndGap(before);
}

void Follower::PlanDrain() {
  if (options_.interval > kLookAtLeast && shipper_.Spooled())
    peek_at_ = std::min(peek_at_, std::max(spooling_.drain_at, clock_.Steady() + kLookAtLeast));
}

void Follower::Unchanged(const Moment& at) {
  KnownAgain(at);
  // What the controller has is not what was found.
  const bool spooled = shipper_.Spooled();
  MutexLock lock(mu_);
  status_.known_until = at;
  status_.unchanged_at = spooled ? std::nullopt : std::optional(at.at);
}

Follower::Way Follower::CompareWay() {
  const bool connected = Connected();
  const bool spooled = shipper_.Spooled();
  if (!spooled && connected) return Way::kController;
  // What is spooled goes first. Nothing is compared with it that is in question itself, or does not fit.
  const SteadyTime now = clock_.Steady();
  if (!shipper_.MaySpool() || fresh_base_ || compare_again_.load() || now < spooling_.full_until) return Way::kNone;
  if (!spooled && now - *spooling_.offline_since < options_.spool_after) return Way::kNone;
  if (shipper_.KnowsNewest()) return Way::kSpool;
  spooling_.full_until = now + kAskAgain;
  return Way::kNone;
}

bool Follower::DrainDue() { return !spooling_.draining && shipper_.MayDrain() && clock_.Steady() >= spooling_.drain_at && Connected(); }

void Follower::KeepSpoolSmall(const CancelToken& cancel) {
  const SteadyTime began = clock_.Steady();
  const bool connected = Connected();
  SteadyTime looked_at = began;
  shipper_.KeepSpoolSmall([&] {
    const SteadyTime now = clock_.Steady();
    const bool looks = now - looked_at >= kDrainLook;
    if (looks) looked_at = now;
    // Once the link is back it goes up as it is.
    return !cancel.cancelled() && (connected || !looks || !Connected());
  });
  // What takes long and fails each time would keep a database from being attached.
  if (const SteadyTime now = clock_.Steady(); !cancel.cancelled() && now - began > kLookAtLeast) spooling_.small_at = now + kSmallAgain;
}

void Follower::DrainWhenDue(const CancelToken& cancel) {
  if (!DrainDue() || !home_.BeginTurn(FollowerHome::Turn::kDrain)) return;
  const auto end = absl::MakeCleanup([this] { home_.EndTurn(FollowerHome::Turn::kDrain); });
  const State began_as = state_;
  const SteadyTime began = clock_.Steady();
  SteadyTime looked_at = began;
  CancelToken stop;
  bool goes_on = true;
  spooling_.draining = true;
  const auto beside = [&](bool moved) {
    // What is sent is why it waits: the lease of a hold beside it is for a link that stands still.
    if (moved && state_ == State::kComparing) Progress();
    // What comes meanwhile may not be more than goes.
    spooling_.sync_pause = std::min<std::chrono::nanoseconds>(std::max(spooling_.sync_pause, clock_.Steady() - began), kLongestPause);
    goes_on = goes_on && !cancel.cancelled() && GoOnBeside(began_as, looked_at, cancel);
    if (!goes_on) stop.Interrupt();
  };
  const auto acknowledged = [this](const std::string& snapshot_id) {
    MutexLock lock(mu_);
    status_.snapshot_id = snapshot_id;
  };
  const Shipper::Drained drained = shipper_.Drain(kDrainFor, stop, beside, acknowledged);
  spooling_.draining = false;
  Drained(drained, clock_.Steady() - began, !goes_on);
}

bool Follower::GoOnBeside(State began_as, SteadyTime& looked_at, const CancelToken& cancel) {
  if (state_ != began_as) return false;
  const SteadyTime now = clock_.Steady();
  if (now - looked_at < std::min<milliseconds>(options_.interval, kDrainLook)) return true;
  looked_at = now;
  switch (state_) {
    case State::kFollowing:
      // Into the spool: the upload is of what is older.
      if (Glance() || (now >= peek_at_ && Peek())) StepFollowing(cancel);
      return state_ == State::kFollowing;
    case State::kComparing:
      return !Left() && !MustGiveWay() && !Overdue() && !BehindBy(shipped_) && ShortOfSpace().empty();
    default:
      return state_ != State::kDetached || !MustAttach();
  }
}

bool Follower::MustAttach() {
  // Who was seen before it began is not noticed any more.
  if (!noticed_.load() && there_.empty()) return false;
  if (!OthersAttached()) {
    there_.clear();
    return false;
  }
  // Who only comes and goes does not keep what is spooled from its way, nor what cannot be compared yet.
  if (!TheyStay()) return false;
  if (clock_.Steady() >= compare_at_ && home_.BeginTurn(FollowerHome::Turn::kCompare)) {
    home_.EndTurn(FollowerHome::Turn::kCompare);
    return true;
  }
  Waits("COMPARE_LATER", "pages are compared later");
  return false;
}

void Follower::Drained(const Shipper::Drained& drained, std::chrono::nanoseconds took, bool stopped) {
  const SteadyTime now = clock_.Steady();
  if (drained.snapshots > 0 || drained.given_up) {
    spooling_.full_until = {};
    spooling_.drain_backoff = milliseconds(0);
  }
  if (drained.snapshots > 0)
    spooling_.sync_pause = std::min<std::chrono::nanoseconds>(2 * took / static_cast<int64_t>(drained.snapshots), kLongestPause);
  if (!drained.status.ok() && !stopped) {
    spooling_.drain_backoff = std::clamp<milliseconds>(spooling_.drain_backoff * 2, kFirstDrainBackoff, kLongestDrainBackoff);
    spooling_.drain_at = now + spooling_.drain_backoff;
    spdlog::info("{}: what is spooled is uploaded later: {}", options_.database, MessageOf(drained.status));
  }
  const bool spooled = shipper_.Spooled();
  if (drained.snapshots > 0) {
    MutexLock lock(mu_);
    status_.snapshot_id = drained.snapshot_id;
    status_.unchanged_at.reset();
    if (!spooled && status_.known_until.has_value()) status_.unchanged_at = status_.known_until->at;
    SetLastSync(status_.health, drained.taken, Moment::Now(clock_));
  }
  if (!spooled) {
    spooling_.sync_pause = std::chrono::nanoseconds(0);
    remembered_.clear();
    dirty_ = true;
  }
  if (!drained.given_up) return;
  rested_facts_.clear();
  // What the controller has acknowledged is what its ledger says, unless it has said otherwise.
  if (state_ == State::kFollowing) return Doubt(drained.base_gone ? "BASE_GONE" : "SPOOL_LOST");
  if (drained.base_gone) shipper_.DropLedger();
}

}  // namespace litefleet::follow
