#include "agent/follow/follower.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/capture/file_facts.h"
#include "agent/capture/lock_table.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kRestAfter{10};
constexpr seconds kLongestRest{60};  // between two page diffs
constexpr milliseconds kRestingPeek{50};
constexpr milliseconds kCompareLook{100};
constexpr milliseconds kOwnOpen{1000};  // until the agent's own open has been told
constexpr std::chrono::hours kNotSet{24 * 30};

}  // namespace

Follower::Follower(FollowOptions options, Shipper& shipper, FollowerHome& home, const Clock& clock)
    : options_(std::move(options)), shipper_(shipper), home_(home), clock_(clock) {
  const FollowerHome::Rested rested = home_.Remembered(options_.database);
  const auto newest = shipper_.Known();
  if (newest.ok() && !newest->empty() && *newest == rested.snapshot_id) rested_facts_ = remembered_ = rested.facts;
  shipper_.Rest();
  // What was committed meanwhile is found by comparing, and the states in between are not to be had.
  gap_ = rested.gap;
  // Whatever the clock said of each: the last look saw all that is spooled, which is newer than all that was acknowledged.
  const auto known = [](const std::optional<SystemTime>& at) { return at.has_value() ? std::optional(Moment{*at}) : std::nullopt; };
  std::optional<Moment> from = known(rested.known_until);
  if (!from.has_value()) from = shipper_.SpooledUntil(rested.synced_at.value_or(SystemTime()));
  if (!from.has_value()) from = known(rested.synced_at);
  if (from.has_value()) {
    current_ = *from;
    if (!gap_.has_value() && rested.agent_ran) gap_ = {current_, "RELEASED", "its settings were changed", false};
    if (!gap_.has_value()) gap_ = {current_, "AGENT_DOWN", "the agent did not run", false};
  }
  {
    MutexLock lock(mu_);
    if (rested.synced_at.has_value()) *status_.health.mutable_last_sync_at() = ToProtoTime(*rested.synced_at);
    if (rested.chain_checked_at.has_value()) *status_.health.mutable_chain_checked_at() = ToProtoTime(*rested.chain_checked_at);
  }
  Enter(State::kDetached);
}

Follower::~Follower() {
  if (attached_ != nullptr) attached_->Close().IgnoreError();
}

Follower::Status Follower::status() const {
  MutexLock lock(mu_);
  return status_;
}

void Follower::Enter(State state, const std::string& message) {
  state_ = state;
  look_again_ = clock_.Steady() + kLookAnyway;
  MutexLock lock(mu_);
  v1::CaptureHealth& health = status_.health;
  health.set_message(message);
  switch (state) {
    case State::kDetached:
      health.set_state(v1::CAPTURE_STATE_DETACHED);
      break;
    case State::kComparing:
    case State::kFollowing:
      health.set_state(v1::CAPTURE_STATE_FOLLOWING);
      break;
    case State::kReleased:
      health.set_state(v1::CAPTURE_STATE_RELEASED);
      break;
    case State::kLetGo:
    case State::kFailed:
      health.set_state(v1::CAPTURE_STATE_FAILED);
      break;
  }
}

bool Follower::Glance() {
  const SteadyTime now = clock_.Steady();
  if (state_ != State::kReleased && DrainDue()) return true;
  switch (state_) {
    case State::kReleased:
      return false;
    case State::kComparing:
      return now >= retry_at_ || MustGiveWay();
    case State::kLetGo:
      return now >= retry_at_;
    case State::kFailed:
      if (now < retry_at_) return false;
      [[fallthrough]];
    case State::kDetached:
      return noticed_.load() || dirty_ || compare_again_.load() || now >= look_again_;
    case State::kFollowing:
      break;
  }
  if (now < retry_at_) return Behind() || MustGiveWay();
  if (chain_differs_.load() || compare_again_.load() || noticed_.load() || pending_.has_value() || !seen_.has_value() || now >= look_again_)
    return true;
  if (not_handed_over_.has_value()) return true;  // once more, until it can be or has failed for too long
  if ((busy_at_ != SteadyTime{} && now >= busy_at_ + kRestAfter) || now >= prove_at_) return true;
  const Moment looked_at = Moment::Now(clock_);
  const auto look = attached_->Look();
  if (!look.ok() || !(*look == *seen_) || !attached_->SameFiles()) return true;
  Progress();
  if (const auto in_the_way = attached_->InTheWay(*look); !in_the_way.ok() || *in_the_way) return true;
  PlanPeek();
  Unchanged(looked_at);
  return false;
}

