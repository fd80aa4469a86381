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

constexpr seconds kLookAnyway{30};  // where nothing was noticed
constexpr seconds kRestAfter{10};
constexpr seconds kLongestRest{60};  // between two page diffs
constexpr milliseconds kRestingPeek{50};

}  // namespace

Follower::Follower(FollowOptions options, Shipper& shipper, FollowerHome& home, const Clock& clock)
    : options_(std::move(options)), shipper_(shipper), home_(home), clock_(clock) {
  const FollowerHome::Rested rested = home_.Remembered(options_.database);
  const auto known = shipper_.Known();
  if (known.ok() && !known->empty() && *known == rested.snapshot_id) rested_facts_ = rested.facts;
  shipper_.Rest();
  // What was committed meanwhile is found by comparing, and the states in between are not to be had.
  gap_ = rested.gap;
  // Of the two the later one by what came first, whatever the clock said.
  if (const auto from = rested.known_until.has_value() ? rested.known_until : rested.synced_at; from.has_value()) {
    current_at_ = *from;
    if (!gap_.has_value() && rested.agent_ran) gap_ = {*from, "RELEASED", "its settings were changed", false};
    if (!gap_.has_value()) gap_ = {*from, "AGENT_DOWN", "the agent did not run", false};
  }
  if (rested.synced_at.has_value()) {
    MutexLock lock(mu_);
    *status_.health.mutable_last_sync_at() = ToProtoTime(*rested.synced_at);
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
  switch (state_) {
    case State::kReleased:
      return false;
    case State::kComparing:
      return now >= retry_at_;
    case State::kLetGo:
      return now >= retry_at_;
    case State::kDetached:
    case State::kFailed:
      return noticed_.load() || dirty_ || compare_again_.load() || now >= look_again_;
    case State::kFollowing:
      break;
  }
  if (now < retry_at_) return Behind();
  if (chain_differs_.load() || compare_again_.load() || noticed_.load() || pending_.has_value() || !seen_.has_value() || now >= look_again_)
    return true;
  if ((busy_at_ != SteadyTime{} && now >= busy_at_ + kRestAfter) || now >= prove_at_) return true;
  const SystemTime looked_at = clock_.Now();
  const auto look = attached_->Look();
  if (!look.ok() || !(*look == *seen_) || !attached_->SameFiles()) return true;
  Progress();
  if (const auto in_the_way = attached_->InTheWay(*look); !in_the_way.ok() || *in_the_way) return true;
  PlanPeek();
  MutexLock lock(mu_);
  status_.unchanged_at = looked_at;
  return false;
}

bool Follower::Peek() {
  peek_at_ = SteadyTime::max();
  if (state_ == State::kComparing) return true;
  if (state_ != State::kFollowing) return false;
  if (clock_.Steady() < retry_at_ || (pending_.has_value() && backoff_ != milliseconds(0))) return Behind();
  peeked_ = PlanPeek();
  return peeked_;
}

void Follower::KeepBounds(std::chrono::nanoseconds waited) {
  if (attached_ == nullptr) return;
  if (const std::string why = ShortOfSpace(); !why.empty()) return GiveUpHold("DISK_RESERVE", why);
  if (waited > options_.lease) return GiveUpHold("LEASE_EXPIRED", "other databases were captured all the while");
  if (state_ != State::kFollowing || !Behind()) return;
  compare_at_ = clock_.Steady() + options_.behind_rest;
  GiveUpHold("BEHIND", "other databases were captured, and frames came faster");
}

void Follower::Step(const CancelToken& cancel) {
  switch (state_) {
    case State::kReleased:
      return;
    case State::kDetached:
    case State::kFailed:
      return StepDetached(cancel);
    case State::kLetGo:
      retry_at_ = clock_.Steady() + options_.interval;
      if (!shipper_.Connected()) {
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

bool Follower::OthersAttached() const {
  const auto database = capture::FileIdOf(options_.source.path);
  if (!database.has_value()) return false;
  std::array<capture::FileId, 2> files{*database, *database};
  if (const auto index = capture::FileIdOf(options_.source.path + "-shm")) files[1] = *index;
  return capture::LockedByOthers(files);
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

// ---- detached

void Follower::StepDetached(const CancelToken& cancel) {
  noticed_.store(false);  // before anything is looked at
  look_again_ = clock_.Steady() + kLookAnyway;
  const bool others = OthersAttached();
  if (!others && Rests()) return;
  // No WAL is held for a page diff that may not run yet.
  if (clock_.Steady() < compare_at_ || !home_.BeginCompare()) {
    dirty_ = true;
    return Waits("COMPARE_LATER", "pages are compared later");
  }
  has_turn_ = true;
  const auto end = absl::MakeCleanup([this] {
    home_.EndCompare();
    has_turn_ = false;
  });
  if (others) {
    const std::string short_of_space = ShortOfSpace();
    const std::string why = shipper_.Connected() ? short_of_space : "the controller cannot be reached";
    if (why.empty()) return Attach(cancel);
    if (!short_of_space.empty()) BeginGap("DISK_RESERVE", short_of_space);
    if (state_ != State::kLetGo) {
      Progress();
      retry_at_ = clock_.Steady() + options_.interval;
      Enter(State::kLetGo, why);
    }
    return;
  }
  CompareDetached(cancel);
}

bool Follower::Rests() {
  if (compare_again_.exchange(false)) rested_facts_.clear();
  if (state_ == State::kFailed) Enter(State::kDetached);
  const SystemTime now = clock_.Now();
  const auto facts = capture::FileFactsOf(options_.source.path, now);
  if (!facts.has_value()) {
    dirty_ = false;
    Enter(State::kFailed, fmt::format("{} does not exist", options_.source.path));
    return true;
  }
  dirty_ = true;
  const bool same = facts->text == rested_facts_;
  if (!facts->settled) {
    // Looked at again in the next interval; what is written again and again by those who come and go is compared all the same.
    if (!same && !waits_since_.has_value()) waits_since_ = clock_.Steady();
    return same || clock_.Steady() - *waits_since_ < options_.never_settles;
  }
  if (!same) return false;
  // Somebody was there between the agent's close and its look at the files.
  if (std::exchange(unsure_, false) && opened_.load()) {
    rested_facts_.clear();
    return false;
  }
  dirty_ = false;
  waits_since_.reset();
  // Nothing was missed.
  if (gap_.has_value() && !gap_->told) gap_.reset();
  if (gap_.has_value()) EndGap(gap_->from);
  if (state_ == State::kLetGo) Enter(State::kDetached);
  if (const auto known = shipper_.Known(); known.ok()) home_.Remember(options_.database, {rested_facts_, *known});
  shipper_.Rest();
  MutexLock lock(mu_);
  status_.unchanged_at = now;
  return true;
}

void Follower::Waits(std::string_view reason, const std::string& message) {
  if (!waits_since_.has_value()) waits_since_ = clock_.Steady();
  if (clock_.Steady() - *waits_since_ > options_.lease) BeginGap(reason, message);
}

void Follower::CompareDetached(const CancelToken& cancel) {
  if (!shipper_.Connected()) return Waits("LEASE_EXPIRED", "the controller could not be reached");
  const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
  const auto compared = Compare(cancel);
  if (cancel.cancelled()) return;
  if (!compared.ok()) {
    if (ReasonOf(compared.status()) == "COMPARE_LATER") return;
    return Fail(compared.status());
  }
  if (!compared->current) return;  // once more
  waits_since_.reset();
  rested_facts_ = facts.has_value() && facts->settled ? facts->text : "";
  unsure_ = false;  // whoever came before that was read
  EndGap(current_at_);
  if (state_ == State::kLetGo) Enter(State::kDetached);
}

// ---- attached

void Follower::Attach(const CancelToken& cancel) {
  capture::UserDatabaseOptions options;
  options.path = options_.source.path;
  options.busy_timeout = std::min(options_.source.busy_timeout, milliseconds(1000));
  options.allow_network_fs = options_.source.allow_network_fs;
  absl::StatusOr<std::unique_ptr<Attached>> attached = Attached::Open(options);
  if (!attached.ok()) return Fail(attached.status());
  attached_ = *std::move(attached);
  not_handed_over_.reset();
  rested_facts_.clear();  // what is shipped from here on is in the WAL, and the file may look as before
  LF_CRASH_POINT("follow.attached");
  Progress();
  retry_at_ = {};
  Enter(State::kComparing);
  CompareAttached(cancel);
}

absl::StatusOr<Shipper::Compared> Follower::Compare(const CancelToken& cancel) {
  const bool had_turn = has_turn_;
  if (!had_turn && !home_.BeginCompare())
    return Error(absl::StatusCode::kUnavailable, "COMPARE_LATER", "other databases are compared first");
  const auto end = absl::MakeCleanup([this, had_turn] {
    if (!had_turn) home_.EndCompare();
  });
  if (session_id_.empty()) session_id_ = NewUlid(clock_.Now());
  const SteadyTime began = clock_.Steady();
  const bool again = compare_again_.exchange(false);
  Shipper::Comparison comparison;
  comparison.session_id = session_id_;
  comparison.timeline = home_.Timeline(options_.database);
  comparison.source = options_.source;
  comparison.fresh_base = fresh_base_;
  comparison.give_up_at = std::chrono::steady_clock::now() + options_.lease;
  comparison.tick = [&] {
    // The transaction of the reading has a limit of its own; what the network takes may not keep the WAL.
    if (attached_ != nullptr && clock_.Steady() - began > options_.lease)
      GiveUpHold("LEASE_EXPIRED", "comparing pages took longer than a hold may last");
  };
  comparison.same_files = [&] { return attached_ == nullptr || attached_->SameFiles(); };
  in_compare_ = true;
  absl::StatusOr<Shipper::Compared> compared = shipper_.Compare(comparison, cancel);
  in_compare_ = false;
  const auto took = clock_.Steady() - began;
  compare_at_ = clock_.Steady() + std::min<std::chrono::nanoseconds>(took * options_.compare_rest, kLongestRest);
  if (!compared.ok() && again) compare_again_.store(true);
  if (compared.ok()) {
    session_id_.clear();
    fresh_base_ = false;
    if (compared->current) Acknowledged(compared->snapshot_id, compared->taken_at);
  }
  return compared;
}

void Follower::CompareAttached(const CancelToken& cancel) {
  retry_at_ = clock_.Steady() + options_.interval;
  if (attached_ == nullptr) return Enter(State::kDetached);
  if (!attached_->SameFiles()) return Doubt("DATABASE_REPLACED");
  if (!OthersAttached()) return Leave(cancel);
  if (clock_.Steady() < compare_at_) return RestBeforeComparing();
  if (!shipper_.Connected()) {
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", "the controller could not be reached");
    return;
  }
  const auto compared = Compare(cancel);
  if (cancel.cancelled()) return;
  if (compared.ok() && attached_ != nullptr && compared->place.has_value()) {
    shipped_ = *compared->place;
    Forget();
    retry_at_ = {};
    Enter(State::kFollowing);
    prove_at_ = clock_.Steady() + options_.prove_every;
    waits_since_.reset();
    EndGap(current_at_);
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
    if (Overdue()) GiveUpHold("LEASE_EXPIRED", MessageOf(compared.status()));
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
  if (!status.ok()) GiveUpHold("HOLD_LOST", MessageOf(status));
}

void Follower::StepFollowing(const CancelToken& cancel) {
  if (Behind()) return FallBehind();
  if (noticed_.exchange(false) || clock_.Steady() >= look_again_) {
    look_again_ = clock_.Steady() + kLookAnyway;
    if (!OthersAttached()) return Leave(cancel);
    if (const absl::Status there = attached_->CheckWalIsThere(); !there.ok()) return Fail(there);
  }
  if (chain_differs_.exchange(false)) return ChainDiffers();
  if (compare_again_.exchange(false)) return Doubt("SNAPSHOT_GONE");
  const auto plan = absl::MakeCleanup([this] { PlanPeek(); });
  CheckpointWhenDue(cancel);
  if (std::exchange(peeked_, false) || state_ != State::kFollowing) return;
  if (!LookAndShip(cancel)) {
    if (state_ == State::kFollowing && noticed_.load() && !OthersAttached()) Leave(cancel);
    return;
  }
  // Else the next hold could be on mark 0 with what was not shipped.
  if (NothingNew()) {
    const auto in_the_way = attached_->InTheWay(*seen_);
    if (in_the_way.ok() && *in_the_way && !HandOver()) return;
  }
  ProveWhenDue(cancel);
  if (state_ == State::kFollowing && noticed_.load() && !OthersAttached()) return Leave(cancel);
  if (state_ == State::kFollowing && busy_at_ != SteadyTime{} && clock_.Steady() >= busy_at_ + kRestAfter) {
    attached_->Rest();
    shipper_.Rest();
    busy_at_ = {};
  }
}

void Follower::Leave(const CancelToken& cancel) {
  // Nobody waits for the network: whoever copies a file over the database now must not find the WAL of the old one beside it.
  // An attempt of which nothing is known would have to be repeated as it was: pages are compared instead.
  bool all = state_ == State::kFollowing && backoff_ == milliseconds(0) && LookAndSave();
  if (attached_ == nullptr) return;
  // Who opens it from here on shows in the files, or in the locks.
  noticed_.store(false);
  opened_.store(false);
  LF_CRASH_POINT("follow.before_leave");
  std::optional<capture::WalState> last;
  const absl::Status closed = attached_->Close(&last);
  attached_.reset();
  if (!last.has_value() || !seen_.has_value() || !(*last == *seen_)) all = false;
  if (!closed.ok()) spdlog::warn("{}: {}", options_.database, MessageOf(closed));
  const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
  dirty_ = true;
  Enter(State::kDetached);
  const bool shipped = all && (!pending_.has_value() || SendLast(cancel));
  Forget();
  shipper_.Rest();
  rested_facts_ = shipped && facts.has_value() ? facts->text : "";
  unsure_ = true;
}

bool Follower::SendLast(const CancelToken& cancel) {
  if (!shipper_.Connected()) return false;
  const SystemTime taken_at = pending_->taken_at;
  CancelToken stop;
  const SteadyTime until = clock_.Steady() + options_.lease;
  const auto shipped = shipper_.SendSaved(session_id_, home_.Timeline(options_.database), stop, [&](bool) {
    if (cancel.cancelled() || clock_.Steady() > until || (opened_.load() && OthersAttached())) stop.Interrupt();
  });
  if (!shipped.ok()) {
    spdlog::info("{}: the last sync was interrupted, pages are compared: {}", options_.database, MessageOf(shipped.status()));
    return false;
  }
  if (!shipped->snapshot_id.empty()) Acknowledged(shipped->snapshot_id, taken_at);
  LF_CRASH_POINT("follow.shipped");
  return true;
}

void Follower::Doubt(std::string_view reason) {
  spdlog::info("{}: the WAL does not tell what has changed ({}); pages are compared", options_.database, reason);
  Forget();
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
  saved_ = false;
  shipper_.DropSaved();
  seen_.reset();
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

SystemTime Follower::KnownUntil() const {
  MutexLock lock(mu_);
  return std::max(current_at_, status_.unchanged_at.value_or(current_at_));
}

void Follower::BeginGap(std::string_view reason, const std::string& message) {
  if (gap_.has_value() && gap_->told) return;
  SystemTime from = gap_.has_value() ? gap_->from : KnownUntil();
  if (from == SystemTime{}) from = clock_.Now();
  gap_ = {from, std::string(reason), message};
  home_.Gap(options_.database, gap_->from, std::nullopt, gap_->reason, gap_->message);
}

void Follower::EndGap(SystemTime until) {
  if (!gap_.has_value()) return;
  // A restart that took no longer than a few syncs is no gap. How long one was whose clock was put back nobody knows.
  if (gap_->told || until - gap_->from > options_.short_gap || until < gap_->from)
    home_.Gap(options_.database, gap_->from, until, gap_->reason, gap_->message);
  gap_.reset();
}

void Follower::Fail(const absl::Status& status) {
  if (current_at_ != SystemTime{}) BeginGap(ReasonOf(status).empty() ? "CAPTURE_FAILED" : ReasonOf(status), MessageOf(status));
  if (attached_ != nullptr) attached_->Close().IgnoreError();
  attached_.reset();
  Forget();
  dirty_ = false;  // once more when something is noticed, or half a minute has passed
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

void Follower::Acknowledged(const std::string& snapshot_id, SystemTime taken_at) {
  current_at_ = taken_at;
  const SystemTime now = clock_.Now();
  MutexLock lock(mu_);
  status_.snapshot_id = snapshot_id;
  status_.unchanged_at = taken_at;
  *status_.health.mutable_last_sync_at() = ToProtoTime(now);
  *status_.health.mutable_lag() = ToProtoDuration(std::chrono::duration_cast<milliseconds>(now - taken_at));
}

void Follower::LetGo(std::string_view why) {
  if (!released_.has_value()) released_ = {clock_.Steady(), KnownUntil(), "", std::string(why)};
  bool all = attached_ == nullptr && state_ == State::kDetached && !rested_facts_.empty();
  if (attached_ != nullptr) {
    all = state_ == State::kFollowing && !pending_.has_value() && seen_.has_value();
    std::optional<capture::WalState> last;
    attached_->Close(&last).IgnoreError();
    all = all && last.has_value() && *last == *seen_;
    rested_facts_.clear();
  }
  attached_.reset();
  if (const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
      all && facts.has_value() && (rested_facts_.empty() || rested_facts_ == facts->text)) {
    released_->facts = facts->text;
  }
  Forget();
  session_id_.clear();
  shipper_.Rest();
  Enter(State::kReleased, std::string(why));
}

void Follower::Resume() {
  if (state_ != State::kReleased) return;
  const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
  const bool untouched = facts.has_value() && facts->text == released_->facts;
  if (!untouched && !gap_.has_value() && released_->from != SystemTime{} && clock_.Steady() - released_->at > options_.short_gap)
    gap_ = {released_->from, "RELEASED", released_->why, false};
  released_.reset();
  dirty_ = true;
  rested_facts_.clear();
  noticed_.store(true);
  compare_at_ = {};
  Enter(State::kDetached);
}

}  // namespace litefleet::follow
