// The part of Follower that is of a database that nobody has open, and that comes and goes: what is found there, leaving, letting go.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/capture/file_facts.h"
#include "agent/follow/follower.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::follow {

namespace {

using std::chrono::milliseconds;

constexpr char kComparedLate[] = "it took long until pages could be compared";

}  // namespace

void Follower::StepDetached(const CancelToken& cancel) {
  noticed_.store(false);  // before anything is looked at
  look_again_ = clock_.Steady() + kLookAnyway;
  bool others = OthersAttached();
  const auto is_due = [&] {
    if (!others) there_.clear();
    return others ? TheyStay() : !Rests();
  };
  if (!is_due()) return;
  // No WAL is held for a page diff that may not run yet.
  if (clock_.Steady() < compare_at_ || !home_.BeginTurn(FollowerHome::Turn::kCompare)) {
    dirty_ = true;
    return Waits("COMPARE_LATER", "pages are compared later");
  }
  has_turn_ = true;
  const auto end = absl::MakeCleanup([this] {
    home_.EndTurn(FollowerHome::Turn::kCompare);
    has_turn_ = false;
  });
  // Nothing is held: what is cut off beside a hold, again and again where it takes long, comes to its end here.
  if (const SteadyTime began = clock_.Steady(); CompareWay() == Way::kSpool && began >= spooling_.small_at) {
    const auto text = [this] {
      const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
      return facts.has_value() ? facts->text : std::string();
    };
    const std::string before = text();
    KeepSpoolSmall(cancel);
    if (cancel.cancelled()) return;
    // What was seen before it may be minutes old: others have come since, or have gone, or have come and gone.
    others = OthersAttached();
    if (!waits_since_.has_value() && (others || text() != before)) waits_since_ = began;
    if (clock_.Steady() - began > options_.attach_after) there_.clear();
    if (!is_due()) return;
  }
  if (others) {
    const std::string short_of_space = ShortOfSpace();
    const std::string why = CompareWay() != Way::kNone ? short_of_space : "the controller cannot be reached";
    if (why.empty()) {
      if (waits_since_.has_value() && !gap_.has_value()) Waits("COMPARE_LATER", kComparedLate);
      return Attach(cancel);
    }
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

bool Follower::TheyStay() {
  const std::set<pid_t> now_there = OthersThere();
  const SteadyTime now = clock_.Steady();
  if (there_.empty()) somebody_since_ = now;
  std::erase_if(there_, [&](pid_t pid) { return !now_there.contains(pid); });
  // A process that opens it anew is as alone with it as one that has just been started.
  const bool anew = opened_.exchange(false);
  if (anew && unsure_) rested_facts_.clear();
  if (there_.empty() || anew) {
    there_ = now_there;
    there_since_ = now;
  }
  if (!waits_since_.has_value()) waits_since_ = now;
  if (now - there_since_ >= options_.attach_after || now - somebody_since_ >= 5 * options_.attach_after) return true;
  dirty_ = true;
  peek_at_ = there_since_ + options_.attach_after;
  return false;
}

bool Follower::Rests() {
  // Until it is compared: meanwhile nothing is compared with what is in question.
  if (compare_again_.load()) {
    rested_facts_.clear();
    shipper_.DropLedger();
  }
  if (state_ == State::kFailed) Enter(State::kDetached);
  const Moment now = Moment::Now(clock_);
  const auto facts = capture::FileFactsOf(options_.source.path, now.at);
  if (!facts.has_value()) {
    dirty_ = false;
    waits_since_.reset();
    Enter(State::kFailed, fmt::format("{} does not exist", options_.source.path));
    return true;
  }
  dirty_ = true;
  const bool same = facts->text == rested_facts_;
  if (!facts->settled) {
    // Looked at again in the next interval; what is written again and again by those who come and go is compared all the same.
    if (!same && !waits_since_.has_value()) waits_since_ = clock_.Steady();
    const auto waits = same ? std::chrono::nanoseconds(0) : clock_.Steady() - *waits_since_;
    return waits < options_.never_settles * (facts->quiet ? 1 : 2);
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
  // Each look at a database at rest would read the ledger else.
  if (remembered_ != rested_facts_ && !shipper_.Spooled()) {
    if (const auto known = shipper_.Known(); known.ok()) home_.Remember(options_.database, {rested_facts_, *known});
    remembered_ = rested_facts_;
    shipper_.Rest();
  }
  Unchanged(now);
  return true;
}

void Follower::Waits(std::string_view reason, const std::string& message) {
  if (!waits_since_.has_value()) waits_since_ = clock_.Steady();
  if (clock_.Steady() - *waits_since_ > options_.lease) BeginGap(reason, message);
}

void Follower::CompareDetached(const CancelToken& cancel) {
  if (CompareWay() == Way::kNone) return Waits("LEASE_EXPIRED", "the controller could not be reached");
  if (waits_since_.has_value() && !gap_.has_value()) Waits("COMPARE_LATER", kComparedLate);
  came_.reset();  // not every comparison comes as far as looking
  const SteadyTime began = clock_.Steady();
  const auto facts = capture::FileFactsOf(options_.source.path, clock_.Now());
  const bool at_rest = facts.has_value() && facts->quiet && facts->bare;
  const auto compared = Compare(at_rest ? facts->text : "", cancel);
  // What others have committed since then is not in it, whatever became of it.
  if (came_.has_value() && !waits_since_.has_value()) waits_since_ = came_;
  if (cancel.cancelled()) return;
  if (!compared.ok()) {
    const std::string reason = ReasonOf(compared.status());
    if (reason == "COMPARE_LATER" || reason == "SPOOL_BUSY" || reason == "DATABASE_REPLACED") return;  // somebody came
    return Fail(compared.status());
  }
  if (!compared->current) return;  // once more
  waits_since_ = came_;
  // Who came meanwhile and did not end it waits since then; at rest nothing was written until its end.
  if (!at_rest && !came_.has_value() && OthersAttached()) waits_since_ = began;
  rested_facts_ = facts.has_value() && facts->settled ? facts->text : "";
  unsure_ = false;  // whoever came before that was read
  EndGap(current_);
  if (state_ == State::kLetGo) Enter(State::kDetached);
}

void Follower::Leave(const CancelToken& cancel) {
  // Nobody waits for the network: whoever copies a file over the database now must not find the WAL of the old one beside it.
  // An attempt of which nothing is known would have to be repeated as it was: pages are compared instead.
  bool all = state_ == State::kFollowing && backoff_ == milliseconds(0) && LookAndSave();
  if (attached_ == nullptr) return;
  // Who opens it from here on shows in the files, or in the locks.
  noticed_.store(false);
  opened_.store(false);
  there_.clear();
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
  if (shipped && gap_.has_value() && gap_->reason == kLinkSlow) EndGap(KnownUntil());
  unsure_ = true;
}

bool Follower::SendLast(const CancelToken& cancel) {
  const bool spools = MustSpool();
  if (!spools && !Connected()) return false;
  const Moment taken = pending_->moment();
  CancelToken stop;
  const SteadyTime until = clock_.Steady() + options_.lease;
  const uint64_t timeline = home_.Timeline(options_.database);
  const auto look = [&](bool) {
    if (cancel.cancelled() || clock_.Steady() > until || (opened_.load() && OthersAttached())) stop.Interrupt();
  };
  const auto shipped = spools ? shipper_.SpoolSaved({session_id_, timeline, current_.at}, stop, look)
                              : shipper_.SendSaved(session_id_, timeline, stop, look);
  if (!shipped.ok()) {
    spdlog::info("{}: the last sync was interrupted, pages are compared: {}", options_.database, MessageOf(shipped.status()));
    return false;
  }
  if (!shipped->snapshot_id.empty()) {
    NoteApart(taken, "the state before took longer to be sent, or spooled, than states may be apart");
    spools ? Spooled(taken) : Acknowledged(shipped->snapshot_id, taken);
  }
  LF_CRASH_POINT("follow.shipped");
  return true;
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
  if (!untouched && !gap_.has_value() && released_->from.known() && clock_.Steady() - released_->at > options_.short_gap)
    gap_ = {released_->from, "RELEASED", released_->why, false};
  released_.reset();
  there_.clear();  // nobody was looked at meanwhile
  dirty_ = true;
  rested_facts_.clear();
  noticed_.store(true);
  compare_at_ = {};
  Enter(State::kDetached);
}

}  // namespace litefleet::follow
