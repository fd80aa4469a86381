// The snapshots that wait for the controller, of all databases: what lies in STATE/spooled. FORMAT.md has the files, the states and the
// bounds.
//
//   snapshot: spool.List(db) -> the chain, oldest first          who writes one: Begin, Add chunks to the file, Finish, Added
//   room:     spool.MergeOldest(db, reason)                      who uploads one: open its file, upload, Acknowledged, Remove
//
// What a merge loses is written into the book of gaps before it is gone. Not for chunks of a running backup (agent/upload/spool.h).
//
// Thread safety: all members may be called from any thread; who changes files of a database holds it (Use, TryUse). Lock order: mu_ guards
// the table alone, no file is touched under it. Memory: a header for each snapshot. Errors: those of the file system, SPOOLED_DAMAGED,
// DISK_FULL.
#ifndef LITEFLEET_AGENT_SPOOL_SNAPSHOT_SPOOL_H_
#define LITEFLEET_AGENT_SPOOL_SNAPSHOT_SPOOL_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/spool/run_time.h"
#include "agent/spool/spool_file.h"
#include "agent/state/gap_book.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/io/disk_reserve.h"
#include "litefleet/storage/v1/spool.pb.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::spool {

// Reasons of gaps that the spool writes. The first ones are open until a snapshot is spooled or acknowledged again.
inline constexpr std::string_view kSpoolFull = "SPOOL_FULL";
inline constexpr std::string_view kSpoolExpired = "SPOOL_EXPIRED";
inline constexpr std::string_view kSpooledDamaged = "SPOOLED_DAMAGED";
inline constexpr std::string_view kRunFailed = "RUN_FAILED";
inline constexpr std::string_view kNotSpooled = "NOT_SPOOLED";  // written by who runs what the spool does not take
inline constexpr std::string_view kBaseGone = "SPOOL_BASE_GONE";

// Where nothing else is configured: no transaction is pinned meanwhile.
inline constexpr int kMergeLevel = 3;
inline constexpr size_t kMergeAtOnce = 8;

// Asked once for each chunk that a merge writes, by whoever has others to look after: what is not OK ends it, and nothing was changed. May
// be empty.
using GoesOn = std::function<absl::Status()>;

// One of the above.
bool IsReason(std::string_view reason);

struct SpooledSnapshot {
  uint64_t number = 0;
  std::string path;
  uint64_t bytes = 0;
  storage::v1::SpooledHeader header;
  std::string root;
  int64_t ended_at_ms = 0;

  const std::string& id() const { return header.session_id(); }
  bool full() const { return header.base_spooled_id().empty() && header.base_snapshot_id().empty(); }
  SystemTime taken_at() const { return FromUnixMillis(header.taken_at_ms()); }
  // What the boot clock said then; nothing where it was not in this boot, or nobody knows.
  std::optional<std::chrono::nanoseconds> taken_since_boot(std::string_view this_boot) const {
    if (this_boot.empty() || header.boot_id() != this_boot) return std::nullopt;
    return std::chrono::nanoseconds(header.taken_since_boot_ns());
  }
  // When the state before it was taken; its own time where nobody knows.
  SystemTime base_taken_at() const {
    return FromUnixMillis(header.base_taken_at_ms() != 0 ? header.base_taken_at_ms() : header.taken_at_ms());
  }
};

class SnapshotSpool {
 public:
  struct Usage {
    uint32_t snapshots = 0;
    int64_t bytes = 0;
  };

  // Makes `directory` where it is missing; removes what was not finished, moves aside what is damaged, drops what was superseded. `said`
  // gets a sentence for each. `boot_id` is that of this boot.
  static absl::StatusOr<std::unique_ptr<SnapshotSpool>> Open(const std::string& directory, state::GapBook& gaps, const Clock& clock,
                                                             std::vector<std::string>& said, std::string boot_id = BootId());

