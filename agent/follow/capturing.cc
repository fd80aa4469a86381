#include "agent/follow/capturing.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr seconds kWatchAgain{5};
constexpr seconds kTurnWait{1};
constexpr milliseconds kNoticeAgain{200};
// How soon a wait sees its cancel.
constexpr milliseconds kCancelLook{100};

bool Same(const Followed& a, const Followed& b) {
  return a.follow.source.path == b.follow.source.path && a.follow.interval == b.follow.interval &&
         a.follow.prove_every == b.follow.prove_every && a.follow.allow_restart == b.follow.allow_restart &&
         a.follow.source.busy_timeout == b.follow.source.busy_timeout && a.follow.source.max_pin == b.follow.source.max_pin &&
         a.follow.source.reserve == b.follow.source.reserve && a.follow.source.allow_network_fs == b.follow.source.allow_network_fs &&
         a.follow.source.rollback_stall == b.follow.source.rollback_stall && a.follow.checkpoint_bytes == b.follow.checkpoint_bytes &&
         a.shipper.backup.spool.max_bytes == b.shipper.backup.spool.max_bytes && a.shipper.spool_age == b.shipper.spool_age;
}

}  // namespace

struct Capturing::Slot {
  // As a follower sees the agent.
  class Home final : public FollowerHome {
   public:
    explicit Home(Capturing& capturing) : capturing_(capturing) {}
    uint64_t Timeline(const std::string& database) override { return capturing_.memory_.Timeline(database); }
    Rested Remembered(const std::string& database) override { return capturing_.memory_.Remembered(database); }
    void Remember(const std::string& database, const Rested& rested) override { capturing_.memory_.Remember(database, rested); }
    void CheckChain(const v1::ChainCheck& check) override { capturing_.memory_.CheckChain(check); }
    void Gap(const std::string& database, const Moment& from, const std::optional<Moment>& until, std::string_view reason,
             const std::string& message) override {
      capturing_.memory_.Gap(database, from, until, reason, message);
    }
    bool BeginTurn(Turn turn) override {
      MutexLock lock(capturing_.mu_);
      const Options& most = capturing_.options_;
      int& running = Running(turn);
      if (running >= (turn == Turn::kDrain ? most.drains : most.comparisons)) return false;
      ++running;
      return true;
    }
    void EndTurn(Turn turn) override {
      MutexLock lock(capturing_.mu_);
      --Running(turn);
    }

   private:
    int& Running(Turn turn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(capturing_.mu_) {
      return turn == Turn::kDrain ? capturing_.draining_ : capturing_.comparing_;
    }

    Capturing& capturing_;
  };

  Slot(Followed settings, Capturing& capturing)
      : followed(std::move(settings)),
        home(capturing),
        shipper(followed.shipper, capturing.transport_, capturing.rate_, capturing.saved_turns_, capturing.clock_),
        follower(followed.follow, shipper, home, capturing.clock_) {}

  const Followed followed;
  Home home;
  Shipper shipper;
  Follower follower;  // of whoever has the slot

  // Under mu_.
  std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();  // of what runs
  bool taken = false;
  bool checked = false;  // while it waits in due_
  bool noticed = false;  // since the last look
  SteadyTime queued_at{};
  bool wanted = false;  // somebody waits to have it for good
  bool paused = false;  // its follower was told to let go; it is taken up again when nobody pauses it any more
  SteadyTime look_at{};
  SteadyTime peek_at = SteadyTime::max();

