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
#include "fmt/format.h"
#include "litefleet/storage/v1/agent_state.pb.h"

namespace litefleet::state {
namespace {

constexpr uint32_t kFormat = 1;
constexpr uint64_t kMaxFile = 64 << 10;

bool SameKind(const v1::CoverageGap& gap, const std::string& database, std::string_view reason) {
  return gap.database() == database && gap.reason() == reason;
}

bool Same(const v1::CoverageGap& a, const v1::CoverageGap& b) { return a.SerializeAsString() == b.SerializeAsString(); }

}  // namespace

absl::StatusOr<std::unique_ptr<GapBook>> GapBook::Open(const std::string& directory, std::vector<std::string>& damaged) {
  std::unique_ptr<GapBook> book(new GapBook(directory));
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
    if (!content.ok() && !absl::IsOutOfRange(content.status())) return content.status();
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
    book->entries_[name] = std::move(entry);
  }
  return book;
}

absl::Status GapBook::Put(const Entry& entry) {
  storage::v1::AgentGap stored;
  stored.set_format(kFormat);
  stored.set_gap(entry.gap.SerializeAsString());
  stored.set_recorded(entry.recorded);
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
  const v1::CoverageGap& older = entries_[ended[0]].gap;
  Entry joined = entries_[ended[1]];
  if (TimestampMillis(older.from()) < TimestampMillis(joined.gap.from())) *joined.gap.mutable_from() = older.from();
  if (TimestampMillis(older.until()) > TimestampMillis(joined.gap.until())) *joined.gap.mutable_until() = older.until();
  joined.gap.set_snapshots(joined.gap.snapshots() + older.snapshots());
  joined.recorded = false;
  // A crash in between leaves both: the older is told once more.
  LF_RETURN_IF_ERROR(Put(joined));
  return Remove(ended[0]);
}

absl::StatusOr<std::string> GapBook::PutNew(const Begun& begun, std::optional<SystemTime> until) {
  LF_RETURN_IF_ERROR(JoinOldest(begun.database));
  Entry entry;
  entry.gap.set_id(NewUlid(begun.from));
  entry.gap.set_database(begun.database);
  *entry.gap.mutable_from() = ToProtoTime(begun.from);
  // A clock that was set back between the two does not turn it around.
  if (until) *entry.gap.mutable_until() = ToProtoTime(std::max(*until, begun.from));
  entry.gap.set_reason(begun.reason);
  entry.gap.set_message(begun.message);
  entry.gap.set_snapshots(begun.snapshots);
  LF_RETURN_IF_ERROR(Put(entry));
  return entry.gap.id();
}

absl::StatusOr<std::string> GapBook::Begin(const Begun& begun) {
  return Told([&]() -> absl::StatusOr<std::string> {
    MutexLock lock(mu_);
    for (const auto& [id, there] : entries_) {
      if (there.gap.has_until() || !SameKind(there.gap, begun.database, begun.reason)) continue;
      Entry entry = there;
      entry.gap.set_message(begun.message);
      entry.gap.set_snapshots(entry.gap.snapshots() + begun.snapshots);
      if (Same(entry.gap, there.gap)) return id;
      entry.recorded = false;
      LF_RETURN_IF_ERROR(Put(entry));
      return entry.gap.id();
    }
    return PutNew(begun, std::nullopt);
  }());
}

absl::Status GapBook::EndLocked(const std::string& id, SystemTime until) {
  const auto at = entries_.find(id);
  if (at == entries_.end() || at->second.gap.has_until()) return absl::OkStatus();
  Entry entry = at->second;
  *entry.gap.mutable_until() = ToProtoTime(std::max(until, FromProtoTime(entry.gap.from())));
  entry.recorded = false;
  return Put(entry);
}

absl::Status GapBook::End(const std::string& id, SystemTime until) {
  return Told([&] {
    MutexLock lock(mu_);
    return EndLocked(id, until);
  }());
}

absl::Status GapBook::EndOf(const std::string& database, std::string_view reason, SystemTime until) {
  return Told([&]() -> absl::Status {
    MutexLock lock(mu_);
    std::string open;
    for (const auto& [id, entry] : entries_) {
      if (!entry.gap.has_until() && SameKind(entry.gap, database, reason)) open = id;
    }
    return EndLocked(open, until);
  }());
}

absl::StatusOr<std::string> GapBook::Add(const Begun& begun, SystemTime until) {
  return Told([&]() -> absl::StatusOr<std::string> {
    MutexLock lock(mu_);
    const int64_t from_ms = ToUnixMillis(begun.from);
    const int64_t until_ms = std::max(ToUnixMillis(until), from_ms);
    for (const auto& [id, there] : entries_) {
      if (!there.gap.has_until() || !SameKind(there.gap, begun.database, begun.reason)) continue;
      if (from_ms > TimestampMillis(there.gap.until()) || until_ms < TimestampMillis(there.gap.from())) continue;
      Entry entry = there;
      *entry.gap.mutable_from() = MillisTimestamp(std::min(from_ms, TimestampMillis(there.gap.from())));
      *entry.gap.mutable_until() = MillisTimestamp(std::max(until_ms, TimestampMillis(there.gap.until())));
      entry.gap.set_message(begun.message);
      entry.gap.set_snapshots(entry.gap.snapshots() + begun.snapshots);
      entry.recorded = false;
      LF_RETURN_IF_ERROR(Put(entry));
      return entry.gap.id();
    }
    return PutNew(begun, until);
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
