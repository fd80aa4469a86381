#include "agent/spool/snapshot_spool.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::spool {
namespace {

constexpr uint32_t kFormat = 1;
constexpr std::string_view kEnding = ".spooled";
constexpr std::string_view kHooksEnding = ".hooks";
constexpr size_t kDigits = 16;
constexpr uint64_t kMaxHooksBytes = 64 << 10;
constexpr std::string_view kReasons[] = {kSpoolFull, kSpoolExpired, kSpooledDamaged, kRunFailed, kNotSpooled, kBaseGone};

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), "list " + directory);
  std::sort(names.begin(), names.end());
  return names;
}

// Of "<16 hexadecimal digits>.spooled".
std::optional<uint64_t> NumberOf(const std::string& name, std::string_view ending = kEnding) {
  if (name.size() != kDigits + ending.size() || !name.ends_with(ending)) return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + kDigits, number, 16);
  if (error != std::errc() || end != name.data() + kDigits || number == 0) return std::nullopt;
  return number;
}

std::string HooksPath(const SpooledSnapshot& snapshot) {
  return snapshot.path.substr(0, snapshot.path.size() - kEnding.size()) + std::string(kHooksEnding);
}

// Nothing where the file is damaged.
absl::StatusOr<std::optional<SpooledSnapshot>> Look(const std::string& path, uint64_t number) {
  const auto reader = SpoolFileReader::Open(path);
  if (absl::IsDataLoss(reader.status())) return std::nullopt;
  LF_RETURN_IF_ERROR(reader.status());
  return SpooledSnapshot{.number = number,
                         .path = path,
                         .bytes = (*reader)->bytes(),
                         .header = (*reader)->header(),
                         .root = (*reader)->commit().root_digest(),
                         .ended_at_ms = (*reader)->footer().ended_at_ms()};
}

}  // namespace

bool IsReason(std::string_view reason) { return std::find(std::begin(kReasons), std::end(kReasons), reason) != std::end(kReasons); }

std::string SnapshotSpool::PathOf(const std::string& database, uint64_t number) const {
  return fmt::format("{}/{:016x}{}", FolderOf(database), number, kEnding);
}

absl::StatusOr<std::unique_ptr<SnapshotSpool>> SnapshotSpool::Open(const std::string& directory, state::GapBook& gaps, const Clock& clock,
                                                                   std::vector<std::string>& said) {
  LF_RETURN_IF_ERROR(io::MakeDirectory(directory));
  std::unique_ptr<SnapshotSpool> spool(new SnapshotSpool(directory, gaps, clock));
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  for (const std::string& name : names) {
    if (IsName(name)) LF_RETURN_IF_ERROR(spool->Load(name, said));
  }
  return spool;
}

absl::Status SnapshotSpool::Load(const std::string& database, std::vector<std::string>& said) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(FolderOf(database)));
  std::map<uint64_t, SpooledSnapshot> chain;
  for (const std::string& name : names) {
    const std::string path = FolderOf(database) + "/" + name;
    if (name.ends_with(".tmp")) LF_RETURN_IF_ERROR(io::RemoveFile(path));
    const std::optional<uint64_t> number = NumberOf(name);
    if (!number) continue;
    LF_ASSIGN_OR_RETURN(std::optional<SpooledSnapshot> snapshot, Look(path, *number));
    if (snapshot.has_value() && snapshot->header.database() == database) {
      chain.emplace(*number, *std::move(snapshot));
      continue;
    }
    LF_RETURN_IF_ERROR(io::RenameFile(path, path + ".damaged"));
    said.push_back(fmt::format("{}: the spooled snapshot {} cannot be read and was moved aside", database, name));
    // Which state that was nobody can say any more: the neighbours bound it.
    const SystemTime from = chain.empty() ? clock_.Now() : chain.rbegin()->second.taken_at();
    LF_RETURN_IF_ERROR(gaps_
                           .Begin({.database = database,
                                   .from = from,
                                   .reason = std::string(kSpooledDamaged),
                                   .message = "a spooled snapshot cannot be read any more",
                                   .snapshots = 1})
                           .status());
  }
  {
    MutexLock lock(mu_);
    if (!chain.empty()) table_[database] = chain;
  }
  LF_RETURN_IF_ERROR(DropSuperseded(database, kSpoolFull));
  // What is built on one that is not there.
  std::string before = ReadState(database).acknowledged_spooled_id();
  for (const SpooledSnapshot& snapshot : List(database)) {
    const std::string& base = snapshot.header.base_spooled_id();
    if (!base.empty() && base != before) {
      said.push_back(fmt::format("{}: the spooled snapshot {} and those after it are built on one that is lost", database, snapshot.id()));
      return GiveUp(database, snapshot.number, kSpooledDamaged, "a spooled snapshot cannot be read any more", true);
    }
    before = snapshot.id();
  }
  // A cut came between the two.
  for (const std::string& name : names) {
    const std::optional<uint64_t> number = NumberOf(name, kHooksEnding);
    if (number && !io::Exists(PathOf(database, *number))) LF_RETURN_IF_ERROR(io::RemoveFile(FolderOf(database) + "/" + name));
  }
  return absl::OkStatus();
}

