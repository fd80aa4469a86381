#include "controller/exports/exports.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/dump/csv_files.h"
#include "common/dump/dump_process.h"
#include "common/io/file.h"
#include "common/io/space_guard.h"
#include "controller/restore/materialise.h"
#include "controller/verify/load_content.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::exports {
namespace {

using Code = absl::StatusCode;

constexpr std::string_view kScratchSuffix = ".export";
constexpr std::string_view kPartialSuffix = ".partial";
constexpr std::string_view kAbout = "export.json";
constexpr std::string_view kSpaceHint = "free space there, or let the policy keep fewer exports";
constexpr size_t kTimeLength = 16;  // 20261122T140300Z
constexpr size_t kMaxWoken = 10'000;
constexpr size_t kMaxFailures = 200;
constexpr size_t kMaxLeftOut = 1000;
constexpr int kMaxLeftOutSteps = 20;
constexpr size_t kMostSaid = 900;  // of one of them
constexpr std::chrono::milliseconds kReportEvery{300};
constexpr int kPauseTimes = 4;  // of what a failed one took: the others have the most of the time
// A device chooses what its views are, and exports of all devices stand behind one another: together they have this time, and this room.
constexpr std::chrono::seconds kCsvTime{600};
constexpr uint64_t kCsvBytesPerSecond = 1'000'000;
constexpr uint64_t kViewTimes = 4, kViewBytes = 64 << 20;
constexpr uint64_t kViewsTimes = 16, kViewsBytes = 256 << 20;

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the export was cancelled"); }

// The names of a directory; none where it is not there.
absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  if (error && error != std::errc::no_such_file_or_directory) return ErrnoError(error.value(), "list " + directory);
  return names;
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? ErrnoError(error.value(), "remove " + path) : absl::OkStatus();
}

// What was exported into a directory, by the names in it.
struct Exported {
  std::string made;  // the name of what the snapshot became; empty where it was not exported
  // Of the newest; times of the future are of a clock that was set back since, and say nothing.
  std::optional<SystemTime> last;
};
absl::StatusOr<Exported> ExportedIn(const std::string& directory, const std::string& snapshot, SystemTime now) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  Exported exported;
  for (const std::string& name : names) {
    const auto parsed = ParseExportName(name);
    if (!parsed.has_value()) continue;
    if (parsed->snapshot.value() == snapshot) exported.made = name;
    if (parsed->at <= now) exported.last = std::max(exported.last.value_or(parsed->at), parsed->at);
  }
  return exported;
}

// The device of the newest export in a directory; empty where there is none, or none that says it.
absl::StatusOr<std::string> OwnerOf(const std::string& directory) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  std::string newest;
  for (const std::string& name : names) {
    if (ParseExportName(name).has_value()) newest = std::max(newest, name);
  }
  if (newest.empty()) return std::string();
  const auto about = io::ReadFile(fmt::format("{}/{}/{}", directory, newest, kAbout));
  if (absl::IsNotFound(about.status())) return std::string();
  LF_RETURN_IF_ERROR(about.status());
  constexpr std::string_view kField = "\"device_id\":\"";
  const size_t at = about->find(kField);
  if (at == std::string::npos) return std::string();
  return about->substr(at + kField.size(), about->find('"', at + kField.size()) - at - kField.size());
}

// In quotes.
std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : CleanUtf8(text, text.size())) {
    const auto byte = static_cast<unsigned char>(c);
    const bool odd = byte < 0x20 || byte == 0x7f || c == '"' || c == '\\';
    out += odd ? fmt::format("\\u{:04x}", byte) : std::string(1, c);
  }
  return out + '"';
}

std::string QuotedLeftOut(const std::vector<dump::CsvFiles::LeftOut>& left_out) {
  if (left_out.empty()) return {};
  std::string list;
  for (size_t i = 0; i < std::min(left_out.size(), kMaxLeftOut); ++i)
    list += fmt::format("{}{{\"name\":{},\"why\":{}}}", i == 0 ? "" : ",", Quoted(left_out[i].name), Quoted(left_out[i].why));
  return fmt::format(",\"left_out\":[{}]", list);
}

