#include "agent/restore/plan.h"

#include <fcntl.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "agent/restore/in_use.h"
#include "common/base/clock.h"
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

constexpr uint64_t kSampleBytes = 8 << 20;
constexpr uint64_t kSampleStep = 1 << 20;
constexpr std::chrono::milliseconds kSampleTime{500};
// Of a slow card.
constexpr int64_t kAssumedBytesPerSecond = 10'000'000;
constexpr int kMaxTables = 1000;

bool IsNoTable(const std::string& name) { return name.empty() || name.size() > 1000 || name.find('\0') != std::string::npos; }

// A frame of the WAL or an entry of the journal is a little larger than its page.
uint64_t WithFrames(uint64_t bytes) { return bytes + bytes / 16; }

std::string Size(uint64_t bytes) {
  return bytes >= (1 << 20) ? fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)) : fmt::format("{} bytes", bytes);
}

// What may be written for a sample without touching the reserve.
uint64_t FreeAbove(const TargetPlace& place, const Target& target) {
  const auto free = io::FreeBytes(place.directory());
  const auto reserve = target.reserve.At(place.directory());
  return free.ok() && reserve.ok() && *free > *reserve ? *free - *reserve : 0;
}

// Into a file without a name, which goes with its descriptor.
std::optional<CopyRate> SampleWrites(const TargetPlace& place, uint64_t bytes) {
  if (bytes < kSampleStep) return std::nullopt;
  const io::UniqueFd fd(openat(place.directory_fd(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return std::nullopt;
  // Not compressible: some file systems would only pretend to write.
  Bytes block(kSampleStep);
  std::minstd_rand random(1);
  for (std::byte& byte : block) byte = static_cast<std::byte>(random());
  const auto begin = std::chrono::steady_clock::now();
  uint64_t written = 0;
  while (written + kSampleStep <= bytes && std::chrono::steady_clock::now() - begin < kSampleTime) {
    if (!io::PwriteAll(fd.get(), block, written, "a sample").ok()) return std::nullopt;
    written += kSampleStep;
  }
  if (fdatasync(fd.get()) != 0) return std::nullopt;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  return CopyRate{std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(written) / std::max(took.count(), 1e-6)))};
}

bool OthersHaveItOpen(const TargetPlace& place) {
  std::vector<capture::FileId> files;
  std::vector<capture::LockedFile> locked;
  for (const std::string_view suffix : {"", "-wal", "-shm"}) {
    const std::string name = place.name() + std::string(suffix);
    const auto st = place.Stat(name);
    if (!st.ok() || !st->has_value()) continue;
    files.push_back({(*st)->st_dev, (*st)->st_ino});
    locked.push_back(capture::AsLocked(place.PathOf(name), files.back()));
  }
  return capture::LockedByOthers(locked) || !FindUsers(files).pids.empty();
}

struct PlannedRate {
  CopyRate rate;
  std::string basis;  // for people
};

PlannedRate RateFor(const TargetPlace& place, const Target& target) {
  if (target.rate.bytes_per_second > 0) return {target.rate, "as the last live restore of this database took"};
  const uint64_t sample = std::min<uint64_t>(kSampleBytes, FreeAbove(place, target));
  if (const auto written = SampleWrites(place, sample); written.has_value()) {
    return {*written, fmt::format("as a sample of {} took that was just written and synced beside it", Size(sample))};
  }
  return {{kAssumedBytesPerSecond}, "which is assumed: nothing was measured here yet, and no sample could be written"};
}

void DescribeUndo(v1::RestorePlan& plan, const storage::v1::UndoRecord& record, const TargetPlace& place, bool wal) {
  const auto say = [&](std::string text) { plan.add_steps(std::move(text)); };
  if (Removes(record)) {
    say(fmt::format("make sure that nobody has {} open", place.path()));
    say("take it away and keep it as the next undo: there was no database before the restore");
    return;
  }
  say(fmt::format("take {}, which the restore {} kept", record.undo(), record.operation_id()));
  switch (plan.mode()) {
    case v1::RESTORE_MODE_NEW:
      say(fmt::format("rename it to {}, where nothing is now", place.path()));
      break;
    case v1::RESTORE_MODE_LIVE:
      say("copy the present state aside as the next undo");
      say(fmt::format("copy the kept state into {} in one transaction, while applications have it open; {} wait", place.path(),
                      wal ? "writers" : "writers and readers"));
      break;
    default:
      say("fold the write-ahead log or journal into the present database, and make sure that nobody has it open");
      say(fmt::format("keep it as the next undo, and rename the kept file to {}", place.path()));
  }
}

std::string TablesOf(const v1::RestoreOrder& order) {
  constexpr int kNamed = 8;
  std::string names;
  for (int i = 0; i < order.tables_size() && i < kNamed; ++i) names += (i == 0 ? "" : ", ") + order.tables(i);
  if (order.tables_size() > kNamed) names += fmt::format(" and {} more", order.tables_size() - kNamed);
  return names;
}

void DescribeSteps(v1::RestorePlan& plan, const TargetPlace& place, bool wal, const v1::RestoreOrder& order) {
  const bool is_text = order.content() == v1::SNAPSHOT_CONTENT_SQL;
  const bool tables = order.tables_size() > 0;
  const auto say = [&](std::string text) { plan.add_steps(std::move(text)); };
  if (plan.mode() == v1::RESTORE_MODE_NEW || is_text) {
    say(fmt::format("fetch the snapshot into a staging file in {}, and prove its root digest", place.directory()));
  } else {
    say(fmt::format(
        "take what the present database shares with the snapshot into a staging file in {}, fetch what differs, and prove its root digest",
        place.directory()));
  }
  if (is_text) say("load that SQL text into a staging database in a process without rights");
  if (tables && plan.mode() == v1::RESTORE_MODE_NEW)
    say(fmt::format("take the tables {} out of it into a database of their own, with their indexes, triggers and counters",
                    TablesOf(order)));
  say("run SQLite's checks on it in a process without rights");
  switch (plan.mode()) {
    case v1::RESTORE_MODE_NEW:
      say("move a left-over -wal, -shm or -journal aside");
      say(fmt::format("rename the staging file to {}", place.path()));
      break;
    case v1::RESTORE_MODE_LIVE:
      say("copy the present state aside as the undo");
      if (tables) {
        say(fmt::format(
            "lock the database ({} wait), replace the tables {} in a copy of it, with their indexes, triggers and counters, in a "
            "process without rights, and look at the foreign keys; where rows would lose their parents, nothing is changed",
            wal ? "writers" : "writers and readers", TablesOf(order)));
        say(fmt::format("copy the result into {} in one transaction", place.path()));
        say(wal ? "read the result back, and fold the write-ahead log" : "read the result back");
        break;
      }
      say(fmt::format("copy the snapshot into {} in one transaction, while applications have it open; {} wait", place.path(),
                      wal ? "writers" : "writers and readers"));
      say(wal ? "read the result back, and fold the write-ahead log" : "read the result back");
      break;
    default:
      say("fold the write-ahead log or journal into the present database, and make sure that nobody has it open");
      say(fmt::format("keep it as the undo, and rename the staging file to {}", place.path()));
  }
}

}  // namespace