  // A database whose files somebody changes or uploads. Goes before the spool.
  class Use {
   public:
    Use(Use&& other) noexcept : spool_(std::exchange(other.spool_, nullptr)), database_(std::move(other.database_)) {}
    Use& operator=(Use&&) = delete;
    ~Use();

   private:
    friend class SnapshotSpool;
    Use(SnapshotSpool& spool, std::string database) : spool_(&spool), database_(std::move(database)) {}
    SnapshotSpool* spool_;
    std::string database_;
  };
  // Waits until nobody else has it: who holds one database waits for no other one.
  Use Hold(const std::string& database);
  // Nothing where somebody has it.
  std::optional<Use> TryUse(const std::string& database);

  // By the names and sizes of files alone: for a program beside the agent that has the spool open.
  static Usage LookAt(const std::string& directory, const std::string& database);

  std::vector<SpooledSnapshot> List(const std::string& database) const;
  std::optional<SpooledSnapshot> Newest(const std::string& database) const;
  std::optional<SpooledSnapshot> Oldest(const std::string& database) const;
  // Something is spooled of it, and all by this method.
  bool IsAllOf(const std::string& database, v1::Method method) const;
  Usage UsageOf(const std::string& database) const;
  Usage Total() const;
  // That have something spooled.
  std::vector<std::string> Databases() const;

  // ---- a snapshot
  // REQUIRES: IsName(header.database()).
  absl::StatusOr<std::unique_ptr<SpoolFileWriter>> Begin(const storage::v1::SpooledHeader& header, const SpoolFileWriter::Limits& limits);
  // The writer has finished; takes it into the table. With `header.merged` all before it go.
  absl::Status Added(const std::string& database);

  // ---- room
  // The two oldest become one, compressed at this level; the state between is a gap of this reason. An oldest one that was acknowledged and
  // is not removed yet goes instead. REQUIRES: at least two.
  absl::Status MergeOldest(const std::string& database, std::string_view reason, const io::DiskReserve& reserve, int level = kMergeLevel) {
    return Merge(database, 0, 2, reason, reserve, level, {});
  }
  // As MergeOldest; of syncs of continuous capture kMergeAtOnce neighbours, of those of which there are most the oldest, so that what is
  // old becomes coarser step by step and each page is written a few times. `keep_oldest`: that one is being uploaded. False: there are too
  // few.
  absl::StatusOr<bool> MergeSome(const std::string& database, std::string_view reason, const io::DiskReserve& reserve,
                                 int level = kMergeLevel, bool keep_oldest = false, const GoesOn& goes_on = {});
  // All states of the database that are older than `age` are merged into the one behind them; the last one is dropped, and so is what was
  // moved aside. Fewer than kMergeAtOnce wait for a sixteenth of the age at most where the oldest, which is written anew with them, is as
  // many times larger than they are. How old one is says the boot clock, and of a former boot RunTime: never the device's clock, which may
  // have been set.
  absl::Status Expire(const std::string& database, std::chrono::milliseconds age, const io::DiskReserve& reserve, int level = kMergeLevel,
                      const GoesOn& goes_on = {});

  // Called at short intervals, so that a boot that ends counts, and what was moved aside is noted; writes where there is something to
  // write. Until then it is known in memory.
  absl::Status KeepRunTime();

  // Files of all databases that were moved aside. They count like snapshots, and where room is needed they go first.
  int64_t AsideBytes() const;
  // Whether there was any.
  absl::StatusOr<bool> DropAside();

  // ---- the end of one
  absl::Status Remove(const SpooledSnapshot& snapshot);
  // This one and those that are built on it cannot be uploaded: moved aside (`keep`) or removed; an open gap.
  absl::Status GiveUp(const std::string& database, uint64_t from_number, std::string_view reason, const std::string& message, bool keep);
  // A state exists again, at this time: open gaps of the reasons above have ended.
  absl::Status EndGaps(const std::string& database, SystemTime at);
  // The same, of a state that was spooled before: a gap that begins with it or after it goes on.
  absl::Status EndGapsBefore(const std::string& database, const SpooledSnapshot& snapshot);

