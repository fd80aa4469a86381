// The part of Follower that reads the whole database at intervals and compares it with what was shipped.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/follow/follower.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::follow {
namespace {

using std::chrono::seconds;

constexpr seconds kProveAgain{60};
constexpr seconds kProveFirst{60};            // after it is followed, where a check is due
constexpr std::chrono::hours kProveLater{1};  // after it was in the way

}  // namespace

void Follower::ProveWhenDue(const CancelToken& cancel) {
  if (state_ != State::kFollowing || pending_.has_value() || !seen_.has_value() || shipper_.Spooled()) return;
  if (clock_.Steady() < prove_at_ || !home_.BeginTurn(FollowerHome::Turn::kCompare)) return;
  const auto end = absl::MakeCleanup([this] { home_.EndTurn(FollowerHome::Turn::kCompare); });
  std::optional<capture::WalPlace> pinned;
  bool in_the_way = false, gone = false;
  SteadyTime synced_at = clock_.Steady();
  // Syncs go on between the pages. What is pinned keeps the WAL: it ends where that grows too large, or a checkpoint waits.
  const auto stop = [&] {
    const auto ended = [&] { return gone || in_the_way || cancel.cancelled(); };
    gone = gone || state_ != State::kFollowing || attached_ == nullptr;
    if (ended()) return true;
    // Nobody else is there any more, or another file: what was read proves nothing, and keeps the WAL.
    if (noticed_.exchange(false)) gone = !OthersAttached();
    gone = gone || !attached_->SameFiles();
    if (gone) noticed_.store(true);  // looked at at once
    if (ended() || !pinned.has_value()) return ended();
    const SteadyTime now = clock_.Steady();
    if (now - synced_at >= options_.interval && now >= retry_at_) {
      synced_at = now;
      LookAndShip(cancel);
      gone = state_ != State::kFollowing;
      if (ended()) return true;
    }
    const auto checkpointed = seen_.has_value() && NothingNew() ? attached_->InTheWay(*seen_) : absl::StatusOr<bool>(false);
    in_the_way =
        CheckpointWaits() || (checkpointed.ok() && *checkpointed) || BytesBehind(*pinned) > MostBehind() || !ShortOfSpace().empty();
    return ended();
  };
  attached_->Rest();
  const auto pages = Shipper::PinForProof(options_.source, stop);
  if (pages.ok() && (*pages)->info().wal_state.has_value()) {
    const capture::SourceInfo& info = (*pages)->info();
    const Moment pinned_at{info.pinned_at, info.pinned_since_boot};
    if (!ShipUpTo(*info.wal_state, pinned_at, pinned_at, cancel)) {
      return ProveLater(kProveAgain);
    }
    if (shipper_.Spooled()) return ProveLater(kProveAgain);  // the controller has not what is read
    pinned = capture::PlaceOf(*info.wal_state);
  }
  const auto proof = pages.ok() ? shipper_.Prove(**pages) : absl::StatusOr<std::optional<Shipper::Proof>>(pages.status());
  if (cancel.cancelled() || gone) return;
  if (in_the_way || !proof.ok()) {
    spdlog::info("{}: it is compared later with what was shipped: {}", options_.database,
                 in_the_way ? "the reading was in the way of others" : MessageOf(proof.status()));
    ProveLater(in_the_way ? kProveLater : kProveAgain);
    if (state_ == State::kFollowing && MustGiveWay()) GiveWay();
    return;
  }
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
  Proven(clock_.Now());
}

void Follower::Proven(SystemTime at) {
  MutexLock lock(mu_);
  *status_.health.mutable_chain_checked_at() = ToProtoTime(at);
  status_.health.clear_chain_overdue_since();
}

void Follower::ProveLater(std::chrono::nanoseconds wait) {
  prove_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(options_.prove_every, wait);
  MutexLock lock(mu_);
  const SystemTime due = FromProtoTime(status_.health.chain_checked_at()) + options_.prove_every;
  if (clock_.Now() - due > 2 * options_.prove_every) *status_.health.mutable_chain_overdue_since() = ToProtoTime(due);
}

void Follower::PlanProof() {
  // What a comparison has just read as a whole needs no proof, if it is the first.
  if (MutexLock lock(mu_); !status_.health.has_chain_checked_at()) *status_.health.mutable_chain_checked_at() = ToProtoTime(clock_.Now());
  const auto since = [this] {
    MutexLock lock(mu_);
    return clock_.Now() - FromProtoTime(status_.health.chain_checked_at());
  }();
  prove_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(
                                    std::max<std::chrono::nanoseconds>(options_.prove_every - since, kProveFirst), options_.prove_every);
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