absl::Status CheckSnapshotId(const v1::RestoreOrder& order, const Target& target) {
  if (IsUlid(order.snapshot_id())) return absl::OkStatus();
  return Error(Code::kInvalidArgument, "ORDER_INVALID",
               fmt::format("the order to restore {} names its snapshot by what is no id", target.database),
               "bring agent and controller to the same version");
}

absl::Status CheckOrder(const v1::RestoreOrder& order, const Target& target) {
  if (!target.push_restore.empty() && target.push_restore != "allow") {
    return Error(
        Code::kPermissionDenied, "PUSH_RESTORE_DENIED",
        fmt::format("the device does not let the controller restore {} (push_restore = \"{}\")", target.database, target.push_restore),
        "set push_restore = \"allow\" in the configuration on the device");
  }
  if (order.content() > v1::SNAPSHOT_CONTENT_SQL) {
    return Error(Code::kInvalidArgument, "ORDER_INVALID", fmt::format("what the order restores to {} is no database", target.database),
                 "restore a snapshot of a database, or download this one");
  }
  // What is restored from a file of the device (restore-local) has none.
  if (!order.snapshot_id().empty()) LF_RETURN_IF_ERROR(CheckSnapshotId(order, target));
  if (order.tables_size() > kMaxTables || std::any_of(order.tables().begin(), order.tables().end(), IsNoTable)) {
    return Error(Code::kInvalidArgument, "ORDER_INVALID",
                 fmt::format("the tables of {} that are to be restored have no names", target.database));
  }
  const bool sizes_make_sense = format::IsPageSize(order.page_size()) && order.page_count() <= format::kMaxPageCount;
  if (!sizes_make_sense || order.root_version() != format::kRootVersion || order.root_digest().size() != format::kDigestBytes) {
    return Error(Code::kInvalidArgument, "ORDER_INVALID",
                 fmt::format("the order to restore {} names {} pages of {} bytes and a root digest of {} bytes, version {}",
                             target.database, order.page_count(), order.page_size(), order.root_digest().size(), order.root_version()),
                 "bring agent and controller to the same version");
  }
  return absl::OkStatus();
}