bool Follower::Peek() {
  const SteadyTime now = clock_.Steady();
  peek_at_ = SteadyTime::max();
  if (attached_ == nullptr) {
    if (state_ == State::kReleased) return false;
    const bool wanted = (!there_.empty() && dirty_) || DrainDue();
    if (!wanted) PlanDrain();
    return wanted;
  }
  if (state_ == State::kComparing) {
    const bool wanted = now < compare_at_ || Glance();
    peek_at_ = std::min(now + kLookAtLeast, LookForWaitersAt());
    return wanted;
  }
  if (state_ != State::kFollowing) return false;
  if (MustGiveWay()) return true;
  const bool begun = pending_.has_value() && (!saved_ || backoff_ != milliseconds(0));
  if (begun || now < retry_at_) {
    peek_at_ = LookForWaitersAt();
    return Behind() || (begun && options_.interval > kLookAtLeast && now >= retry_at_);
  }
  const bool due = PlanPeek();
  peeked_ = due || (NothingNew() && attached_->MayHoldUp());
  return peeked_ || (shipper_.Spooled() && DrainDue());
}

void Follower::KeepBounds(std::chrono::nanoseconds waited) {
  if (attached_ == nullptr) return;
  if (const std::string why = ShortOfSpace(); !why.empty()) return GiveUpHold("DISK_RESERVE", why);
  if (waited > options_.lease) return GiveUpHold("LEASE_EXPIRED", "other databases were captured all the while");
  if (MustGiveWay()) return GiveWay();
  if (state_ != State::kFollowing || !Behind()) return;
  compare_at_ = clock_.Steady() + options_.behind_rest;
  GiveUpHold("BEHIND", "other databases were captured, and frames came faster");
}

void Follower::Step(const CancelToken& cancel) {
  const auto plan = absl::MakeCleanup([this] {
    if (attached_ == nullptr && state_ != State::kReleased) PlanDrain();
  });
  switch (state_) {
    case State::kReleased:
      return;
    case State::kDetached:
    case State::kFailed:
      if (DrainDue()) {
        DrainWhenDue(cancel);
        const SteadyTime now = clock_.Steady();
        if (state_ == State::kFailed ? now < retry_at_ : !noticed_.load() && !dirty_ && !compare_again_.load() && now < look_again_) return;
      }
      return StepDetached(cancel);
    case State::kLetGo:
      DrainWhenDue(cancel);
      retry_at_ = clock_.Steady() + options_.interval;
      if (CompareWay() == Way::kNone) {
        if (Overdue()) BeginGap("LEASE_EXPIRED", "the controller could not be reached");
        return;
      }
      return StepDetached(cancel);
    case State::kComparing:
      return CompareAttached(cancel);
    case State::kFollowing:
      return StepFollowing(cancel);
  }
}

std::set<pid_t> Follower::OthersIn(std::span<const capture::FileLock> locks) const {
  const auto database = capture::LockedFileOf(options_.source.path);
  if (!database.has_value()) return {};
  std::array<capture::LockedFile, 2> files{*database, *database};
  if (const auto index = capture::LockedFileOf(options_.source.path + "-shm", &*database)) files[1] = *index;
  return capture::OthersWithLocks(locks, files);
}

bool Follower::Left() {
  if (attached_ == nullptr || !noticed_.load()) return false;
  return !OthersAttached() || !attached_->SameFiles();
}

std::string Follower::ShortOfSpace() const {
  const auto free = io::FreeBytes(options_.source.path);
  const auto reserve = options_.source.reserve.At(options_.source.path);
  if (!free.ok() || !reserve.ok() || *free >= *reserve) return {};
  return fmt::format("{} MiB are free, and {} MiB stay free", *free >> 20, *reserve >> 20);
}

