// Times in which promised states of a database are missing (design laws 10 and 11), from the moment the device knows of one until the
// controller has it. A schedule that could not be kept, a spool that was full, continuous capture that had to let go: all write here.
//
//   gaps/ID, open            begun; told once to the controller, stays
//   gaps/ID, ended           both ends known; told, and forgotten when the controller has recorded it
//
//   call       | nothing there         | one of that database and reason is open  | one of them has ended and was not recorded
//   -----------+-----------------------+------------------------------------------+-------------------------------------------
//   Begin      | a new open gap        | goes on, counts the snapshots            | a new open gap
//   Add        | a new ended gap       | a new ended gap                          | made longer where they touch, else a new one
//   End        | nothing               | ended                                    | nothing
//
// A database has at most kMaxPerDatabase of them: the two oldest that have ended become one then. Times are the device's clock; the control
// session corrects them by the offset of its welcome.
//
// Thread safety: all members may be called from any thread. Each change is durable on return: one small file is written under mu_, which is
// the only lock, and nothing is called under it. Errors: those of the file system; then nothing was changed.
#ifndef LITEFLEET_AGENT_STATE_GAP_BOOK_H_
#define LITEFLEET_AGENT_STATE_GAP_BOOK_H_

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

  // What is new since the last call: which state the gap begins after, why, for people, and how many snapshots were made and dropped.
  struct Begun {
    std::string database;
    SystemTime from;
    std::string reason;  // UPPER_SNAKE_CASE
    std::string message;
    uint32_t snapshots = 0;
  };

  // `directory` exists. `damaged` gets a sentence for each file that could not be read and was moved aside.
  static absl::StatusOr<std::unique_ptr<GapBook>> Open(const std::string& directory, std::vector<std::string>& damaged);

  // Called after each change, without a lock held; once, before other threads know of this.
  void OnChange(std::function<void()> changed) { changed_ = std::move(changed); }

  // The gap's id. REQUIRES: IsName(begun.database).
  absl::StatusOr<std::string> Begin(const Begun& begun);
  // `until` is the first state after it. One that is not there or has ended stays as it is.
  absl::Status End(const std::string& id, SystemTime until);
  // The open gap of the database and this reason, where there is one.
  absl::Status EndOf(const std::string& database, std::string_view reason, SystemTime until);
  // A gap of which both ends are known.
  absl::StatusOr<std::string> Add(const Begun& begun, SystemTime until);

  // What has not ended, of one database or (empty) of all; oldest first.
  std::vector<v1::CoverageGap> OpenGaps(const std::string& database) const;

  // ---- for the control session
  // One that the controller does not have as it is here.
  std::optional<v1::CoverageGap> NextUnrecorded() const;
  // It has `reported`, which NextUnrecorded returned; what changed since then stays to be told.
  absl::Status Recorded(const v1::CoverageGap& reported);

 private:
  struct Entry {
    v1::CoverageGap gap;
    bool recorded = false;
  };
  using Entries = std::map<std::string, Entry>;  // by id, which is by `from`

  explicit GapBook(std::string directory) : directory_(std::move(directory)) {}

  std::string PathOf(const std::string& id) const { return directory_ + "/" + id; }
  absl::Status Put(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::string> PutNew(const Begun& begun, std::optional<SystemTime> until) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status EndLocked(const std::string& id, SystemTime until) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
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
  std::function<void()> changed_;

  mutable Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::state

#endif  // LITEFLEET_AGENT_STATE_GAP_BOOK_H_
