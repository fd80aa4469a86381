#include "agent/state/gap_book.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/io/unreadable.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/agent_state.pb.h"

namespace litefleet::state {
namespace {

constexpr uint32_t kFormat = 1;
constexpr uint64_t kMaxFile = 64 << 10;
constexpr std::chrono::seconds kClockWasSet{2};  // less is rounding, and how clocks are kept in step

bool SameKind(const v1::CoverageGap& gap, const std::string& database, std::string_view reason) {
  return gap.database() == database && gap.reason() == reason;
}

bool Same(const v1::CoverageGap& a, const v1::CoverageGap& b) { return a.SerializeAsString() == b.SerializeAsString(); }

}  // namespace

const Clock& GapBook::clock() const {
  static const RealClock system;
  return clock_ != nullptr ? *clock_ : system;
}

GapBook::Mark GapBook::MarkNow() const { return MarkOf(clock().Now(), clock().SinceBoot()); }

GapBook::Mark GapBook::MarkOf(SystemTime time, SinceBoot since_boot) const {
  if (!since_boot.has_value()) return {};
  return {.boot_id = boot_id_, .base_ms = ToUnixMillis(time) - std::chrono::duration_cast<std::chrono::milliseconds>(*since_boot).count()};
}

std::chrono::milliseconds GapBook::SetSince(const Mark& mark) const {
  if (mark.boot_id.empty() || mark.boot_id != boot_id_) return std::chrono::milliseconds(0);
  const std::chrono::milliseconds by(MarkNow().base_ms - mark.base_ms);
  return std::chrono::abs(by) < kClockWasSet ? std::chrono::milliseconds(0) : by;
}

absl::StatusOr<std::unique_ptr<GapBook>> GapBook::Open(const std::string& directory, std::vector<std::string>& damaged,
                                                       const Clock* clock) {
  std::unique_ptr<GapBook> book(new GapBook(directory, clock));
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), "list " + directory);
  MutexLock lock(book->mu_);
  for (const std::string& name : names) {
    if (!IsUlid(name)) continue;
    const absl::StatusOr<std::string> content = io::ReadFile(book->PathOf(name), kMaxFile);
    if (!content.ok() && !io::IsUnreadable(content.status())) return content.status();
    storage::v1::AgentGap stored;
    const bool parsed = content.ok() && stored.ParseFromString(*content) && stored.format() != 0;
    if (parsed && stored.format() > kFormat) {
      return Error(absl::StatusCode::kFailedPrecondition, "STATE_TOO_NEW",
                   fmt::format("{} has format {}, this program knows {}", book->PathOf(name), stored.format(), kFormat),
                   "install the newer litefleet-agent again");
    }
    Entry entry;
    if (!parsed || !entry.gap.ParseFromString(stored.gap()) || entry.gap.id() != name || !IsName(entry.gap.database()) ||
        !entry.gap.has_from()) {
      LF_RETURN_IF_ERROR(io::RenameFile(book->PathOf(name), book->PathOf(name) + ".damaged"));
      damaged.push_back(fmt::format("{} could not be read and was moved aside", book->PathOf(name)));
      continue;
    }
    entry.recorded = stored.recorded();
    entry.from = {.boot_id = stored.from_boot_id(), .base_ms = stored.from_base_ms()};
    entry.until = {.boot_id = stored.until_boot_id(), .base_ms = stored.until_base_ms()};
    book->entries_[name] = std::move(entry);
  }
  return book;
}

absl::Status GapBook::Put(const Entry& entry) {
  storage::v1::AgentGap stored;
  stored.set_format(kFormat);
  stored.set_gap(entry.gap.SerializeAsString());
  stored.set_recorded(entry.recorded);
  stored.set_from_boot_id(entry.from.boot_id);
  stored.set_from_base_ms(entry.from.base_ms);
  stored.set_until_boot_id(entry.until.boot_id);
  stored.set_until_base_ms(entry.until.base_ms);
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(PathOf(entry.gap.id()), stored.SerializeAsString()));
  entries_[entry.gap.id()] = entry;
  LF_CRASH_POINT("gaps.written");
  return absl::OkStatus();
}

absl::Status GapBook::Remove(const std::string& id) {
  LF_RETURN_IF_ERROR(io::RemoveFile(PathOf(id)));
  entries_.erase(id);
  return absl::OkStatus();
}