void Follower::Attach(const CancelToken& cancel) {
  capture::UserDatabaseOptions options;
  options.path = options_.source.path;
  options.busy_timeout = std::min(options_.source.busy_timeout, milliseconds(1000));
  options.allow_network_fs = options_.source.allow_network_fs;
  absl::StatusOr<std::unique_ptr<Attached>> attached = Attached::Open(options);
  if (!attached.ok()) return Fail(attached.status());
  attached_ = *std::move(attached);
  // Until pages are compared: what is in the WAL already is not what this hold keeps there.
  shipped_ = attached_->held().begun;
  not_handed_over_.reset();
  there_.clear();
  rested_facts_.clear();  // what is shipped from here on is in the WAL, and the file may look as before
  LF_CRASH_POINT("follow.attached");
  Progress();
  retry_at_ = {};
  Enter(State::kComparing);
  CompareAttached(cancel);
}

absl::StatusOr<Shipper::Compared> Follower::Compare(const std::string& at_rest, const CancelToken& cancel) {
  const bool had_turn = has_turn_;
  if (!had_turn && !home_.BeginTurn(FollowerHome::Turn::kCompare))
    return Error(absl::StatusCode::kUnavailable, "COMPARE_LATER", "other databases are compared first");
  const auto end = absl::MakeCleanup([this, had_turn] {
    if (!had_turn) home_.EndTurn(FollowerHome::Turn::kCompare);
  });
  const Way way = CompareWay();
  // What is spooled has to go first.
  if (way == Way::kNone && shipper_.Spooled())
    return Error(absl::StatusCode::kUnavailable, "COMPARE_LATER", "older states are uploaded first");
  if (session_id_.empty()) session_id_ = NewUlid(clock_.Now());
  const auto look = attached_ != nullptr ? attached_->Look() : absl::StatusOr<capture::WalState>(absl::UnavailableError(""));
  const capture::WalPlace from = look.ok() ? capture::PlaceOf(*look) : shipped_;
  const SteadyTime began = clock_.Steady();
  const Moment began_at = Moment::Now(clock_);
  const bool again = compare_again_.exchange(false);
  Shipper::Comparison comparison;
  comparison.session_id = session_id_;
  comparison.timeline = home_.Timeline(options_.database);
  comparison.source = options_.source;
  comparison.source.at_rest = !at_rest.empty();
  comparison.fresh_base = fresh_base_;
  comparison.shipped_until = current_.at;
  comparison.give_up_at = std::chrono::steady_clock::now() + options_.lease;
  behind_since_.reset();
  const bool detached = attached_ == nullptr;
  bool reads_on = true, place_is_kept = true, own_open_was_told = false;
  came_.reset();
  const auto as_at_rest = [&] {
    const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
    return facts.has_value() && facts->text == at_rest;
  };
  const bool never_settles = waits_since_.has_value() && began - *waits_since_ >= 2 * options_.never_settles;
  SteadyTime looked_at = began;
  comparison.tick = [&](bool moved) {
    if (moved) Progress();
    const SteadyTime now = clock_.Steady();
    if (detached) {
      // Who has come is not held up by a reading that may last for minutes, unless that would never be done.
      if (now - looked_at < (at_rest.empty() ? kOwnOpen : kCompareLook)) return reads_on;
      // Who opened it just now may have been taken for the agent, and is told of no more.
      if (at_rest.empty() && !came_.has_value() && OthersAttached()) came_ = looked_at;
      const bool somebody = at_rest.empty() ? opened_.exchange(false) && own_open_was_told : !as_at_rest();
      own_open_was_told = true;
      looked_at = now;
      reads_on = reads_on && (!somebody || (never_settles && at_rest.empty()));
    }
    if (attached_ == nullptr) return reads_on;
    // The transaction of the reading has a limit of its own; what the network takes may not keep the WAL.
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", "comparing pages stood still for longer than a hold may last");
    if (attached_ == nullptr || now - looked_at < kCompareLook) return reads_on;
    looked_at = now;
    if (BehindBy(from)) {
      GiveUpHold("BEHIND", "frames came faster than pages were compared");
    } else if (const std::string why = ShortOfSpace(); !why.empty()) {
      GiveUpHold("DISK_RESERVE", why);
    } else if (MustGiveWay()) {
      reads_on = false;  // it waits for that as well
      GiveWay();
      // What came behind the place that was read may be started over.
      place_is_kept = place_is_kept && attached_ != nullptr && !attached_->held().may_be_mark0;
    }
    return reads_on;
  };
  comparison.same_files = [&] { return at_rest.empty() ? attached_ == nullptr || attached_->SameFiles() : as_at_rest(); };
  // SQLite keeps the handle of each connection that is closed beside another one: at most one at a time is opened beside the hold.
  if (attached_ != nullptr) attached_->Rest();
  in_compare_ = true;
  absl::StatusOr<Shipper::Compared> compared =
      way == Way::kSpool ? shipper_.CompareSpooled(comparison, cancel) : shipper_.Compare(comparison, cancel);
  in_compare_ = false;
  const auto took = clock_.Steady() - began;
  compare_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(took * options_.compare_rest, kLongestRest);
  if (!compared.ok() && again) compare_again_.store(true);
  if (!compared.ok() && !reads_on && !cancel.cancelled())
    compared = Error(absl::StatusCode::kUnavailable, "COMPARE_LATER", "an application waited for the reading");
  if (detached && !reads_on) compare_at_ = {};  // it is attached as soon as it stays
  if (way == Way::kSpool && (absl::IsResourceExhausted(compared.status()) || absl::IsDataLoss(compared.status()))) {
    spooling_.full_until = clock_.Steady() + kFullFor;
    compared = Error(absl::StatusCode::kUnavailable, kCaptureSpoolFull, MessageOf(compared.status()));
  }
  if (compared.ok()) {
    const std::optional<capture::WalPlace>& pinned = compared->place;
    const bool same_state = look.ok() && pinned.has_value() && pinned->salts == from.salts && pinned->frame == from.frame;
    if (!place_is_kept) compared->place.reset();
    session_id_.clear();
    fresh_base_ = false;
    // What is sent before it is pinned takes its time as well.
    if (!detached && !same_state && compared->current && Between(began_at, compared->taken) > options_.MostApart())
      NoteApart(compared->taken, "pages took longer to be compared than states may be apart");
    if (compared->spooled) {
      Spooled(compared->taken);
    } else if (compared->current) {
      Acknowledged(compared->snapshot_id, compared->taken);
    }
  }
  return compared;
}