// All else are names, numbers and hexadecimal: nothing to escape.
std::string About(const Candidate& candidate, SystemTime now, const std::vector<dump::CsvFiles::LeftOut>& left_out) {
  const v1::Snapshot& snapshot = candidate.database.newest_snapshot();
  return fmt::format(
      "{{\"schema\":1,\"kind\":\"export\",\"device\":\"{}\",\"device_id\":\"{}\",\"database\":\"{}\",\"snapshot\":\"{}\",\"taken_at\":\"{}"
      "\","
      "\"exported_at\":\"{}\",\"root_digest\":\"{}\",\"format\":\"{}\",\"policy\":\"{}\"{}}}\n",
      candidate.database.device_name(), candidate.database.device_id(), candidate.database.name(), snapshot.id(),
      FormatRfc3339(FromProtoTime(snapshot.taken_at())), FormatRfc3339(now), ToHex(AsBytes(snapshot.root_digest())),
      candidate.rule.csv ? "csv" : "sql", candidate.rule.policy, QuotedLeftOut(left_out));
}

}  // namespace

std::string ExportName(SystemTime at, const SnapshotId& snapshot) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &utc);
  return fmt::format("{}-{}", text.data(), snapshot.value());
}

std::optional<ParsedName> ParseExportName(std::string_view name) {
  if (name.size() <= kTimeLength + 1 || name[kTimeLength] != '-') return std::nullopt;
  const std::string time(name.substr(0, kTimeLength));
  std::tm utc{};
  const char* const end = strptime(time.c_str(), "%Y%m%dT%H%M%SZ", &utc);
  if (end == nullptr || *end != '\0') return std::nullopt;
  const std::string snapshot(name.substr(kTimeLength + 1));
  if (!IsUlid(snapshot)) return std::nullopt;
  return ParsedName{std::chrono::system_clock::from_time_t(timegm(&utc)), SnapshotId(snapshot)};
}

Exports::Exports(ExportDeps deps, ExportOptions options) : deps_(std::move(deps)), options_(std::move(options)) {}

Exports::~Exports() { Stop(); }

void Exports::Stop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
}

bool Exports::stopping() const {
  MutexLock lock(mu_);
  return stop_;
}

absl::Status Exports::Begin() {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(options_.scratch));
  for (const std::string& name : names) {
    if (name.ends_with(kScratchSuffix)) LF_RETURN_IF_ERROR(io::RemoveFile(options_.scratch + "/" + name));
  }
  for (v1::Operation& operation : deps_.fleet.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_EXPORT) continue;
    LF_RETURN_IF_ERROR(deps_.fleet.AdoptLocal(OperationId(operation.id()), [] {}));
    operation.set_state(v1::OPERATION_STATE_FAILED);
    *operation.mutable_error() =
        ToErrorDetail(Error(Code::kAborted, "EXPORT_INTERRUPTED", "the controller was restarted meanwhile", "it is begun anew by itself"));
    LF_RETURN_IF_ERROR(deps_.fleet.UpdateLocal(operation));
  }
  worker_ = std::thread([this] { Work(); });
  return absl::OkStatus();
}

void Exports::Committed(const DeviceId& device, const std::string& database) {
  MutexLock lock(mu_);
  // Beyond that they are found when all are looked at.
  if (woken_.size() >= kMaxWoken) return;
  woken_.emplace(device.value(), database);
  wake_.SignalAll();
}

