// The part of Follower that looks, ships, hands over and checkpoints while a database is followed.
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
constexpr seconds kProveAgain{60};
constexpr int kCheckpointRounds = 4;

}  // namespace

bool Follower::LookAndShip(const CancelToken& cancel) {
  if (pending_.has_value()) return ShipPending(cancel);
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
  const auto progress = [this] { Progress(); };
  const bool was_saved = saved_;
  const auto shipped = was_saved ? shipper_.SendSaved(session_id_, timeline, cancel, progress)
                                 : shipper_.Ship(session_id_, timeline, stretch, attached_->holder(), cancel, progress);
  if (!shipped.ok()) {
    if (cancel.cancelled()) return false;
    if (Shipper::IsDoubt(shipped.status())) {
      Doubt(ReasonOf(shipped.status()));
      return false;
    }
    backoff_ = std::min<milliseconds>(std::max(kShort, backoff_ * 2), kLongestBackoff);
    retry_at_ = clock_.Steady() + backoff_;
    spdlog::info("{}: a sync was interrupted and is tried again: {}", options_.database, MessageOf(shipped.status()));
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", MessageOf(shipped.status()));
    return false;
  }
  backoff_ = milliseconds(0);
  retry_at_ = {};
  pending_.reset();
  saved_ = false;
  busy_at_ = clock_.Steady();
  Progress();
  if (!shipped->snapshot_id.empty()) Acknowledged(shipped->snapshot_id, stretch.taken_at);
  LF_CRASH_POINT("follow.shipped");
  if (was_saved) return true;  // the hold of now began after it
  shipped_ = stretch.to;
  seen_ = stretch.look;
  return HandOver();
}

bool Follower::LookAndSave() {
  const auto look = attached_->Look();
  if (!look.ok()) return false;
  const SystemTime taken_at = clock_.Now();
  const auto sight = attached_->SightOf(*look);
  if (!sight.ok()) return false;
  const Judgement judgement = Judge(shipped_, attached_->held(), *sight);
  if (judgement.verdict == Verdict::kUnchanged) return true;
  if (judgement.verdict != Verdict::kGrown) {
    // Not under a hold above mark 0.
    if (judgement.verdict == Verdict::kDoubt) Doubt(judgement.reason);
    return false;
  }
  // What was saved before and has not been sent is taken together with what is new: the WAL has both.
  const capture::WalPlace from = pending_.has_value() ? pending_->from : shipped_;
  pending_ = Stretch{from, sight->now, *look, taken_at, clock_.SinceBoot()};
  session_id_ = NewUlid(clock_.Now());
  const auto saved = shipper_.Save(*pending_, attached_->holder());
  saved_ = saved.ok() && *saved;
  if (!saved.ok() && Shipper::IsDoubt(saved.status())) {
    Doubt(ReasonOf(saved.status()));
    return false;
  }
  if (!saved_) return false;
  shipped_ = pending_->to;
  seen_ = pending_->look;
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
    } else {
      // The hold before it lasts: nothing is lost yet.
      spdlog::warn("{}: a read transaction could not be handed over: {}", options_.database, MessageOf(rule.status()));
      if (Overdue()) GiveUpHold("LEASE_EXPIRED", MessageOf(rule.status()));
    }
    return false;
  }
  if (*rule == Attached::Rule::kNotSeenFree) judgement = {Verdict::kDoubt, "CHECKPOINT_LOCK_HELD"};
  if (judgement.verdict == Verdict::kDoubt) {
    Doubt(judgement.reason);
    return false;
  }
  return true;
}

void Follower::CheckpointWhenDue(const CancelToken& cancel) {
  const uint32_t page_size = shipped_.page_size;
  if (page_size == 0 || capture::WalBytes(page_size, shipped_.frame) <= options_.checkpoint_bytes) return;
  // Between the hold that bounds what is copied and the next one, which may then be on mark 0, as little as possible: the network is waited
  // for afterwards. A hold on mark 0 begins only when all that it has was shipped, or is kept in memory.
  for (int round = 0; round < kCheckpointRounds; ++round) {
    if (attached_->held().may_be_mark0) break;  // the next writer starts the WAL over
    const auto done = attached_->Checkpoint();
    if (!done.ok()) spdlog::warn("{}: a checkpoint failed: {}", options_.database, MessageOf(done.status()));
    if (!done.ok() || !done->ran) break;  // somebody else is at it
    if (!LookAndSave() || !HandOver()) break;
  }
  busy_at_ = clock_.Steady();
  if (state_ == State::kFollowing && pending_.has_value()) ShipPending(cancel);
}

void Follower::ProveWhenDue(const CancelToken& cancel) {
  if (state_ != State::kFollowing || pending_.has_value() || clock_.Steady() < prove_at_ || !home_.BeginCompare()) return;
  const auto end = absl::MakeCleanup([this] { home_.EndCompare(); });
  const auto proof = shipper_.Prove(options_.source, shipped_, cancel);
  if (cancel.cancelled()) return;
  if (!proof.ok()) {
    spdlog::warn("{}: it could not be compared with what was shipped: {}", options_.database, MessageOf(proof.status()));
    prove_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(options_.prove_every, kProveAgain);
    return;
  }
  // Of a database that changes all the time the next sync is tried.
  if (*proof == Shipper::Proof::kNotNow) return;
  prove_at_ = clock_.Steady() + options_.prove_every;
  if (*proof == Shipper::Proof::kSame) return;
  spdlog::error("{}: the database is not what its last snapshot says, by its root: snapshots since the last comparison are in question",
                options_.database);
  Doubt("CHAIN_DIFFERS");
  MutexLock lock(mu_);
  status_.health.set_message(
      "the database was not what its last snapshot said; pages are compared, and snapshots of before are in question");
}

}  // namespace litefleet::follow