void Follower::CompareAttached(const CancelToken& cancel) {
  retry_at_ = clock_.Steady() + std::min<milliseconds>(options_.interval, kLookAtLeast);
  peek_at_ = std::min(retry_at_, LookForWaitersAt());
  if (attached_ == nullptr) return Enter(State::kDetached);
  if (!attached_->SameFiles()) return Doubt("DATABASE_REPLACED");
  if (!OthersAttached()) return Leave(cancel);
  if (MustGiveWay()) {
    GiveWay();
    if (attached_ == nullptr) return;
  }
  if (clock_.Steady() < compare_at_) return RestBeforeComparing();
  if (CompareWay() == Way::kNone) {
    // Beside a drain that moves the lease does not end: the hold has its other bounds here.
    if (const std::string why = ShortOfSpace(); !why.empty()) return GiveUpHold("DISK_RESERVE", why);
    if (BehindBy(shipped_)) return GiveUpHold("BEHIND", "frames came faster than older states were uploaded");
    DrainWhenDue(cancel);
    if (Overdue())
      GiveUpHold("LEASE_EXPIRED", Connected() ? "older states go first, and do not move" : "the controller could not be reached");
    return;
  }
  const auto compared = Compare({}, cancel);
  if (cancel.cancelled()) return;
  if (compared.ok() && attached_ != nullptr && compared->place.has_value()) {
    shipped_ = *compared->place;
    Forget();
    retry_at_ = {};
    Enter(State::kFollowing);
    PlanProof();
    waits_since_.reset();
    EndGap(current_);
    HandOver();
    return;
  }
  if (attached_ == nullptr) {
    // Let go while it was compared: once more, and there will be less to send.
    dirty_ = true;
    return;
  }
  if (compared.ok()) return;  // once more
  if (!attached_->SameFiles()) return Doubt("DATABASE_REPLACED");
  if (ReasonOf(compared.status()) == "COMPARE_LATER" || absl::IsUnavailable(compared.status()) ||
      absl::IsDeadlineExceeded(compared.status())) {
    if (ReasonOf(compared.status()) == kCaptureSpoolFull) {
      GiveUpHold(kCaptureSpoolFull, MessageOf(compared.status()));
    } else if (Overdue()) {
      GiveUpHold("LEASE_EXPIRED", MessageOf(compared.status()));
    }
    return;
  }
  Fail(compared.status());
}