absl::Status CheckNotEmpty(v1::RestoreMode mode, uint32_t page_count, const TargetPlace& place) {
  if (mode != v1::RESTORE_MODE_LIVE || page_count > 0) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "SNAPSHOT_EMPTY",
               fmt::format("the snapshot holds nothing, and there is a database at {}", place.path()),
               "restore an earlier snapshot; with --mode replace the empty one takes its place");
}

absl::StatusOr<v1::RestoreMode> DecideMode(const v1::RestoreOrder& order, const TargetPlace& place) {
  LF_ASSIGN_OR_RETURN(const auto st, place.Stat(place.name()));
  if (order.tables_size() > 0 && order.mode() == v1::RESTORE_MODE_REPLACE) {
    return Error(Code::kFailedPrecondition, "TABLES_MODE", fmt::format("a replaced {} would have these tables alone", place.path()),
                 "restore the tables live (the default), or download them into a file of their own");
  }
  switch (order.mode()) {
    case v1::RESTORE_MODE_NEW:
      if (!st.has_value()) return v1::RESTORE_MODE_NEW;
      return Error(Code::kFailedPrecondition, "TARGET_EXISTS", fmt::format("there is a database at {} already", place.path()),
                   "restore it live (the default), or with --mode replace");
    case v1::RESTORE_MODE_LIVE:
      if (st.has_value()) return v1::RESTORE_MODE_LIVE;
      return Error(Code::kFailedPrecondition, "TARGET_MISSING", fmt::format("there is no database at {}", place.path()),
                   "restore without --mode");
    case v1::RESTORE_MODE_REPLACE:
      return st.has_value() ? v1::RESTORE_MODE_REPLACE : v1::RESTORE_MODE_NEW;
    default:
      return st.has_value() ? v1::RESTORE_MODE_LIVE : v1::RESTORE_MODE_NEW;
  }
}

