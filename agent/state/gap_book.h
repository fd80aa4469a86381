// Times in which promised states of a database are missing (design laws 10 and 11), from the moment the device knows of one until the
// controller has it. A schedule that could not be kept, a spool that was full, continuous capture that had to let go: all write here.
//
//   gaps/ID, open            begun; told once to the controller, stays
//   gaps/ID, ended           both ends known; told, and forgotten when the controller has recorded it
//
//   call       | nothing there         | one of that database and reason is open  | one of them has ended and was not recorded
//   -----------+-----------------------+------------------------------------------+-------------------------------------------
//   Begin      | a new open gap        | goes on from the earlier begin, counts   | a new open gap
//   Add        | a new ended gap       | a new ended gap                          | made longer where they touch, else a new one
//   End        | nothing               | ended                                    | nothing
//
// A database has at most kMaxPerDatabase of them: the two oldest that have ended become one then. Times are the device's clock at the
// moment they were read. One of this boot is kept with how far that clock was from the boot clock then: where it has been set since (a
// machine without a battery begins in 1970), OnThisClock says what the time is by the clock as it is now. One of a boot before, which the
// disk remembers, stays as it is: the clock was right then as far as anybody knows. The control session corrects by the difference between
// the clock and the controller's.
//
// Thread safety: all members may be called from any thread. Each change is durable on return: one small file is written under mu_, which is
// the only lock, and nothing is called under it. Errors: those of the file system; then nothing was changed.
#ifndef LITEFLEET_AGENT_STATE_GAP_BOOK_H_
#define LITEFLEET_AGENT_STATE_GAP_BOOK_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::state {

class GapBook {
 public:
  static constexpr size_t kMaxPerDatabase = 32;

  // What the boot clock said at a time. Empty: the time is of another boot, or nobody knows of which.
  using SinceBoot = std::optional<std::chrono::nanoseconds>;

  // What is new since the last call: which state the gap begins after, why, for people, and how many snapshots were made and dropped.
  struct Begun {
    std::string database;
    SystemTime from;
    std::string reason;  // UPPER_SNAKE_CASE
    std::string message;
    uint32_t snapshots = 0;
    SinceBoot from_since_boot = std::nullopt;
  };

  // `directory` exists. `damaged` gets a sentence for each file that could not be read and was moved aside. `clock` outlives the book;
  // null: the system's.
  static absl::StatusOr<std::unique_ptr<GapBook>> Open(const std::string& directory, std::vector<std::string>& damaged,
                                                       const Clock* clock = nullptr);

  // Called after each change, without a lock held; once, before other threads know of this.
  void OnChange(std::function<void()> changed) { changed_ = std::move(changed); }

  // The gap's id. REQUIRES: IsName(begun.database).
  absl::StatusOr<std::string> Begin(const Begun& begun);
  // `until` is the first state after it, and by the clock as it is now. One that is not there or has ended stays as it is.
  absl::Status End(const std::string& id, SystemTime until);
  absl::Status End(const std::string& id, SystemTime until, SinceBoot since_boot);
  // The open gap of the database and this reason, where there is one.
  absl::Status EndOf(const std::string& database, std::string_view reason, SystemTime until);
  // A gap of which both ends are known.
  absl::StatusOr<std::string> Add(const Begun& begun, SystemTime until, SinceBoot until_since_boot);

  // What has not ended, of one database or (empty) of all; oldest first.
  std::vector<v1::CoverageGap> OpenGaps(const std::string& database) const;

  // ---- for the control session
  // One that the controller does not have as it is here.
  std::optional<v1::CoverageGap> NextUnrecorded() const;
  // The same gap, its times by the device's clock as it is set now, and as far ahead as `offset` says, which is what that clock lacks. What
  // is later than it is now is not by this clock, and stays. For what is told, not for Recorded.
  v1::CoverageGap OnThisClock(const v1::CoverageGap& gap, std::chrono::milliseconds offset = std::chrono::milliseconds(0)) const;
  // It has `reported`, which NextUnrecorded returned; what changed since then stays to be told.
  absl::Status Recorded(const v1::CoverageGap& reported);

 private:
  // By which clock a time is.
  struct Mark {
    std::string boot_id;  // empty: nobody knows
    int64_t base_ms = 0;  // the device's clock less the boot clock
  };
  struct Entry {
    v1::CoverageGap gap;
    bool recorded = false;
    Mark from;
    Mark until;
  };
  using Entries = std::map<std::string, Entry>;  // by id, which is by `from`

  GapBook(std::string directory, const Clock* clock) : directory_(std::move(directory)), clock_(clock), boot_id_(BootId()) {}

  std::string PathOf(const std::string& id) const { return directory_ + "/" + id; }
  const Clock& clock() const;
  Mark MarkNow() const;
  Mark MarkOf(SystemTime time, SinceBoot since_boot) const;
  // What a time of this mark lacks by the clock as it is now.
  std::chrono::milliseconds SetSince(const Mark& mark) const;
  absl::Status Put(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entry NewEntry(const Begun& begun) const;
  void SetUntil(Entry& entry, SystemTime until, const Mark& mark) const;
  absl::StatusOr<std::string> PutNew(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status EndLocked(const std::string& id, SystemTime until, const Mark& mark) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes room for one more of the database.
  absl::Status JoinOldest(const std::string& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Remove(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `changed_`, and the status.
  template <class Result>
  Result Told(Result result) const {
    if (result.ok() && changed_) changed_();
    return result;
  }

  const std::string directory_;
  const Clock* const clock_;  // null: the system's
  const std::string boot_id_;
  std::function<void()> changed_;

  mutable Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::state

#endif  // LITEFLEET_AGENT_STATE_GAP_BOOK_H_