  // ---- how the run of a snapshot went
  // What its hooks said, for its result. It goes with the snapshot, and is lost where that is merged into a later one or the machine fails
  // in the moment in between. `runs` replace what is kept.
  absl::Status KeepHooks(const SpooledSnapshot& snapshot, std::span<const v1::HookRun> runs) const;
  std::vector<v1::HookRun> HooksOf(const SpooledSnapshot& snapshot) const;

  // ---- beside the snapshots
  std::string LedgerFile(const std::string& database) const { return FolderOf(database) + "/newest.ledger"; }
  // Nothing needs it where nothing is spooled.
  absl::Status RemoveLedger(const std::string& database) const;
  storage::v1::SpoolState ReadState(const std::string& database) const;
  absl::Status WriteState(const std::string& database, const storage::v1::SpoolState& state) const;

  // ---- times
  // The snapshot was taken in this boot: the boot clock says how long ago.
  bool KnowsAge(const SpooledSnapshot& snapshot) const { return snapshot.taken_since_boot(boot_id_).has_value(); }
  // When it was taken, by the device's clock as it is set now. Of this boot what that said then: its age says more. What it said in a
  // former boot is believed where it can be true: not before `earliest` (a state before it; unset where none is known), and no later than
  // the time that the machine has run since then, and the snapshots behind it, leave room for. Where it cannot (1970: the clock was not set
  // yet), the latest time that can be true.
  SystemTime TakenAt(const SpooledSnapshot& snapshot, SystemTime earliest) const;
  const std::string& boot_id() const { return boot_id_; }

  state::GapBook& gaps() { return gaps_; }
  const Clock& clock() const { return clock_; }

 private:
  SnapshotSpool(std::string directory, state::GapBook& gaps, const Clock& clock, std::string boot_id)
      : directory_(std::move(directory)),
        gaps_(gaps),
        clock_(clock),
        boot_id_(std::move(boot_id)),
        run_time_(directory_ + "/.run-time", clock_, boot_id_) {}

  std::string FolderOf(const std::string& database) const { return directory_ + "/" + database; }
  std::string PathOf(const std::string& database, uint64_t number) const;
  // Of one that is moved aside: under its number, or the next one that no other has. Those of an empty chain begin at 1 again.
  std::string AsidePath(const std::string& database, uint64_t number) const;
  absl::Status Load(const std::string& database, std::vector<std::string>& said);
  absl::Status DropSuperseded(const std::string& database, std::string_view reason);
  // So many from the `first` one on (0: the oldest) become one, in the place of the last of them.
  absl::Status Merge(const std::string& database, size_t first, size_t count, std::string_view reason, const io::DiskReserve& reserve,
                     int level, const GoesOn& goes_on);
  // In the place of what has its number.
  void Put(const std::string& database, SpooledSnapshot snapshot);
  void CountAside();
  // No less than this, whatever clocks say.
  std::chrono::milliseconds AgeOf(const SpooledSnapshot& snapshot) const;
  // The controller has it, and what follows that is not over.
  bool IsAcknowledged(const SpooledSnapshot& snapshot) const;

  const std::string directory_;
  state::GapBook& gaps_;
  const Clock& clock_;
  const std::string boot_id_;
  RunTime run_time_;  // its lock is taken below mu_

  mutable Mutex mu_;
  CondVar free_;
  std::set<std::string> in_use_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::map<uint64_t, SpooledSnapshot>> table_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Usage> usage_ ABSL_GUARDED_BY(mu_);  // of what is in table_
  Usage total_ ABSL_GUARDED_BY(mu_);
  int64_t aside_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// Writes neighbours, of which each but the first is built on the one before it, as one snapshot in the place of the last. REQUIRES: that
// one is built on another; at most kMergeAtOnce.
absl::Status MergeSpooled(std::span<const SpooledSnapshot> group, const io::DiskReserve& reserve, int level, const GoesOn& goes_on);

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_SNAPSHOT_SPOOL_H_