void Exports::Work() {
  // Of this thread alone, and of the helpers that it starts.
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), options_.nice));
  SteadyTime look_at = deps_.clock.Steady();
  for (;;) {
    std::set<Key> woken;
    {
      MutexLock lock(mu_);
      while (!stop_ && woken_.empty() && deps_.clock.Steady() < look_at) wake_.WaitUntil(mu_, look_at);
      if (stop_) return;
      woken.swap(woken_);
    }
    std::vector<Key> slow;
    for (const Key& key : woken) slow_.contains(key) ? slow.push_back(key) : LookAtOne(key);
    LookAtSlow(std::exchange(slow, {}));
    if (deps_.clock.Steady() < look_at) continue;
    look_at = deps_.clock.Steady() + options_.look;
    std::erase_if(not_before_, [&](const auto& each) { return each.second <= deps_.clock.Steady(); });
    std::set<Key> exported;
    const absl::Status looked = deps_.all([&](const Candidate& candidate) -> absl::Status {
      if (stopping()) return Cancelled();
      const Key key(candidate.database.device_id(), candidate.database.name());
      slow_.contains(key) ? slow.push_back(key) : LookAt(candidate);
      // Only of those that failed, or may yet: the set stays small.
      if (slow_.contains(key) || HasFailed(key)) exported.insert(key);
      return absl::OkStatus();
    });
    LookAtSlow(std::move(slow));
    if (looked.ok()) ForgetOthers(exported);
    if (!looked.ok() && !absl::IsCancelled(looked)) spdlog::warn("look for exports that are due: {}", MessageOf(looked));
  }
}

void Exports::LookAtOne(const Key& key) {
  if (stopping()) return;
  const auto candidate = deps_.one(DeviceId(key.first), key.second);
  if (!candidate.ok()) spdlog::warn("export {}/{}: {}", key.first, key.second, MessageOf(candidate.status()));
  if (candidate.ok() && candidate->has_value()) LookAt(**candidate);
}

void Exports::LookAtSlow(std::vector<Key> keys) {
  std::sort(keys.begin(), keys.end(), [&](const Key& a, const Key& b) { return slow_[a] < slow_[b]; });
  for (const Key& key : keys) LookAtOne(key);
}

std::vector<Failure> Exports::Failures() const {
  MutexLock lock(mu_);
  std::vector<Failure> failures;
  for (const auto& [key, failure] : failures_) failures.push_back(failure);
  return failures;
}

void Exports::Note(const Candidate& candidate, const absl::Status& status, std::chrono::nanoseconds pause) {
  const v1::Database& database = candidate.database;
  const Key key(database.device_id(), database.name());
  if (!status.ok()) {
    spdlog::warn("export of {}/{} failed: {} ({}); it is tried again in {} s", database.device_name(), database.name(), MessageOf(status),
                 ReasonOf(status), std::chrono::ceil<std::chrono::seconds>(pause).count());
  }
  MutexLock lock(mu_);
  if (status.ok()) {
    failures_.erase(key);
  } else if (failures_.size() < kMaxFailures || failures_.contains(key)) {
    failures_[key] = {.device = database.device_name(), .database = database.name(), .at = deps_.clock.Now(), .status = status};
  }
}

bool Exports::HasFailed(const Key& key) const {
  MutexLock lock(mu_);
  return failures_.contains(key);
}

void Exports::ForgetOthers(const std::set<Key>& exported) {
  MutexLock lock(mu_);
  std::erase_if(failures_, [&](const auto& each) { return !exported.contains(each.first); });
}

absl::StatusOr<std::string> Exports::PlaceOf(const v1::Database& database) const {
  const std::string named = fmt::format("{}/{}/{}", options_.root, database.device_name(), database.name());
  LF_ASSIGN_OR_RETURN(const std::string owner, OwnerOf(named));
  if (owner.empty() || owner == database.device_id() || !IsUuid(database.device_id())) return named;
  return fmt::format("{}/{}~{}/{}", options_.root, database.device_name(), database.device_id().substr(0, 8), database.name());
}