absl::Status GapBook::JoinOldest(const std::string& database) {
  size_t count = 0;
  std::vector<std::string> ended;
  for (const auto& [id, entry] : entries_) {
    if (entry.gap.database() != database) continue;
    ++count;
    if (entry.gap.has_until()) ended.push_back(id);
  }
  if (count < kMaxPerDatabase || ended.size() < 2) return absl::OkStatus();
  const Entry& older = entries_[ended[0]];
  Entry joined = entries_[ended[1]];
  if (TimestampMillis(older.gap.from()) < TimestampMillis(joined.gap.from())) {
    *joined.gap.mutable_from() = older.gap.from();
    joined.from = older.from;
  }
  if (TimestampMillis(older.gap.until()) > TimestampMillis(joined.gap.until())) {
    *joined.gap.mutable_until() = older.gap.until();
    joined.until = older.until;
  }
  joined.gap.set_snapshots(joined.gap.snapshots() + older.gap.snapshots());
  joined.recorded = false;
  // A crash in between leaves both: the older is told once more.
  LF_RETURN_IF_ERROR(Put(joined));
  return Remove(ended[0]);
}

GapBook::Entry GapBook::NewEntry(const Begun& begun) const {
  Entry entry;
  entry.gap.set_id(NewUlid(begun.from));
  entry.gap.set_database(begun.database);
  *entry.gap.mutable_from() = ToProtoTime(begun.from);
  entry.from = MarkOf(begun.from, begun.from_since_boot);
  entry.gap.set_reason(begun.reason);
  entry.gap.set_message(begun.message);
  entry.gap.set_snapshots(begun.snapshots);
  return entry;
}

void GapBook::SetUntil(Entry& entry, SystemTime until, const Mark& mark) const {
  const SystemTime from = FromProtoTime(entry.gap.from());
  // Of one boot the boot clock says which came first.
  const bool of_one_boot = !mark.boot_id.empty() && mark.boot_id == entry.from.boot_id;
  const bool turned =
      of_one_boot ? ToUnixMillis(until) - mark.base_ms < ToUnixMillis(from) - entry.from.base_ms : until < from + SetSince(entry.from);
  *entry.gap.mutable_until() = turned ? entry.gap.from() : ToProtoTime(until);
  entry.until = turned || until == from ? entry.from : mark;
  // It began in a boot before, by a clock that was right, and ends by one that is not set yet. As if that had said `from` at its end: once
  // it is set, the end is known.
  if (turned && entry.from.boot_id != boot_id_ && !mark.boot_id.empty()) {
    entry.until = mark;
    entry.until.base_ms += ToUnixMillis(from) - ToUnixMillis(until);
  }
}

absl::StatusOr<std::string> GapBook::PutNew(const Entry& entry) {
  LF_RETURN_IF_ERROR(JoinOldest(entry.gap.database()));
  LF_RETURN_IF_ERROR(Put(entry));
  return entry.gap.id();
}

absl::StatusOr<std::string> GapBook::Begin(const Begun& begun) {
  return Told([&]() -> absl::StatusOr<std::string> {
    MutexLock lock(mu_);
    for (const auto& [id, there] : entries_) {
      if (there.gap.has_until() || !SameKind(there.gap, begun.database, begun.reason)) continue;
      Entry entry = there;
      const Mark mark = MarkOf(begun.from, begun.from_since_boot);
      if (begun.from + SetSince(mark) < FromProtoTime(there.gap.from()) + SetSince(there.from)) {
        *entry.gap.mutable_from() = ToProtoTime(begun.from);
        entry.from = mark;
      }
      entry.gap.set_message(begun.message);
      entry.gap.set_snapshots(entry.gap.snapshots() + begun.snapshots);
      if (Same(entry.gap, there.gap)) return id;
      entry.recorded = false;
      LF_RETURN_IF_ERROR(Put(entry));
      return entry.gap.id();
    }
    return PutNew(NewEntry(begun));
  }());
}

absl::Status GapBook::EndLocked(const std::string& id, SystemTime until, const Mark& mark) {
  const auto at = entries_.find(id);
  if (at == entries_.end() || at->second.gap.has_until()) return absl::OkStatus();
  Entry entry = at->second;
  SetUntil(entry, until, mark);
  entry.recorded = false;
  return Put(entry);
}