void Follower::RestBeforeComparing() {
  Progress();
  if (compare_at_ > clock_.Steady() + options_.short_gap) BeginGap("COMPARE_LATER", "pages are compared later");
  if (!options_.allow_restart) {
    attached_->Close().IgnoreError();
    attached_.reset();
    dirty_ = true;
    return Enter(State::kDetached, "pages are compared in a moment");
  }
  if (const std::string why = ShortOfSpace(); !why.empty()) return GiveUpHold("DISK_RESERVE", why);
  peek_at_ = clock_.Steady() + kRestingPeek;
  const auto look = attached_->Look();
  if (!look.ok() || capture::WalBytes(look->page_size, look->max_frame) <= 4 * options_.checkpoint_bytes || !MayRestart()) return;
  // As much as goes without anybody waiting is copied first.
  absl::Status status = attached_->HandOver([](const capture::WalState&) {}).status();
  for (int round = 0; round < kCheckpointRounds && status.ok() && !attached_->held().may_be_mark0; ++round) {
    status = attached_->Checkpoint().status();
    if (status.ok()) status = attached_->HandOver([](const capture::WalState&) {}).status();
  }
  if (status.ok() && !attached_->held().may_be_mark0) status = Restart([] { return true; }).status();
  if (!status.ok()) HoldLost(status);
}

void Follower::StepFollowing(const CancelToken& cancel) {
  if (Behind()) return FallBehind(cancel);
  if (const bool noticed = noticed_.exchange(false); noticed || clock_.Steady() >= look_again_) {
    // Where nothing was noticed all databases are looked at together, in the same table.
    look_again_ = SteadyTime((clock_.Steady().time_since_epoch() / kLookAnyway + 1) * kLookAnyway);
    const auto locks = capture::LocksOfLate(noticed ? milliseconds(0) : milliseconds(kLookAtLeast));
    if (OthersIn(*locks).empty()) return Leave(cancel);
    if (const absl::Status there = attached_->CheckWalIsThere(*locks); !there.ok()) return Fail(there);
  }
  if (chain_differs_.exchange(false)) return ChainDiffers();
  if (compare_again_.load()) return Doubt("SNAPSHOT_GONE");  // until it is compared: what is spooled is in question too
  const auto plan = absl::MakeCleanup([this] { PlanPeek(); });
  const bool peeked = std::exchange(peeked_, false);
  if (MustGiveWay()) {
    GiveWay();
    if (state_ != State::kFollowing || clock_.Steady() < retry_at_) return;
  }
  CheckpointWhenDue(cancel);
  if (state_ != State::kFollowing) return;
  if (peeked) {
    HandOverWhenInTheWay();
    return;
  }
  // Older states go to the controller meanwhile, and more of them than come.
  const bool later = !pending_.has_value() && shipper_.Spooled() && clock_.Steady() < spooling_.sync_at && Connected();
  if (later && !NothingNew() && PausedForLong())
    BeginGap(kLinkSlow, "the link takes less than a state every few seconds: they are taken less often");
  if (!later && !LookAndShip(cancel)) {
    if (state_ == State::kFollowing && noticed_.load() && !OthersAttached()) Leave(cancel);
    return;
  }
  if (!HandOverWhenInTheWay()) return;
  DrainWhenDue(cancel);
  if (state_ != State::kFollowing) return;
  ProveWhenDue(cancel);
  if (state_ == State::kFollowing && noticed_.load() && !OthersAttached()) return Leave(cancel);
  if (state_ == State::kFollowing && busy_at_ != SteadyTime{} && clock_.Steady() >= busy_at_ + kRestAfter) {
    attached_->Rest();
    shipper_.Rest();
    busy_at_ = {};
  }
}

void Follower::Doubt(std::string_view reason) {
  spdlog::info("{}: the WAL does not tell what has changed ({}); pages are compared", options_.database, reason);
  Forget();
  if (Shipper::IsBaseLost(reason)) shipper_.DropLedger();
  session_id_.clear();
  retry_at_ = {};
  Progress();
  const bool replaced = reason == "DATABASE_REPLACED";
  if (replaced) {
    attached_->Close().IgnoreError();
    attached_.reset();
    dirty_ = true;
  }
  Enter(replaced ? State::kDetached : State::kComparing);
  noticed_.store(true);
  if (compare_at_ > clock_.Steady() + options_.short_gap) BeginGap(reason, "pages are compared later");
  MutexLock lock(mu_);
  status_.health.set_doubts(status_.health.doubts() + 1);
}