void Exports::LookAt(const Candidate& candidate) {
  const v1::Database& database = candidate.database;
  const v1::Snapshot& newest = database.newest_snapshot();
  if (newest.id().empty() || newest.state() != v1::SNAPSHOT_STATE_COMMITTED || newest.content() == v1::SNAPSHOT_CONTENT_FILES) return;
  // Whatever the catalog says: these become a path.
  if (!IsName(database.device_name()) || !IsName(database.name())) return;
  const Key key(database.device_id(), database.name());
  if (const auto found = not_before_.find(key); found != not_before_.end() && deps_.clock.Steady() < found->second) return;
  if (const auto found = cancelled_.find(key); found != cancelled_.end() && found->second == newest.id()) return;
  const auto directory = PlaceOf(database);
  const SystemTime now = deps_.clock.Now();
  const auto before = directory.ok() ? ExportedIn(*directory, newest.id(), now) : absl::StatusOr<Exported>(directory.status());
  if (before.ok()) {
    if (!before->made.empty()) return HasFailed(key) ? Repair(candidate, *directory, before->made) : void();
    if (before->last.has_value() && now - *before->last < candidate.rule.every) return;
  }
  const auto cancel = std::make_shared<CancelToken>();  // the fleet may call it late
  auto operation = deps_.fleet.StartLocal(v1::OPERATION_KIND_EXPORT, DeviceId(database.device_id()), database.name(),
                                          SnapshotId(newest.id()), "", "policy:" + candidate.rule.policy, [cancel] { cancel->Cancel(); });
  if (!operation.ok())
    return spdlog::warn("begin an export of {}/{}: {}", database.device_name(), database.name(), MessageOf(operation.status()));
  operation->set_state(v1::OPERATION_STATE_RUNNING);
  operation->mutable_progress()->set_total_bytes(newest.size_bytes());
  static_cast<void>(deps_.fleet.UpdateLocal(*operation));
  const SteadyTime begun = deps_.clock.Steady();
  const absl::Status status = before.ok() ? Export(candidate, *directory, *operation, *cancel) : before.status();
  const std::chrono::nanoseconds took = deps_.clock.Steady() - begun;
  const auto pause = std::max<std::chrono::nanoseconds>(options_.again, kPauseTimes * took);
  slow_.erase(key);
  if (took >= options_.slow) slow_[key] = took;
  if (!status.ok() && stopping() && !cancel->cancelled()) return;  // told at the next start
  operation->set_state(status.ok()           ? v1::OPERATION_STATE_SUCCEEDED
                       : cancel->cancelled() ? v1::OPERATION_STATE_CANCELLED
                                             : v1::OPERATION_STATE_FAILED);
  if (!cancel->cancelled()) Note(candidate, status, pause);
  if (status.ok()) {
    operation->mutable_progress()->set_done_bytes(operation->progress().total_bytes());
    operation->mutable_progress()->set_phase("done");
  } else {
    *operation->mutable_error() = ToErrorDetail(status);
    if (cancel->cancelled()) {
      cancelled_[key] = newest.id();
    } else {
      not_before_[key] = deps_.clock.Steady() + pause;
    }
  }
  if (const absl::Status told = deps_.fleet.UpdateLocal(*operation); !told.ok())
    spdlog::warn("end of the export {}: {}", operation->id(), MessageOf(told));
}