SpaceNeeded SpaceFor(v1::RestoreMode mode, const v1::RestoreOrder& order, const LiveTarget& target, uint64_t reserve) {
  const bool tables = order.tables_size() > 0;
  // Of chosen tables nobody knows before how large they are.
  const uint64_t new_bytes = BytesOf(order) + (tables && mode == v1::RESTORE_MODE_LIVE ? target.bytes : 0);
  SpaceNeeded needed;
  needed.staging = tables ? new_bytes + BytesOf(order) : new_bytes;
  needed.reserve = reserve;
  if (mode != v1::RESTORE_MODE_LIVE) return needed;
  needed.undo = target.bytes;
  // WAL: all new pages, and then the growth of the file when it is folded. Journal: all old pages, and the growth.
  needed.journal = WithFrames(target.wal ? new_bytes : target.bytes) + (new_bytes > target.bytes ? new_bytes - target.bytes : 0);
  return needed;
}

absl::Status CheckSpace(const TargetPlace& place, const SpaceNeeded& needed) {
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(place.directory()));
  if (available >= needed.sum()) return absl::OkStatus();
  return Error(
      Code::kResourceExhausted, "NOT_ENOUGH_SPACE",
      fmt::format("{} has {} free, {} are needed: staging {}, undo {}, log or journal {}, reserve {}", place.directory(), Size(available),
                  Size(needed.sum()), Size(needed.staging), Size(needed.undo), Size(needed.journal), Size(needed.reserve)),
      "free space there; a restore with --mode replace needs less than a live one");
}

uint64_t BytesOf(const v1::RestoreOrder& order) {
  const uint64_t bytes = format::DatabaseBytes(order.page_size(), order.page_count());
  return order.content() == v1::SNAPSHOT_CONTENT_SQL ? 2 * bytes : bytes;
}

uint64_t BytesToCopy(const LiveTarget& target, uint64_t new_bytes, bool merges) {
  if (merges) return 3 * target.bytes + 2 * new_bytes;
  // Rollback mode: the old pages go into the undo copy and into the journal.
  return target.wal ? new_bytes : new_bytes + 2 * target.bytes;
}