absl::Status SnapshotSpool::DropSuperseded(const std::string& database, std::string_view reason) {
  const std::vector<SpooledSnapshot> chain = List(database);
  size_t last = 0;
  for (size_t at = 1; at < chain.size(); ++at) {
    if (chain[at].header.merged() > 0) last = at;
  }
  for (size_t at = 0; at < last; ++at) {
    LF_RETURN_IF_ERROR(
        gaps_
            .Add({.database = database,
                  .from = chain[at].base_taken_at(),
                  .reason = std::string(reason),
                  .message = "the spool of the device had no room for all snapshots while the controller could not be reached",
                  .snapshots = 1},
                 chain[last].taken_at())
            .status());
    LF_CRASH_POINT("spooled.gap");
    LF_RETURN_IF_ERROR(Remove(chain[at]));
    LF_CRASH_POINT("spooled.dropped");
  }
  return absl::OkStatus();
}

SnapshotSpool::Use::~Use() {
  if (spool_ == nullptr) return;
  {
    MutexLock lock(spool_->mu_);
    spool_->in_use_.erase(database_);
  }
  spool_->free_.SignalAll();
}

SnapshotSpool::Use SnapshotSpool::Hold(const std::string& database) {
  MutexLock lock(mu_);
  while (!in_use_.insert(database).second) free_.Wait(mu_);
  return Use(*this, database);
}

std::optional<SnapshotSpool::Use> SnapshotSpool::TryUse(const std::string& database) {
  MutexLock lock(mu_);
  if (!in_use_.insert(database).second) return std::nullopt;
  return Use(*this, database);
}

SnapshotSpool::Usage SnapshotSpool::LookAt(const std::string& directory, const std::string& database) {
  Usage usage;
  const auto names = NamesIn(directory + "/" + database);
  if (!names.ok()) return usage;
  for (const std::string& name : *names) {
    std::error_code error;
    const auto size = std::filesystem::file_size(directory + "/" + database + "/" + name, error);
    if (!NumberOf(name).has_value() || error) continue;
    ++usage.snapshots;
    usage.bytes += static_cast<int64_t>(size);
  }
  return usage;
}

std::vector<SpooledSnapshot> SnapshotSpool::List(const std::string& database) const {
  MutexLock lock(mu_);
  std::vector<SpooledSnapshot> list;
  if (const auto at = table_.find(database); at != table_.end()) {
    for (const auto& [number, snapshot] : at->second) list.push_back(snapshot);
  }
  return list;
}

std::optional<SpooledSnapshot> SnapshotSpool::Newest(const std::string& database) const {
  MutexLock lock(mu_);
  const auto at = table_.find(database);
  if (at == table_.end() || at->second.empty()) return std::nullopt;
  return at->second.rbegin()->second;
}

SnapshotSpool::Usage SnapshotSpool::UsageOf(const std::string& database) const {
  Usage usage;
  MutexLock lock(mu_);
  if (const auto at = table_.find(database); at != table_.end()) {
    for (const auto& [number, snapshot] : at->second) {
      ++usage.snapshots;
      usage.bytes += static_cast<int64_t>(snapshot.bytes);
    }
  }
  return usage;
}