absl::Status Exports::Export(const Candidate& candidate, const std::string& directory, v1::Operation& operation,
                             const CancelToken& cancel) {
  const v1::Snapshot& snapshot = candidate.database.newest_snapshot();
  const int64_t size = snapshot.size_bytes();
  const std::string parent = io::DirectoryOf(directory);
  for (const std::string& each : {options_.root, parent, directory}) LF_RETURN_IF_ERROR(io::MakeDirectory(each, 0700));
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  for (const std::string& name : names) {
    if (name.starts_with('.') && name.ends_with(kPartialSuffix)) LF_RETURN_IF_ERROR(RemoveTree(directory + "/" + name));
  }
  for (const std::string& place : {directory, options_.scratch}) {
    LF_ASSIGN_OR_RETURN(const uint64_t available, options_.free_bytes(place));
    const uint64_t needed = 2 * static_cast<uint64_t>(size) + options_.reserve_bytes;
    if (available < needed) {
      return Error(Code::kResourceExhausted, "NOT_ENOUGH_SPACE",
                   fmt::format("{} has {} bytes free, the export and the reserve may need {}", place, available, needed),
                   std::string(kSpaceHint));
    }
  }
  const auto stop = [&] { return cancel.cancelled() || stopping(); };
  SteadyTime reported{};
  const auto progress = [&](uint64_t bytes) -> absl::Status {
    if (stop()) return Cancelled();
    if (deps_.clock.Steady() - reported < kReportEvery) return absl::OkStatus();
    reported = deps_.clock.Steady();
    operation.mutable_progress()->set_phase("reading");
    operation.mutable_progress()->set_done_bytes(std::min(static_cast<int64_t>(bytes) / 2, size));
    static_cast<void>(deps_.fleet.UpdateLocal(operation));
    return absl::OkStatus();
  };
  const std::string file = fmt::format("{}/{}{}", options_.scratch, operation.id(), kScratchSuffix);
  const SnapshotId id(snapshot.id());
  dump::HelperOptions helper;
  helper.helper = options_.helper;
  helper.cancelled = stop;
  if (snapshot.content() == v1::SNAPSHOT_CONTENT_SQL) {
    LF_ASSIGN_OR_RETURN(const uint64_t available, options_.free_bytes(options_.scratch));
    const auto room = static_cast<int64_t>(available > options_.reserve_bytes ? available - options_.reserve_bytes : 1);
    LF_RETURN_IF_ERROR(verify::LoadContent(deps_.readers, id, file, room, helper, progress));
  } else {
    LF_RETURN_IF_ERROR(restore::Materialise(deps_.readers, id, file, progress));
  }
  LF_CRASH_POINT("export.materialised");
  const auto fd = io::Open(file, O_RDONLY);
  // The descriptor is enough from here on.
  static_cast<void>(io::RemoveFile(file));
  LF_RETURN_IF_ERROR(fd.status());
  operation.mutable_progress()->set_phase("writing");
  static_cast<void>(deps_.fleet.UpdateLocal(operation));
  const std::string name = ExportName(deps_.clock.Now(), id);
  const std::string partial = fmt::format("{}/.{}{}", directory, name, kPartialSuffix);
  absl::Status written = Write(candidate, fd->get(), partial, operation, cancel);
  if (written.ok() && stop()) written = Cancelled();
  if (!written.ok()) {
    static_cast<void>(RemoveTree(partial));
    return written;
  }
  LF_CRASH_POINT("export.written");
  const std::string made = directory + "/" + name;
  if (rename(partial.c_str(), made.c_str()) != 0) return ErrnoError(errno, "rename " + partial);
  LF_RETURN_IF_ERROR(SyncAbove(made));
  LF_CRASH_POINT("export.renamed");
  operation.add_steps("written to " + made);
  if (const absl::Status kept = Keep(directory, name, candidate.rule.keep); !kept.ok())
    operation.add_steps("older ones stay: " + MessageOf(kept));
  return absl::OkStatus();
}

absl::Status Exports::SyncAbove(const std::string& made) const {
  const std::string directory = io::DirectoryOf(made);
  for (const std::string& each : {directory, io::DirectoryOf(directory), options_.root}) LF_RETURN_IF_ERROR(options_.sync_directory(each));
  return absl::OkStatus();
}

// It is there: what failed came after its rename, or was about another snapshot.
void Exports::Repair(const Candidate& candidate, const std::string& directory, const std::string& made) {
  const absl::Status synced = SyncAbove(directory + "/" + made);
  Note(candidate, synced, options_.again);
  if (!synced.ok()) {
    not_before_[Key(candidate.database.device_id(), candidate.database.name())] = deps_.clock.Steady() + options_.again;
    return;
  }
  if (const absl::Status kept = Keep(directory, made, candidate.rule.keep); !kept.ok())
    spdlog::warn("older exports in {} stay: {}", directory, MessageOf(kept));
}

