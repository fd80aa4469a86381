#include "agent/spool/snapshot_spool.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iterator>
#include <span>
#include <system_error>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::spool {
namespace {

constexpr uint32_t kFormat = 1;
constexpr int kExpirySlack = 16;  // of the age
constexpr std::string_view kEnding = ".spooled";
constexpr std::string_view kHooksEnding = ".hooks";
constexpr std::string_view kAsideEnding = ".spooled.damaged";
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

struct AsideFile {
  std::string path;
  std::string name;  // below the spool's directory
  int64_t bytes = 0;
};

// What was moved aside of one database; nothing of a folder that is not there.
std::vector<AsideFile> AsideIn(const std::string& directory, const std::string& database) {
  std::vector<AsideFile> files;
  const std::string folder = directory + "/" + database;
  const auto names = NamesIn(folder);
  if (!names.ok()) return files;
  for (const std::string& name : *names) {
    struct stat st {};
    const std::string path = folder + "/" + name;
    if (!NumberOf(name, kAsideEnding).has_value() || stat(path.c_str(), &st) != 0) continue;
    files.push_back({path, database + "/" + name, static_cast<int64_t>(st.st_size)});
  }
  return files;
}

uint64_t BytesOf(std::span<const SpooledSnapshot> snapshots) {
  uint64_t bytes = 0;
  for (const SpooledSnapshot& snapshot : snapshots) bytes += snapshot.bytes;
  return bytes;
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

std::string SnapshotSpool::AsidePath(const std::string& database, uint64_t number) const {
  const auto path = [&] { return fmt::format("{}/{:016x}{}", FolderOf(database), number, kAsideEnding); };
  while (io::Exists(path())) ++number;
  return path();
}

absl::StatusOr<std::unique_ptr<SnapshotSpool>> SnapshotSpool::Open(const std::string& directory, state::GapBook& gaps, const Clock& clock,
                                                                   std::vector<std::string>& said, std::string boot_id) {
  LF_RETURN_IF_ERROR(io::MakeDirectory(directory));
  std::unique_ptr<SnapshotSpool> spool(new SnapshotSpool(directory, gaps, clock, std::move(boot_id)));
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  for (const std::string& name : names) {
    if (IsName(name)) LF_RETURN_IF_ERROR(spool->Load(name, said));
  }
  spool->CountAside();
  return spool;
}

void SnapshotSpool::Put(const std::string& database, SpooledSnapshot snapshot) {
  MutexLock lock(mu_);
  SpooledSnapshot& there = table_[database][snapshot.number];
  Usage& usage = usage_[database];
  const uint32_t more = there.number == 0 ? 1 : 0;
  const auto more_bytes = static_cast<int64_t>(snapshot.bytes) - static_cast<int64_t>(there.bytes);
  usage.snapshots += more;
  usage.bytes += more_bytes;
  total_.snapshots += more;
  total_.bytes += more_bytes;
  there = std::move(snapshot);
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
    // Which state that was nobody can say any more: the neighbours bound it. It is known before the file is gone: of the newest one nothing
    // else would tell.
    const int64_t acknowledged = ReadState(database).acknowledged_taken_at_ms();
    const SystemTime from = !chain.empty()      ? chain.rbegin()->second.taken_at()
                            : acknowledged != 0 ? FromUnixMillis(acknowledged)
                                                : clock_.Now();
    LF_RETURN_IF_ERROR(gaps_
                           .Begin({.database = database,
                                   .from = from,
                                   .reason = std::string(kSpooledDamaged),
                                   .message = "a spooled snapshot cannot be read any more",
                                   .snapshots = 1})
                           .status());
    LF_RETURN_IF_ERROR(io::RenameFile(path, AsidePath(database, *number)));
    said.push_back(fmt::format("{}: the spooled snapshot {} cannot be read and was moved aside", database, name));
  }
  for (const auto& [number, snapshot] : chain) {
    const std::chrono::milliseconds run(snapshot.header.taken_run_ms());
    const std::optional<std::chrono::nanoseconds> since_boot = snapshot.taken_since_boot(boot_id_);
    since_boot.has_value() ? run_time_.AtLeast(run, *since_boot) : run_time_.AtLeast(run);
    Put(database, snapshot);
  }
  LF_RETURN_IF_ERROR(DropSuperseded(database, kSpoolFull));
  // What is built on one that is not there.
  const std::string acknowledged = ReadState(database).acknowledged_spooled_id();
  std::string before = acknowledged;
  for (const SpooledSnapshot& snapshot : List(database)) {
    const std::string& base = snapshot.header.base_spooled_id();
    // One that was acknowledged and not yet removed needs nothing any more.
    if (!base.empty() && base != before && snapshot.id() != acknowledged) {
      said.push_back(fmt::format("{}: the spooled snapshot {} and those after it are built on one that is lost", database, snapshot.id()));
      return GiveUp(database, snapshot.number, kSpooledDamaged, "a spooled snapshot cannot be read any more", true);
    }
    before = snapshot.id();
  }
  if (List(database).empty()) LF_RETURN_IF_ERROR(RemoveLedger(database));
  // A cut came between the two.
  for (const std::string& name : names) {
    const std::optional<uint64_t> number = NumberOf(name, kHooksEnding);
    if (number && !io::Exists(PathOf(database, *number))) LF_RETURN_IF_ERROR(io::RemoveFile(FolderOf(database) + "/" + name));
  }
  return absl::OkStatus();
}

absl::Status SnapshotSpool::DropSuperseded(const std::string& database, std::string_view reason) {
  const std::vector<SpooledSnapshot> chain = List(database);
  // A merged one stands for all between its base and itself.
  std::vector<size_t> by(chain.size());  // 1 + the newest that supersedes it; 0: none
  for (size_t at = 1; at < chain.size(); ++at) {
    if (chain[at].header.merged() == 0) continue;
    const std::string& base = chain[at].header.base_spooled_id();
    for (size_t before = at; before > 0 && (base.empty() || chain[before - 1].id() != base); --before) by[before - 1] = at + 1;
  }
  for (size_t at = 0; at < chain.size(); ++at) {
    if (by[at] == 0) continue;
    if (IsAcknowledged(chain[at])) {
      LF_RETURN_IF_ERROR(Remove(chain[at]));
      continue;
    }
    LF_RETURN_IF_ERROR(
        gaps_
            .Add({.database = database,
                  .from = chain[at].base_taken_at(),
                  .reason = std::string(reason),
                  .message = "the spool of the device had no room for all snapshots while the controller could not be reached",
                  .snapshots = 1},
                 chain[by[at] - 1].taken_at(), chain[by[at] - 1].taken_since_boot(boot_id_))
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

std::optional<SpooledSnapshot> SnapshotSpool::Oldest(const std::string& database) const {
  MutexLock lock(mu_);
  const auto at = table_.find(database);
  if (at == table_.end() || at->second.empty()) return std::nullopt;
  return at->second.begin()->second;
}

bool SnapshotSpool::IsAllOf(const std::string& database, v1::Method method) const {
  MutexLock lock(mu_);
  const auto at = table_.find(database);
  return at != table_.end() && !at->second.empty() && std::all_of(at->second.begin(), at->second.end(), [method](const auto& entry) {
           return entry.second.header.method() == static_cast<int32_t>(method);
         });
}

SnapshotSpool::Usage SnapshotSpool::UsageOf(const std::string& database) const {
  MutexLock lock(mu_);
  const auto at = usage_.find(database);
  return at == usage_.end() ? Usage() : at->second;
}

SnapshotSpool::Usage SnapshotSpool::Total() const {
  MutexLock lock(mu_);
  return total_;
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
  storage::v1::SpooledHeader stamped = header;
  if (header.boot_id() == boot_id_) stamped.set_taken_run_ms(run_time_.At(std::chrono::nanoseconds(header.taken_since_boot_ns())).count());
  return SpoolFileWriter::Create(PathOf(header.database(), newest.has_value() ? newest->number + 1 : 1), stamped, limits);
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
  Put(database, *std::move(snapshot));
  return supersedes ? DropSuperseded(database, kSpoolFull) : absl::OkStatus();
}

absl::Status SnapshotSpool::Merge(const std::string& database, size_t first, size_t count, std::string_view reason,
                                  const io::DiskReserve& reserve, int level, const GoesOn& goes_on) {
  std::vector<SpooledSnapshot> group;
  {
    MutexLock lock(mu_);
    auto next = std::next(table_[database].begin(), static_cast<std::ptrdiff_t>(first));
    for (size_t i = 0; i < count; ++i) group.push_back((next++)->second);
  }
  // What was acknowledged and is still here is at the controller, and what follows is built on it there: it goes, and is merged into
  // nothing.
  if (IsAcknowledged(group.front())) return Remove(group.front());
  const SpooledSnapshot& newest = group.back();
  if (!newest.full()) {
    LF_RETURN_IF_ERROR(MergeSpooled(group, reserve, level, goes_on));
    LF_ASSIGN_OR_RETURN(std::optional<SpooledSnapshot> merged, Look(newest.path, newest.number));
    if (!merged.has_value()) {
      return Error(absl::StatusCode::kDataLoss, "SPOOLED_DAMAGED", fmt::format("{} cannot be read back", newest.path),
                   "look at the disk of this device");
    }
    Put(database, *std::move(merged));
  }
  LF_RETURN_IF_ERROR(
      gaps_
          .Add({.database = database,
                .from = group.front().base_taken_at(),
                .reason = std::string(reason),
                .message = reason == kSpoolExpired
                               ? "the controller could not be reached for longer than snapshots are spooled"
                               : "the spool of the device had no room for all snapshots while the controller could not be reached",
                .snapshots = static_cast<uint32_t>(count - 1)},
               newest.taken_at(), newest.taken_since_boot(boot_id_))
          .status());
  LF_CRASH_POINT("spooled.gap");
  for (size_t i = 0; i + 1 < count; ++i) {
    LF_RETURN_IF_ERROR(Remove(group[i]));
    LF_CRASH_POINT("spooled.dropped");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SnapshotSpool::MergeSome(const std::string& database, std::string_view reason, const io::DiskReserve& reserve,
                                              int level, bool keep_oldest, const GoesOn& goes_on) {
  bool syncs = IsAllOf(database, v1::METHOD_CONTINUOUS);
  const size_t begin = keep_oldest ? 1 : 0;
  // Of the same size are those that as many went into, in powers of kMergeAtOnce; the older ones are the larger ones.
  size_t first = begin, most = 0, all = 0;
  {
    MutexLock lock(mu_);
    const auto& chain = table_[database];
    all = chain.size();
    int size_before = -1;
    size_t at = 0, run_begin = begin;
    for (const auto& [number, snapshot] : chain) {
      const size_t here = at++;
      // A merged one without a base stands for all before it.
      if (here > 0 && snapshot.full()) syncs = false;
      if (here < begin) continue;
      int size = 0;
      for (uint64_t states = uint64_t{snapshot.header.merged()} + 1; states >= kMergeAtOnce; states /= kMergeAtOnce) ++size;
      if (size != std::exchange(size_before, size)) run_begin = here;
      if (here + 1 - run_begin <= most) continue;
      most = here + 1 - run_begin;
      first = run_begin;
    }
  }
  if (all < begin + 2 || (keep_oldest && !syncs)) return false;
  if (!syncs || most < kMergeAtOnce) first = begin;
  const size_t count = syncs ? std::min(kMergeAtOnce, all - first) : 2;
  LF_RETURN_IF_ERROR(Merge(database, first, count, reason, reserve, level, goes_on));
  return true;
}

bool SnapshotSpool::IsAcknowledged(const SpooledSnapshot& snapshot) const {
  return snapshot.id() == ReadState(snapshot.header.database()).acknowledged_spooled_id();
}

absl::Status SnapshotSpool::Expire(const std::string& database, std::chrono::milliseconds age, const io::DiskReserve& reserve, int level,
                                   const GoesOn& goes_on) {
  if (age <= std::chrono::milliseconds(0)) return absl::OkStatus();
  if (AsideBytes() > 0) {
    for (const AsideFile& file : AsideIn(directory_, database)) {
      if (run_time_.AsideFor(file.name).value_or(std::chrono::milliseconds(0)) > age) LF_RETURN_IF_ERROR(io::RemoveFile(file.path));
    }
    CountAside();
  }
  for (;;) {
    const std::vector<SpooledSnapshot> chain = List(database);
    const auto young = std::find_if(chain.begin(), chain.end(), [&](const SpooledSnapshot& one) { return AgeOf(one) <= age; });
    const auto old = static_cast<size_t>(young - chain.begin());
    if (old == 0) return absl::OkStatus();
    if (IsAcknowledged(chain.front())) {
      LF_RETURN_IF_ERROR(Remove(chain.front()));
      continue;
    }
    if (old == chain.size()) {
      // A full one and those behind it stand for themselves, and are next.
      LF_RETURN_IF_ERROR(GiveUp(database, chain.front().number, kSpoolExpired,
                                "the controller could not be reached for longer than snapshots are spooled", false));
      continue;
    }
    const bool is_large = chain.front().bytes > kMergeAtOnce * BytesOf(std::span(chain).subspan(1, old));
    if (is_large && old < kMergeAtOnce && AgeOf(chain.front()) <= age + age / kExpirySlack) return absl::OkStatus();
    // Neighbours first, and then what came of them: each page is written as many times as there are such rounds.
    for (size_t left = old + 1, groups = 0; left > 1; left = std::exchange(groups, 0)) {
      for (size_t size = 0; left > 0; left -= size, ++groups) {
        size = std::min(kMergeAtOnce, left);
        if (size > 1) LF_RETURN_IF_ERROR(Merge(database, groups, size, kSpoolExpired, reserve, level, goes_on));
      }
    }
  }
}

absl::Status SnapshotSpool::Remove(const SpooledSnapshot& snapshot) {
  LF_RETURN_IF_ERROR(io::RemoveFile(snapshot.path));
  LF_RETURN_IF_ERROR(io::RemoveFile(HooksPath(snapshot)));
  {
    MutexLock lock(mu_);
    const auto at = table_.find(snapshot.header.database());
    if (at == table_.end()) return absl::OkStatus();
    if (const auto there = at->second.find(snapshot.number); there != at->second.end()) {
      for (Usage* usage : {&total_, &usage_[at->first]}) {
        --usage->snapshots;
        usage->bytes -= static_cast<int64_t>(there->second.bytes);
      }
      at->second.erase(there);
    }
    if (!at->second.empty()) return absl::OkStatus();
    usage_.erase(at->first);
    table_.erase(at);
  }
  return RemoveLedger(snapshot.header.database());
}

absl::Status SnapshotSpool::RemoveLedger(const std::string& database) const {
  for (const char* ending : {"", "-log", "-new"}) LF_RETURN_IF_ERROR(io::RemoveFile(LedgerFile(database) + ending));
  return absl::OkStatus();
}

int64_t SnapshotSpool::AsideBytes() const {
  MutexLock lock(mu_);
  return aside_bytes_;
}

void SnapshotSpool::CountAside() {
  int64_t bytes = 0;
  std::set<std::string> names;
  for (const std::string& database : NamesIn(directory_).value_or(std::vector<std::string>())) {
    for (AsideFile& file : AsideIn(directory_, database)) {
      bytes += file.bytes;
      names.insert(std::move(file.name));
    }
  }
  {
    MutexLock lock(mu_);
    aside_bytes_ = bytes;
  }
  run_time_.SetAside(names);
}

absl::StatusOr<bool> SnapshotSpool::DropAside() {
  if (AsideBytes() == 0) return false;
  bool dropped = false;
  for (const std::string& database : NamesIn(directory_).value_or(std::vector<std::string>())) {
    for (const AsideFile& file : AsideIn(directory_, database)) {
      LF_RETURN_IF_ERROR(io::RemoveFile(file.path));
      dropped = true;
    }
  }
  CountAside();
  return dropped;
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
    if (keep) LF_RETURN_IF_ERROR(io::RenameFile(snapshot->path, AsidePath(database, snapshot->number)));
    LF_RETURN_IF_ERROR(Remove(*snapshot));
  }
  if (keep) CountAside();
  return absl::OkStatus();
}

absl::Status SnapshotSpool::EndGaps(const std::string& database, SystemTime at) {
  for (const std::string_view reason : kReasons) LF_RETURN_IF_ERROR(gaps_.EndOf(database, reason, at));
  return absl::OkStatus();
}

absl::Status SnapshotSpool::EndGapsBefore(const std::string& database, const SpooledSnapshot& snapshot) {
  const SystemTime at = snapshot.taken_at();
  for (const v1::CoverageGap& gap : gaps_.OpenGaps(database)) {
    if (!IsReason(gap.reason()) || FromProtoTime(gap.from()) >= at) continue;
    LF_RETURN_IF_ERROR(gaps_.End(gap.id(), at, snapshot.taken_since_boot(boot_id_)));
  }
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