SnapshotSpool::Usage SnapshotSpool::Total() const {
  Usage total;
  for (const std::string& database : Databases()) {
    const Usage usage = UsageOf(database);
    total.snapshots += usage.snapshots;
    total.bytes += usage.bytes;
  }
  return total;
}

std::vector<std::string> SnapshotSpool::Databases() const {
  MutexLock lock(mu_);
  std::vector<std::string> databases;
  for (const auto& [name, chain] : table_) {
    if (!chain.empty()) databases.push_back(name);
  }
  return databases;
}

absl::StatusOr<std::unique_ptr<SpoolFileWriter>> SnapshotSpool::Begin(const storage::v1::SpooledHeader& header,
                                                                      const SpoolFileWriter::Limits& limits) {
  LF_RETURN_IF_ERROR(io::MakeDirectory(FolderOf(header.database())));
  const std::optional<SpooledSnapshot> newest = Newest(header.database());
  return SpoolFileWriter::Create(PathOf(header.database(), newest.has_value() ? newest->number + 1 : 1), header, limits);
}

absl::Status SnapshotSpool::Added(const std::string& database) {
  const std::optional<SpooledSnapshot> newest = Newest(database);
  const uint64_t number = newest.has_value() ? newest->number + 1 : 1;
  LF_ASSIGN_OR_RETURN(std::optional<SpooledSnapshot> snapshot, Look(PathOf(database, number), number));
  if (!snapshot.has_value()) {
    return Error(absl::StatusCode::kDataLoss, "SPOOLED_DAMAGED", fmt::format("{} cannot be read back", PathOf(database, number)),
                 "look at the disk of this device");
  }
  const bool supersedes = snapshot->header.merged() > 0;
  {
    MutexLock lock(mu_);
    table_[database].emplace(number, *std::move(snapshot));
  }
  return supersedes ? DropSuperseded(database, kSpoolFull) : absl::OkStatus();
}

absl::Status SnapshotSpool::MergeOldest(const std::string& database, std::string_view reason, const io::DiskReserve& reserve, int level) {
  const std::vector<SpooledSnapshot> chain = List(database);
  const SpooledSnapshot& older = chain[0];
  SpooledSnapshot newer = chain[1];
  if (!newer.full()) {
    LF_RETURN_IF_ERROR(MergeSpooled(older, newer, reserve, level));
    LF_ASSIGN_OR_RETURN(std::optional<SpooledSnapshot> merged, Look(newer.path, newer.number));
    if (!merged.has_value()) {
      return Error(absl::StatusCode::kDataLoss, "SPOOLED_DAMAGED", fmt::format("{} cannot be read back", newer.path),
                   "look at the disk of this device");
    }
    MutexLock lock(mu_);
    table_[database][newer.number] = *std::move(merged);
  }
  LF_RETURN_IF_ERROR(
      gaps_
          .Add({.database = database,
                .from = older.base_taken_at(),
                .reason = std::string(reason),
                .message = reason == kSpoolExpired
                               ? "the controller could not be reached for longer than snapshots are spooled"
                               : "the spool of the device had no room for all snapshots while the controller could not be reached",
                .snapshots = 1},
               newer.taken_at())
          .status());
  LF_CRASH_POINT("spooled.gap");
  LF_RETURN_IF_ERROR(Remove(older));
  LF_CRASH_POINT("spooled.dropped");
  return absl::OkStatus();
}

bool SnapshotSpool::IsOlder(const SpooledSnapshot& snapshot, std::chrono::milliseconds age) const {
  if (!boot_id_.empty() && snapshot.header.boot_id() == boot_id_) {
    return clock_.SinceBoot() - std::chrono::nanoseconds(snapshot.header.taken_since_boot_ns()) > age;
  }
  return clock_.Now() - snapshot.taken_at() > age;
}