absl::Status GapBook::End(const std::string& id, SystemTime until) {
  return Told([&] {
    MutexLock lock(mu_);
    return EndLocked(id, until, MarkNow());
  }());
}

absl::Status GapBook::End(const std::string& id, SystemTime until, SinceBoot since_boot) {
  return Told([&] {
    MutexLock lock(mu_);
    return EndLocked(id, until, MarkOf(until, since_boot));
  }());
}

absl::Status GapBook::EndOf(const std::string& database, std::string_view reason, SystemTime until) {
  return Told([&]() -> absl::Status {
    MutexLock lock(mu_);
    std::string open;
    for (const auto& [id, entry] : entries_) {
      if (!entry.gap.has_until() && SameKind(entry.gap, database, reason)) open = id;
    }
    // What is later than it is now is not by this clock.
    return EndLocked(open, until, until > clock().Now() ? Mark() : MarkNow());
  }());
}

absl::StatusOr<std::string> GapBook::Add(const Begun& begun, SystemTime until, SinceBoot until_since_boot) {
  return Told([&]() -> absl::StatusOr<std::string> {
    MutexLock lock(mu_);
    Entry added = NewEntry(begun);
    SetUntil(added, until, MarkOf(until, until_since_boot));
    const int64_t from_ms = TimestampMillis(added.gap.from());
    const int64_t until_ms = TimestampMillis(added.gap.until());
    for (const auto& [id, there] : entries_) {
      if (!there.gap.has_until() || !SameKind(there.gap, begun.database, begun.reason)) continue;
      if (from_ms > TimestampMillis(there.gap.until()) || until_ms < TimestampMillis(there.gap.from())) continue;
      Entry entry = there;
      if (from_ms < TimestampMillis(there.gap.from())) {
        *entry.gap.mutable_from() = added.gap.from();
        entry.from = added.from;
      }
      if (until_ms > TimestampMillis(there.gap.until())) {
        *entry.gap.mutable_until() = added.gap.until();
        entry.until = added.until;
      }
      entry.gap.set_message(begun.message);
      entry.gap.set_snapshots(entry.gap.snapshots() + begun.snapshots);
      entry.recorded = false;
      LF_RETURN_IF_ERROR(Put(entry));
      return entry.gap.id();
    }
    return PutNew(added);
  }());
}

std::vector<v1::CoverageGap> GapBook::OpenGaps(const std::string& database) const {
  MutexLock lock(mu_);
  std::vector<v1::CoverageGap> open;
  for (const auto& [id, entry] : entries_) {
    if (!entry.gap.has_until() && (database.empty() || entry.gap.database() == database)) open.push_back(entry.gap);
  }
  return open;
}

std::optional<v1::CoverageGap> GapBook::NextUnrecorded() const {
  MutexLock lock(mu_);
  for (const auto& [id, entry] : entries_) {
    if (!entry.recorded) return entry.gap;
  }
  return std::nullopt;
}

v1::CoverageGap GapBook::OnThisClock(const v1::CoverageGap& gap, std::chrono::milliseconds offset) const {
  MutexLock lock(mu_);
  const auto at = entries_.find(gap.id());
  const Entry entry = at == entries_.end() ? Entry() : at->second;
  const int64_t now_ms = ToUnixMillis(clock().Now());
  const auto told_ms = [&](const google::protobuf::Timestamp& time, const Mark& mark) {
    const int64_t ms = TimestampMillis(time) + SetSince(mark).count();
    return ms > now_ms ? ms : ms + offset.count();
  };
  v1::CoverageGap told = gap;
  const int64_t from_ms = told_ms(gap.from(), entry.from);
  *told.mutable_from() = MillisTimestamp(from_ms);
  if (gap.has_until()) *told.mutable_until() = MillisTimestamp(std::max(from_ms, told_ms(gap.until(), entry.until)));
  return told;
}

absl::Status GapBook::Recorded(const v1::CoverageGap& reported) {
  MutexLock lock(mu_);
  const auto at = entries_.find(reported.id());
  if (at == entries_.end() || !Same(at->second.gap, reported)) return absl::OkStatus();
  if (reported.has_until()) return Remove(reported.id());
  Entry entry = at->second;
  entry.recorded = true;
  return Put(entry);
}

}  // namespace litefleet::state