namespace {

using Obstacles = std::function<void(const absl::Status&)>;

// What both plans say of the place once the mode is known.
void PlanAt(const TargetPlace& place, const Target& target, const ApplyOptions& options, const v1::RestoreOrder& order,
            const storage::v1::UndoRecord* undoes, const Obstacles& obstacle, v1::RestorePlan& plan) {
  const bool is_text = order.content() == v1::SNAPSHOT_CONTENT_SQL;
  const bool merges = order.tables_size() > 0 && plan.mode() == v1::RESTORE_MODE_LIVE;
  const uint64_t bytes = BytesOf(order);
  plan.set_in_use(OthersHaveItOpen(place));
  LiveTarget live;
  PlannedRate rate;
  if (plan.mode() == v1::RESTORE_MODE_LIVE) {
    const auto looked = LookAtLiveTarget(place, options, CancelToken());
    if (looked.ok()) {
      live = *looked;
      if (!is_text && !merges) obstacle(CheckPageSize(live, order.page_size()));
      if (!is_text && !merges) obstacle(CheckNotEmpty(plan.mode(), order.page_count(), place));
      rate = RateFor(place, target);
      *plan.mutable_expected_stall() = google::protobuf::util::TimeUtil::MillisecondsToDuration(
          static_cast<int64_t>(static_cast<double>(BytesToCopy(live, bytes, merges)) * 1000.0 /
                               static_cast<double>(rate.rate.bytes_per_second)) +
          1);
    } else {
      obstacle(looked.status());
    }
    plan.set_journal_mode(live.wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
  } else if (undoes == nullptr) {
    plan.set_journal_mode(order.journal_mode());
  }
  if (plan.mode() == v1::RESTORE_MODE_REPLACE && plan.in_use()) {
    obstacle(Error(Code::kFailedPrecondition, "IN_USE", fmt::format("other processes have {} open", place.path()),
                   undoes != nullptr ? "stop the application first" : "stop the application first, or restore with --mode live"));
  }
  const auto reserve = target.reserve.At(place.directory());
  obstacle(reserve.status());
  SpaceNeeded needed = SpaceFor(plan.mode(), order, live, reserve.value_or(0));
  if (undoes != nullptr) needed.staging = 0;
  plan.set_staging_bytes(static_cast<int64_t>(needed.staging));
  plan.set_undo_bytes(static_cast<int64_t>(needed.undo));
  plan.set_journal_bytes(static_cast<int64_t>(needed.journal));
  plan.set_reserve_bytes(static_cast<int64_t>(needed.reserve));
  const auto available = io::FreeBytes(place.directory());
  if (available.ok()) plan.set_free_bytes(static_cast<int64_t>(*available));
  obstacle(CheckSpace(place, needed));
  undoes != nullptr ? DescribeUndo(plan, *undoes, place, live.wal) : DescribeSteps(plan, place, live.wal, order);
  if (plan.has_expected_stall()) {
    plan.add_steps(fmt::format("expected wait: {} at {} a second, {}", Size(BytesToCopy(live, bytes, merges)),
                               Size(static_cast<uint64_t>(rate.rate.bytes_per_second)), rate.basis));
  }
}

v1::RestorePlan EmptyPlan(uint64_t bytes) {
  v1::RestorePlan plan;
  plan.set_from_device(true);
  *plan.mutable_made_at() = google::protobuf::util::TimeUtil::MillisecondsToTimestamp(ToUnixMillis(RealClock().Now()));
  plan.set_size_bytes(static_cast<int64_t>(bytes));
  return plan;
}

// Nothing where it cannot be resolved, or the mode cannot be told: an obstacle says so.
template <class Decide>
std::optional<TargetPlace> Locate(const Target& target, const Obstacles& obstacle, v1::RestorePlan& plan, const Decide& decide) {
  auto place = TargetPlace::Resolve(target.path);
  obstacle(place.status());
  if (!place.ok()) return std::nullopt;
  obstacle(place->CheckWritable());
  const absl::StatusOr<v1::RestoreMode> mode = decide(*place);
  obstacle(mode.status());
  if (!mode.ok()) return std::nullopt;
  plan.set_mode(*mode);
  return *std::move(place);
}

}  // namespace

absl::StatusOr<v1::RestorePlan> MakePlan(const v1::RestoreOrder& order, const Target& target, const ApplyOptions& options) {
  const uint64_t bytes = BytesOf(order);
  v1::RestorePlan plan = EmptyPlan(bytes);
  const Obstacles obstacle = [&](const absl::Status& status) {
    if (!status.ok()) *plan.add_obstacles() = ToErrorDetail(status);
  };
  plan.set_snapshot_id(order.snapshot_id());
  plan.set_fetch_bytes(static_cast<int64_t>(format::DatabaseBytes(order.page_size(), order.page_count())));
  obstacle(CheckOrder(order, target));
  const auto place = Locate(target, obstacle, plan, [&](const TargetPlace& at) { return DecideMode(order, at); });
  if (place.has_value()) PlanAt(*place, target, options, order, nullptr, obstacle, plan);
  return plan;
}

v1::RestorePlan MakeUndoPlan(const absl::StatusOr<UndoWish>& wish, const Target& target, const ApplyOptions& options) {
  const uint64_t bytes = wish.ok() ? format::DatabaseBytes(wish->order.page_size(), wish->order.page_count()) : 0;
  v1::RestorePlan plan = EmptyPlan(bytes);
  const Obstacles obstacle = [&](const absl::Status& status) {
    if (!status.ok()) *plan.add_obstacles() = ToErrorDetail(status);
  };
  obstacle(wish.status());
  if (!wish.ok()) return plan;
  plan.set_kept_by(wish->record.operation_id());
  if (!Removes(wish->record)) plan.set_kept_path(wish->record.undo());
  const auto place = Locate(target, obstacle, plan, [&](const TargetPlace& at) { return DecideUndoMode(wish->record, at); });
  if (place.has_value()) PlanAt(*place, target, options, wish->order, &wish->record, obstacle, plan);
  return plan;
}

}  // namespace litefleet::restore