absl::Status SnapshotSpool::Expire(const std::string& database, std::chrono::milliseconds age, const io::DiskReserve& reserve, int level) {
  if (age <= std::chrono::milliseconds(0)) return absl::OkStatus();
  for (;;) {
    const std::vector<SpooledSnapshot> chain = List(database);
    if (chain.empty() || !IsOlder(chain[0], age)) return absl::OkStatus();
    if (chain.size() == 1) {
      return GiveUp(database, chain[0].number, kSpoolExpired, "the controller could not be reached for longer than snapshots are spooled",
                    false);
    }
    LF_RETURN_IF_ERROR(MergeOldest(database, kSpoolExpired, reserve, level));
  }
}

absl::Status SnapshotSpool::Remove(const SpooledSnapshot& snapshot) {
  LF_RETURN_IF_ERROR(io::RemoveFile(snapshot.path));
  LF_RETURN_IF_ERROR(io::RemoveFile(HooksPath(snapshot)));
  MutexLock lock(mu_);
  const auto at = table_.find(snapshot.header.database());
  if (at == table_.end()) return absl::OkStatus();
  at->second.erase(snapshot.number);
  if (at->second.empty()) table_.erase(at);
  return absl::OkStatus();
}

absl::Status SnapshotSpool::GiveUp(const std::string& database, uint64_t from_number, std::string_view reason, const std::string& message,
                                   bool keep) {
  std::vector<SpooledSnapshot> chain = List(database);
  std::erase_if(chain, [&](const SpooledSnapshot& snapshot) { return snapshot.number < from_number; });
  // A snapshot without a base stands for itself.
  for (size_t at = 1; at < chain.size(); ++at) {
    if (chain[at].full()) chain.resize(at);
  }
  if (chain.empty()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(gaps_
                         .Begin({.database = database,
                                 .from = chain.front().base_taken_at(),
                                 .reason = std::string(reason),
                                 .message = message,
                                 .snapshots = static_cast<uint32_t>(chain.size())})
                         .status());
  // From the newest: what is left after a cut is a chain.
  for (auto snapshot = chain.rbegin(); snapshot != chain.rend(); ++snapshot) {
    if (keep) LF_RETURN_IF_ERROR(io::RenameFile(snapshot->path, snapshot->path + ".damaged"));
    LF_RETURN_IF_ERROR(Remove(*snapshot));
  }
  return absl::OkStatus();
}

absl::Status SnapshotSpool::EndGaps(const std::string& database, SystemTime at) {
  for (const std::string_view reason : kReasons) LF_RETURN_IF_ERROR(gaps_.EndOf(database, reason, at));
  return absl::OkStatus();
}

absl::Status SnapshotSpool::KeepHooks(const SpooledSnapshot& snapshot, std::span<const v1::HookRun> runs) const {
  v1::OperationResult kept;
  kept.mutable_hooks()->Assign(runs.begin(), runs.end());
  return io::WriteFileAtomic(HooksPath(snapshot), kept.SerializeAsString());
}

std::vector<v1::HookRun> SnapshotSpool::HooksOf(const SpooledSnapshot& snapshot) const {
  v1::OperationResult kept;
  const auto content = io::ReadFile(HooksPath(snapshot), kMaxHooksBytes);
  if (!content.ok() || !kept.ParseFromString(*content)) return {};
  return {kept.hooks().begin(), kept.hooks().end()};
}

storage::v1::SpoolState SnapshotSpool::ReadState(const std::string& database) const {
  storage::v1::SpoolState state;
  const auto content = io::ReadFile(FolderOf(database) + "/state");
  // Lost or of another version: nothing is known of what was acknowledged.
  if (!content.ok() || !state.ParseFromString(*content) || state.format() != kFormat) state.Clear();
  return state;
}

absl::Status SnapshotSpool::WriteState(const std::string& database, const storage::v1::SpoolState& state) const {
  LF_RETURN_IF_ERROR(io::MakeDirectory(FolderOf(database)));
  storage::v1::SpoolState stored = state;
  stored.set_format(kFormat);
  return io::WriteFileAtomic(FolderOf(database) + "/state", stored.SerializeAsString());
}

}  // namespace litefleet::spool