void Follower::Forget() {
  if (pending_.has_value()) {
    session_id_.clear();  // that of a page diff goes on
    backoff_ = milliseconds(0);
  }
  pending_.reset();
  saved_ = tried_to_send_ = false;
  refused_.clear();
  too_much_since_.reset();
  shipper_.DropSaved();
  seen_.reset();
}

void Follower::HoldLost(const absl::Status& status) {
  if (ReasonOf(status) == "DATABASE_REPLACED") return Doubt("DATABASE_REPLACED");
  GiveUpHold("HOLD_LOST", MessageOf(status));
}

bool Follower::Overdue() { return clock_.Steady() - progress_at_ > options_.lease; }

void Follower::GiveUpHold(std::string_view reason, const std::string& message) {
  spdlog::warn("{}: let go of its WAL ({}): {}", options_.database, reason, message);
  LF_CRASH_POINT("follow.before_let_go");
  attached_->Close().IgnoreError();
  attached_.reset();
  Forget();
  if (!in_compare_) shipper_.Rest();
  dirty_ = true;
  rested_facts_.clear();
  retry_at_ = clock_.Steady() + options_.interval;
  Enter(State::kLetGo, fmt::format("{}: {}", reason, message));
  BeginGap(reason, message);
}

Moment Follower::KnownUntil() const {
  MutexLock lock(mu_);
  // The later of the two, whatever the clock has done in between: what was shipped sets both.
  return status_.known_until.value_or(current_);
}

void Follower::BeginGap(std::string_view reason, const std::string& message) {
  if (gap_.has_value() && gap_->told) return;
  Moment from = gap_.has_value() ? gap_->from : KnownUntil();
  if (!from.known()) from = Moment::Now(clock_);
  gap_ = {from, std::string(reason), message};
  home_.Gap(options_.database, gap_->from, std::nullopt, gap_->reason, gap_->message);
}

void Follower::EndGap(Moment until) {
  if (!gap_.has_value()) return;
  Moment from = gap_->from;
  const std::chrono::nanoseconds length = Between(from, until);
  // How long one from a boot before was whose clock was put back nobody knows: all that either time may mean belongs to it. A clock that is
  // months behind is not set yet; what it will say of its end then, the boot clock knows.
  if (length.count() < 0 && -length < kNotSet) std::swap(from, until);
  // A restart that took no longer than a few syncs is no gap.
  if (gap_->told || length > options_.short_gap || length.count() < 0)
    home_.Gap(options_.database, from, until, gap_->reason, gap_->message);
  gap_.reset();
}

void Follower::Fail(const absl::Status& status) {
  if (current_.known()) BeginGap(ReasonOf(status).empty() ? "CAPTURE_FAILED" : ReasonOf(status), MessageOf(status));
  if (attached_ != nullptr) attached_->Close().IgnoreError();
  attached_.reset();
  Forget();
  dirty_ = false;  // once more when something is noticed, or half a minute has passed
  // These looks take a second of a thread, and our own opening and closing is noticed as well.
  retry_at_ = ReasonOf(status) == "WAL_REMOVED" ? clock_.Steady() + kLookAnyway : SteadyTime{};
  shipper_.Rest();
  const std::string message = MessageOf(status);
  bool said = false;
  {
    MutexLock lock(mu_);
    said = status_.health.state() == v1::CAPTURE_STATE_FAILED && status_.health.message() == message;
  }
  if (!said) spdlog::warn("{}: it cannot be followed now: {}", options_.database, message);
  Enter(State::kFailed, message);
}

void Follower::Acknowledged(const std::string& snapshot_id, const Moment& taken) {
  KnownAgain(taken);
  current_ = taken;
  remembered_.clear();
  MutexLock lock(mu_);
  status_.snapshot_id = snapshot_id;
  status_.unchanged_at = taken.at;
  status_.known_until = taken;
  SetLastSync(status_.health, taken, Moment::Now(clock_));
}

}  // namespace litefleet::follow