  // The looking thread's.
  int watch = -1;
  SteadyTime watch_at{};
};

Capturing::Capturing(Options options, CaptureMemory& memory, upload::UploadTransport& transport, RateLimit& rate, const Clock& clock)
    : options_(options), memory_(memory), transport_(transport), rate_(rate), clock_(clock) {}

Capturing::~Capturing() { Stop(); }

bool Capturing::Take(Slot& slot, SteadyTime deadline, const CancelToken& cancel) {
  ++takers_;
  const auto end = absl::MakeCleanup([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { --takers_; });
  while (slot.taken) {
    // What only waits for its turn is nobody's.
    const auto waits = std::find_if(due_.begin(), due_.end(), [&](const auto& due) { return due.get() == &slot; });
    if (waits != due_.end() && !slot.checked) {
      due_.erase(waits);
      return true;
    }
    const SteadyTime now = std::chrono::steady_clock::now();
    if (cancel.cancelled() || now >= deadline) return false;
    given_.WaitUntil(mu_, std::min<SteadyTime>(deadline, now + kCancelLook));
  }
  slot.taken = true;
  return true;
}

void Capturing::Give(Slot& slot) {
  const SteadyTime peek_at = slot.follower.peek_at();
  MutexLock lock(mu_);
  slot.taken = false;
  slot.peek_at = peek_at;
  // Whoever gives it back is not always who looks, and a look that came meanwhile was left out.
  if ((peek_at < slot.look_at || slot.look_at <= clock_.Steady() || slot.noticed) && wake_.valid()) eventfd_write(wake_.get(), 1);
  if (takers_ > 0) given_.SignalAll();
}

absl::Status Capturing::Set(std::vector<Followed> databases, const CancelToken& cancel) {
  std::vector<std::shared_ptr<Slot>> retired;
  std::vector<Followed> fresh;
  {
    MutexLock lock(mu_);
    for (auto at = slots_.begin(); at != slots_.end();) {
      const auto same = std::find_if(databases.begin(), databases.end(), [&](const Followed& followed) {
        return followed.follow.database == at->first && Same(followed, at->second->followed);
      });
      if (same != databases.end()) {
        databases.erase(same);
        ++at;
        continue;
      }
      retired_[at->first] = at->second;  // whoever pauses it waits for its end
      at = slots_.erase(at);
    }
    for (const auto& [name, slot] : retired_) retired.push_back(slot);
    later_.clear();
  }
  const Slots running = Retire(retired, cancel);
  // One that was not let go of must not have another one beside it.
  std::vector<Followed> later;
  std::erase_if(databases, [&](Followed& followed) {
    if (!running.contains(followed.follow.database)) return false;
    later.push_back(std::move(followed));
    return true;
  });
  {
    MutexLock lock(mu_);
    retired_ = running;
    if (!cancel.cancelled()) later_ = std::move(later);
  }
  if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the agent ends: nothing more is captured");
  return Add(std::move(databases));
}

absl::Status Capturing::TakeUp() {
  std::vector<std::shared_ptr<Slot>> retired;
  {
    MutexLock lock(mu_);
    if (retired_.empty()) return absl::OkStatus();
    for (const auto& [name, slot] : retired_) {
      if (Take(*slot, SteadyTime::min(), CancelToken())) retired.push_back(slot);
    }
  }
  for (const std::shared_ptr<Slot>& slot : retired) {
    slot->follower.LetGo("not configured any more");
    Give(*slot);
  }
  std::vector<Followed> databases;
  {
    MutexLock lock(mu_);
    for (const std::shared_ptr<Slot>& slot : retired) retired_.erase(slot->followed.follow.database);
    std::vector<Followed> later;
    for (Followed& followed : later_) (retired_.contains(followed.follow.database) ? later : databases).push_back(std::move(followed));
    later_ = std::move(later);
  }
  return Add(std::move(databases));
}

absl::Status Capturing::Add(std::vector<Followed> databases) {
  std::vector<std::shared_ptr<Slot>> slots;
  for (Followed& followed : databases) slots.push_back(std::make_shared<Slot>(std::move(followed), *this));
  const auto let_go = absl::MakeCleanup([&] {
    for (const std::shared_ptr<Slot>& slot : slots) {
      slot->follower.LetGo("paused");
      Give(*slot);
    }
  });
  MutexLock lock(mu_);
  for (const std::shared_ptr<Slot>& slot : slots) {
    slot->paused = slot->taken = pauses_.contains(slot->followed.follow.database);
    slots_[slot->followed.follow.database] = slot;
  }
  std::erase_if(slots, [](const std::shared_ptr<Slot>& slot) { return !slot->taken; });
  if (stop_ || slots_.empty()) return absl::OkStatus();
  if (!std::exchange(started_, true)) {
    wake_ = io::UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_.valid()) return ErrnoError(errno, "begin continuous capture");
    absl::StatusOr<Watch> watch = Watch::Open();
    if (watch.ok()) {
      watch_.emplace(*std::move(watch));
    } else {
      spdlog::warn("databases are only looked at every 30 s for who opens and closes them: {}", MessageOf(watch.status()));
    }
    threads_.emplace_back([this] { Look(); });
    for (int i = 0; i < options_.shippers; ++i) threads_.emplace_back([this] { Work(); });
  } else {
    eventfd_write(wake_.get(), 1);
  }
  return absl::OkStatus();
}

Capturing::Slots Capturing::Retire(const std::vector<std::shared_ptr<Slot>>& slots, const CancelToken& cancel) {
  Slots running;
  {
    MutexLock lock(mu_);
    for (const std::shared_ptr<Slot>& slot : slots) {
      slot->cancel->Interrupt();
      slot->wanted = true;
    }
  }
  for (const std::shared_ptr<Slot>& slot : slots) {
    {
      MutexLock lock(mu_);
      if (!Take(*slot, std::chrono::steady_clock::now() + options_.take_wait, cancel)) {
        if (!cancel.cancelled())
          spdlog::error("{}: its capture does not end; until it has nothing else follows it", slot->followed.follow.database);
        running[slot->followed.follow.database] = slot;
        continue;
      }
    }
    slot->follower.LetGo("not configured any more");
    Give(*slot);  // a Pause may wait for it
  }
  return running;
}

void Capturing::Stop() {
  std::vector<std::shared_ptr<Slot>> slots;
  {
    MutexLock lock(mu_);
    stop_ = true;
    for (Slots* const all : {&slots_, &retired_}) {
      for (auto& [name, slot] : *all) slots.push_back(std::move(slot));
      all->clear();
    }
    later_.clear();
    for (const std::shared_ptr<Slot>& slot : slots) slot->cancel->Interrupt();
    // In those that are checked the looking thread is.
    for (const std::shared_ptr<Slot>& slot : due_) slot->taken = slot->checked;
    due_.clear();
    given_.SignalAll();
    work_.SignalAll();
    if (wake_.valid()) eventfd_write(wake_.get(), 1);
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (const std::shared_ptr<Slot>& slot : slots) slot->follower.LetGo("the agent has stopped");
}

absl::StatusOr<std::shared_ptr<Capturing::Paused>> Capturing::Pause(const std::string& database, std::string_view why,
                                                                    const CancelToken& cancel, milliseconds most) {
  std::shared_ptr<Slot> slot;
  {
    MutexLock lock(mu_);
    ++pauses_[database];
    for (const Slots* const all : {&slots_, &retired_}) {
      if (const auto found = all->find(database); found != all->end()) slot = found->second;
    }
  }
  auto paused = std::make_shared<Paused>(*this, database);
  if (slot == nullptr) return paused;
  {
    MutexLock lock(mu_);
    slot->cancel->Interrupt();
    slot->wanted = true;
    const bool taken = Take(*slot, std::chrono::steady_clock::now() + most, cancel);
    slot->wanted = false;
    slot->paused = slot->paused || taken;
    slot->cancel = std::make_shared<CancelToken>();
    if (!taken && cancel.cancelled()) {
      return Error(absl::StatusCode::kCancelled, "CANCELLED",
                   fmt::format("it was cancelled while continuous capture let go of {}", database));
    }
    if (!taken) {
      return Error(absl::StatusCode::kDeadlineExceeded, "CAPTURE_BUSY", fmt::format("continuous capture does not let go of {}", database),
                   "try again later");
    }
  }
  slot->follower.LetGo(why);
  Give(*slot);
  return paused;
}

void Capturing::Resume(const std::string& database) {
  MutexLock lock(mu_);
  if (--pauses_[database] > 0) return;
  pauses_.erase(database);
  if (wake_.valid()) eventfd_write(wake_.get(), 1);  // the looking thread takes it up again
}

std::shared_ptr<Capturing::Slot> Capturing::SlotOf(const std::string& database) const {
  MutexLock lock(mu_);
  const auto found = slots_.find(database);
  return found == slots_.end() ? nullptr : found->second;
}

void Capturing::ChainChecked(const v1::ChainChecked& checked) {
  if (const auto slot = SlotOf(checked.database()); slot != nullptr) slot->follower.ChainChecked(checked);
}

void Capturing::CompareAgain(const std::string& database) {
  if (const auto slot = SlotOf(database); slot != nullptr) slot->follower.CompareAgain();
}

std::optional<Follower::Status> Capturing::StatusOf(const std::string& database) const {
  const auto slot = SlotOf(database);
  return slot == nullptr ? std::nullopt : std::optional(slot->follower.status());
}

void Capturing::Work() {
  for (;;) {
    std::shared_ptr<Slot> slot;
    std::shared_ptr<CancelToken> cancel;
    {
      MutexLock lock(mu_);
      auto next = due_.end();
      while (!stop_ && (next = std::find_if(due_.begin(), due_.end(), [](const auto& due) { return !due->checked; })) == due_.end())
        work_.Wait(mu_);
      if (stop_) return;
      slot = std::move(*next);
      due_.erase(next);
      cancel = slot->cancel;
    }
    slot->follower.Step(*cancel);
    Give(*slot);
  }
}

void Capturing::DrainWatch() {
  if (!watch_.has_value()) return;
  std::vector<std::shared_ptr<Slot>> slots;
  {
    MutexLock lock(mu_);
    for (const auto& [name, slot] : slots_) slots.push_back(slot);
  }
  std::set<std::shared_ptr<Slot>> noticed;
  const absl::Status drained = watch_->Drain([&](const Watch::Event& event) {
    for (const std::shared_ptr<Slot>& slot : slots) {
      if (event.watch != -1 && slot->watch != event.watch) continue;
      slot->follower.Notice(event.opened);
      noticed.insert(slot);
      if (event.gone) slot->watch = -1;
      if (event.moved) slot->watch_at = {};
    }
  });
  if (!drained.ok()) spdlog::warn("{}", MessageOf(drained));
  RemoveWatches(slots);
  MutexLock lock(mu_);
  for (const std::shared_ptr<Slot>& slot : noticed) slot->noticed = true;
}

void Capturing::RemoveWatches(const std::vector<std::shared_ptr<Slot>>& slots) {
  std::set<int> wanted;
  for (const std::shared_ptr<Slot>& slot : slots) wanted.insert(slot->watch);
  std::erase_if(watches_, [&](int watch) {
    if (wanted.contains(watch)) return false;
    watch_->Remove(watch);
    return true;
  });
}

void Capturing::KeepWatched(Slot& slot) {
  if (!watch_.has_value() || clock_.Steady() < slot.watch_at) return;
  slot.watch_at = clock_.Steady() + kWatchAgain;
  // A file that was moved away, or that has another name yet (the one before a restore), is watched on: what counts is the one at the path.
  const absl::StatusOr<int> watch = watch_->Add(slot.followed.follow.source.path);
  if (!watch.ok() || *watch == slot.watch) return;
  slot.watch = *watch;
  watches_.insert(*watch);
  slot.follower.Notice();
}

SteadyTime Capturing::LookRound() {
  const SteadyTime now = clock_.Steady();
  SteadyTime next = now + seconds(1);
  enum class Kind { kResume, kLook, kPeek, kLeft };
  struct Due {
    std::shared_ptr<Slot> slot;
    Kind kind;
  };
  std::vector<Due> due;
  {
    MutexLock lock(mu_);
    for (const auto& [name, slot] : slots_) {
      if (slot->taken) continue;
      const bool resume = slot->paused && !pauses_.contains(name);
      const bool look = slot->look_at <= now;
      if (look) {
        // Databases with the same interval are looked at together.
        const auto interval = std::chrono::duration_cast<nanoseconds>(slot->followed.follow.interval);
        slot->look_at = SteadyTime((now.time_since_epoch() / interval + 1) * interval);
      }
      if ((resume || look || slot->noticed || slot->peek_at <= now) && !slot->wanted) {
        slot->taken = true;
        if (resume) slot->paused = false;
        due.push_back({slot, resume ? Kind::kResume : look ? Kind::kLook : slot->noticed ? Kind::kLeft : Kind::kPeek});
        slot->noticed = false;
      }
      next = std::min(next, slot->taken || slot->wanted ? slot->look_at : std::min(slot->look_at, slot->peek_at));
    }
  }
  for (const auto& [slot, kind] : due) {
    if (kind == Kind::kResume) slot->follower.Resume();
    KeepWatched(*slot);
    const bool wanted = kind == Kind::kLeft ? slot->follower.Left() : kind == Kind::kPeek ? slot->follower.Peek() : slot->follower.Glance();
    if (!wanted) {
      Give(*slot);
      continue;
    }
    MutexLock lock(mu_);
    if (stop_ || slot->wanted) {
      slot->taken = false;
      given_.SignalAll();
    } else {
      slot->queued_at = now;
      due_.push_back(slot);
      work_.Signal();
    }
  }
  KeepBounds(now);
  return next;
}

void Capturing::KeepBounds(SteadyTime now) {
  std::vector<std::shared_ptr<Slot>> waiting;
  {
    MutexLock lock(mu_);
    for (const std::shared_ptr<Slot>& slot : due_) {
      if (now - slot->queued_at < kTurnWait) continue;
      slot->checked = true;
      waiting.push_back(slot);
    }
  }
  for (const std::shared_ptr<Slot>& slot : waiting) slot->follower.KeepBounds(now - slot->queued_at);
  if (waiting.empty()) return;
  MutexLock lock(mu_);
  for (const std::shared_ptr<Slot>& slot : waiting) slot->checked = false;
  given_.SignalAll();
  work_.SignalAll();
}

void Capturing::Look() {
  for (;;) {
    {
      MutexLock lock(mu_);
      if (stop_) return;
    }
    DrainWatch();
    SteadyTime next = LookRound();
    // Somebody who opens and closes all the time is looked at a few times a second.
    const SteadyTime now = clock_.Steady();
    const bool waked_by_events = watch_.has_value() && now >= noticed_at_ + kNoticeAgain;
    if (watch_.has_value() && !waked_by_events) next = std::min(next, noticed_at_ + kNoticeAgain);
    const auto wait = std::max(nanoseconds(0), std::chrono::duration_cast<nanoseconds>(next - now));
    const struct timespec timeout { static_cast<time_t>(wait.count() / 1'000'000'000), static_cast<long>(wait.count() % 1'000'000'000) };
    std::array<struct pollfd, 2> fds{{{wake_.get(), POLLIN, 0}, {waked_by_events ? watch_->fd() : -1, POLLIN, 0}}};
    if (ppoll(fds.data(), fds.size(), &timeout, nullptr) <= 0) continue;
    if (fds[1].revents != 0) noticed_at_ = clock_.Steady();
    eventfd_t ignored = 0;
    if (fds[0].revents != 0) eventfd_read(wake_.get(), &ignored);
  }
}

}  // namespace litefleet::follow