absl::Status Exports::Write(const Candidate& candidate, int fd, const std::string& directory, v1::Operation& operation,
                            const CancelToken& cancel) {
  dump::HelperOptions helper;
  helper.helper = options_.helper;
  helper.cancelled = [&] { return cancel.cancelled() || stopping(); };
  // Text may be many times its database, and a view anything.
  io::SpaceGuard space(io::DirectoryOf(directory), options_.reserve_bytes, std::string(kSpaceHint), options_.free_bytes);
  dump::CsvFiles files;
  if (candidate.rule.csv) {
    const auto size = static_cast<uint64_t>(candidate.database.newest_snapshot().size_bytes());
    const dump::CsvOptions csv{.only = {},
                               .wrote = [&](uint64_t bytes) { return space.Wrote(bytes); },
                               .time = kCsvTime + std::chrono::seconds(size / kCsvBytesPerSecond),
                               .view_bytes = kViewTimes * size + kViewBytes,
                               .views_bytes = kViewsTimes * size + kViewsBytes};
    LF_ASSIGN_OR_RETURN(files, dump::WriteCsvFiles(helper, fd, directory, csv));
    for (const auto& [table, why] : files.left_out) {
      if (operation.steps_size() == kMaxLeftOutSteps) break;
      operation.add_steps(CleanUtf8(fmt::format("left out {}: {}", table, why), kMostSaid));
    }
  } else {
    LF_RETURN_IF_ERROR(io::MakeDirectory(directory, 0700));
    const std::string path = fmt::format("{}/{}.sql", directory, candidate.database.name());
    LF_ASSIGN_OR_RETURN(const io::UniqueFd file, io::Open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    LF_ASSIGN_OR_RETURN(const auto text, dump::DumpProcess::Sql(helper, {.fd = fd, .bytes = 0, .read = {}}, {}));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const ByteView piece, text->Next());
      if (piece.empty()) break;
      LF_RETURN_IF_ERROR(io::WriteAll(file.get(), piece, path));
      LF_RETURN_IF_ERROR(space.Wrote(piece.size()));
    }
    LF_RETURN_IF_ERROR(io::Sync(file.get(), path));
  }
  // A table's file ends in .csv, so this name is free.
  LF_RETURN_IF_ERROR(
      io::WriteFileAtomic(fmt::format("{}/{}", directory, kAbout), About(candidate, deps_.clock.Now(), files.left_out), 0600));
  return io::SyncDirectory(directory);
}

absl::Status Exports::Keep(const std::string& directory, const std::string& made, int keep) const {
  LF_ASSIGN_OR_RETURN(std::vector<std::string> names, NamesIn(directory));
  std::erase_if(names, [](const std::string& name) { return !ParseExportName(name).has_value(); });
  // The newest first, but before all the one that was just made, and after all those of the future.
  const std::string now = ExportName(deps_.clock.Now() + std::chrono::seconds(1), SnapshotId());
  const auto order = [&](const std::string& name) { return std::tuple(name == made, name < now, std::string_view(name)); };
  std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) { return order(a) > order(b); });
  for (size_t i = static_cast<size_t>(std::max(keep, 1)); i < names.size(); ++i) {
    // Out of the way first: what is half removed is no export.
    const std::string gone = fmt::format("{}/.{}{}", directory, names[i], kPartialSuffix);
    if (rename((directory + "/" + names[i]).c_str(), gone.c_str()) != 0) return ErrnoError(errno, "rename " + names[i]);
    LF_RETURN_IF_ERROR(RemoveTree(gone));
  }
  return absl::OkStatus();
}

}  // namespace litefleet::exports
