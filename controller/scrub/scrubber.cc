#include "controller/scrub/scrubber.h"
#include "controller/fleet/transitions.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/scrub/pacer.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::scrub {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

constexpr int kSnapshotsAtOnce = 500;
constexpr int kChunksAtOnce = 10'000;
constexpr std::string_view kSchedule = "schedule";
constexpr auto kBetweenLooks = std::chrono::seconds(1);  // for what commits have changed

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the scrub was cancelled"); }

}  // namespace

Scrubber::Scrubber(fleet::Fleet& fleet, store::Store& store, const catalog::IngestCatalog& chunks, catalog::ScrubCatalog& catalog,
                   NeededChunks needed, const Clock& clock, ScrubberOptions options)
    : fleet_(fleet), store_(store), chunks_(chunks), catalog_(catalog), needed_(std::move(needed)), clock_(clock), options_(options) {}

Scrubber::~Scrubber() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
}

bool Scrubber::stopping() const {
  MutexLock lock(mu_);
  return stop_;
}

absl::StatusOr<ScrubTime> Scrubber::Now() const {
  if (options_.now) return options_.now();
  return ScrubTime{.time = clock_.Now()};
}

absl::Status Scrubber::Begin() {
  for (const v1::Operation& operation : fleet_.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_SCRUB) continue;
    Job job;
    job.operation = operation;
    job.goes_on = true;
    if (operation.state() == v1::OPERATION_STATE_CANCELLING) job.cancel->Cancel();
    LF_RETURN_IF_ERROR(fleet_.AdoptLocal(OperationId(operation.id()), [cancel = job.cancel] { cancel->Cancel(); }));
    MutexLock lock(mu_);
    running_ = operation.id();
    job_ = std::move(job);
  }
  worker_ = std::thread([this] { Work(); });
  return absl::OkStatus();
}

absl::StatusOr<v1::Operation> Scrubber::Start(std::optional<int64_t> bytes_per_second, const std::string& request_id,
                                              const std::string& ordered_by) {
  return Enqueue(bytes_per_second.value_or(options_.bytes_per_second), request_id, ordered_by);
}

absl::StatusOr<v1::Operation> Scrubber::Enqueue(int64_t bytes_per_second, const std::string& request_id, const std::string& ordered_by) {
  Job job;
  LF_ASSIGN_OR_RETURN(job.operation, fleet_.StartLocal(v1::OPERATION_KIND_SCRUB, DeviceId(), "", SnapshotId(), request_id, ordered_by,
                                                       [cancel = job.cancel] { cancel->Cancel(); }));
  v1::Operation operation = job.operation;
  // A request that came again is answered with what exists.
  if (operation.state() != v1::OPERATION_STATE_QUEUED) return operation;
  job.operation.mutable_scrub()->set_bytes_per_second(bytes_per_second);
  bool taken = false;
  {
    MutexLock lock(mu_);
    if (running_ == operation.id()) return operation;
    taken = running_.empty();
    if (taken) running_ = operation.id();
  }
  if (!taken) {
    const absl::Status busy = Error(Code::kFailedPrecondition, "SCRUB_RUNNING", "a scrub is under way",
                                    "wait for it or cancel it: `litefleet operation list --active` shows its id");
    operation.set_state(v1::OPERATION_STATE_FAILED);
    *operation.mutable_error() = ToErrorDetail(busy);
    fleet_.UpdateLocal(operation).IgnoreError();  // it failed: what is left of it is cancelled at the next start
    return busy;
  }
  // The rate outlives a restart.
  const absl::Status kept = fleet_.UpdateLocal(job.operation);
  MutexLock lock(mu_);
  if (!kept.ok() && ReasonOf(kept) != "OPERATION_ENDED") {
    running_.clear();
    return kept;
  }
  job_ = std::move(job);
  wake_.SignalAll();
  return operation;
}

void Scrubber::Work() {
  auto look_at = steady_clock::now() + std::min<std::chrono::nanoseconds>(options_.look_every, std::chrono::minutes(10));
  auto marks_at = steady_clock::time_point::min();  // when commits are looked at again
  for (;;) {
    std::optional<Job> job;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      if (job_.has_value()) {
        job = std::move(job_);
        job_.reset();
      } else if (const auto until = committed_ ? std::min(look_at, marks_at) : look_at; steady_clock::now() < until) {
        wake_.WaitUntil(mu_, until);
        continue;
      }
    }
    if (job.has_value()) {
      RunJob(*std::move(job));
      MutexLock lock(mu_);
      running_.clear();
    }
    if (steady_clock::now() >= marks_at && committed_.exchange(false)) {
      marks_at = steady_clock::now() + kBetweenLooks;
      // What a cancel or a crash left over comes first.
      const auto marked = MarkDue([this] { return stopping(); });
      if (!marked.ok() && !stopping()) spdlog::warn("mark snapshots that lost chunks: {}", MessageOf(marked.status()));
      if (const auto healed = Heal(); !healed.ok()) spdlog::warn("look for healed snapshots: {}", MessageOf(healed.status()));
      if (on_marked_ && !stopping()) on_marked_();
    }
    if (steady_clock::now() < look_at) continue;
    look_at = steady_clock::now() + options_.look_every;
    const auto due = DuePacks({.all = false});
    if (due.ok() && !due->packs.empty()) Enqueue(options_.bytes_per_second, "", std::string(kSchedule)).status().IgnoreError();
  }
}

void Scrubber::RunJob(Job job) {
  v1::Operation& operation = job.operation;
  auto next_report = steady_clock::now();
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  fleet_.UpdateLocal(operation).IgnoreError();
  Scope scope;
  scope.all = operation.ordered_by() != kSchedule;
  scope.bytes_per_second = operation.scrub().bytes_per_second();
  if (job.goes_on) scope.proven_before = FromProtoTime(operation.created_at());
  Report report;
  uint64_t whole = 0;
  absl::Status status = Run(scope, *job.cancel, report, [&](uint64_t done, uint64_t total) {
    whole = total;
    if (steady_clock::now() < next_report) return;
    next_report = steady_clock::now() + std::chrono::milliseconds(300);
    v1::Progress& progress = *operation.mutable_progress();
    progress.set_total_bytes(static_cast<int64_t>(total));
    progress.set_done_bytes(static_cast<int64_t>(std::min(done, total)));
    progress.set_phase("reading");
    fleet_.UpdateLocal(operation).IgnoreError();
  });
  if (stopping()) return;                            // taken up after the next start
  if (scope.all) catalog_.AskAgain().IgnoreError();  // who orders a scrub wants to know what can be had now
  v1::ScrubReport& said = *operation.mutable_scrub();
  said.set_packs(static_cast<int64_t>(report.packs));
  said.set_stored_bytes(static_cast<int64_t>(report.stored_bytes));
  said.set_logical_bytes(static_cast<int64_t>(report.logical_bytes));
  said.set_chunks_quarantined(static_cast<int64_t>(report.chunks_quarantined));
  said.set_snapshots_damaged(static_cast<int64_t>(report.snapshots_damaged));
  said.set_records_rewritten(static_cast<int64_t>(report.records_rewritten));
  said.set_damaged_bytes(static_cast<int64_t>(report.damaged_bytes));
  operation.mutable_progress()->set_total_bytes(static_cast<int64_t>(whole));
  if (status.ok()) operation.mutable_progress()->set_done_bytes(static_cast<int64_t>(whole));
  operation.mutable_progress()->set_phase("done");
  if (status.ok() && (report.chunks_quarantined > 0 || report.snapshots_damaged > 0)) {
    status = Error(Code::kDataLoss, "DAMAGE_FOUND",
                   fmt::format("{} chunks are not what they were and are quarantined; {} more snapshots are damaged by it",
                               report.chunks_quarantined, report.snapshots_damaged),
                   "the devices are asked for what was lost: `litefleet operation list --active`; look at the disk");
  } else if (status.ok() && report.records_rewritten > 0) {
    status =
        Error(Code::kDataLoss, "DAMAGE_FOUND",
              fmt::format("{} records of snapshots could not be read and were written anew; nothing is lost", report.records_rewritten),
              "look at the disk");
  }
  fleet::SetLocalEnd(operation, status);
  fleet_.UpdateLocal(operation).IgnoreError();  // what could not be written down is found and run again at the next start
  committed_ = true;
}

absl::StatusOr<Scrubber::DueList> Scrubber::DuePacks(const Scope& scope) const {
  LF_ASSIGN_OR_RETURN(const auto proven, catalog_.ProvenPacks());
  LF_ASSIGN_OR_RETURN(const ScrubTime reading, Now());
  const SystemTime now = reading.time;
  const SystemTime before = scope.all ? scope.proven_before : now - options_.every;
  DueList due;
  if (!scope.all && reading.on_hold) return due;
  for (const store::PackInfo& pack : store_.Packs()) {
    const auto at = proven.find(pack.id);
    // What was proven in the future was so under a clock that was wrong.
    const bool is_due = at == proven.end() || at->second < before || (!scope.all && at->second > now);
    // A pack that may still grow is looked at when somebody asks for it.
    if (is_due && (scope.all || pack.sealed)) due.packs.push_back(pack);
    if (!is_due && scope.all) due.left_out_bytes += pack.size;
  }
  const auto proven_at = [&](const store::PackInfo& pack) {
    const auto at = proven.find(pack.id);
    return at == proven.end() ? SystemTime::min() : at->second;
  };
  std::sort(due.packs.begin(), due.packs.end(), [&](const store::PackInfo& a, const store::PackInfo& b) {
    return proven_at(a) != proven_at(b) ? proven_at(a) < proven_at(b) : a.id > b.id;
  });
  return due;
}

absl::Status Scrubber::Run(const Scope& scope, const CancelToken& cancel, Report& report,
                           const std::function<void(uint64_t, uint64_t)>& progress) {
  LF_ASSIGN_OR_RETURN(const DueList due, DuePacks(scope));
  // Without the directory every chunk would seem to be missing.
  LF_RETURN_IF_ERROR(Annotate(store_.Stats().status(), "look at the store before the scrub"));
  uint64_t done = due.left_out_bytes;
  uint64_t total = done;
  for (const store::PackInfo& pack : due.packs) total += pack.size;
  Pacer pacer(scope.bytes_per_second, clock_, options_.wait);
  PackScrubber scrubber(store_, chunks_, catalog_);
  const std::function<bool()> stop = [&] { return cancel.cancelled() || stopping(); };
  absl::Status failed = absl::OkStatus();
  progress(done, total);
  for (const store::PackInfo& pack : due.packs) {
    LF_ASSIGN_OR_RETURN(const PackFindings findings, scrubber.Scrub(pack.id, [&](uint64_t bytes) -> absl::Status {
      done += bytes;
      if (!pacer.Spend(bytes, stop)) return Cancelled();
      progress(done, total);
      return absl::OkStatus();
    }));
    if (findings.gone) continue;
    ++report.packs;
    report.stored_bytes += findings.stored_bytes;
    report.logical_bytes += findings.logical_bytes;
    report.damaged_bytes += findings.damaged_bytes;
    if (findings.damaged_bytes > 0) spdlog::warn("scrub: pack {:016x} has {} damaged bytes", pack.id, findings.damaged_bytes);
    if (!findings.bad.empty()) {
      // Once more, in case the file went away between the first look and now.
      LF_RETURN_IF_ERROR(store_.Stats().status());
      LF_ASSIGN_OR_RETURN(const auto ids, catalog_.Quarantine(findings.bad, fmt::format("scrub of pack {:016x}", pack.id), clock_.Now()));
      report.chunks_quarantined += ids.size();
      LF_CRASH_POINT("scrub.after_quarantine");
    }
    LF_ASSIGN_OR_RETURN(const uint64_t damaged, MarkDue(stop));
    report.snapshots_damaged += damaged;
    for (const SnapshotId& snapshot : findings.without_manifest) {
      LF_ASSIGN_OR_RETURN(const bool newly, catalog_.SetDamaged(snapshot, true));
      report.snapshots_damaged += newly ? 1 : 0;
    }
    const absl::StatusOr<uint64_t> written = WriteAnew(findings.without_record);
    report.records_rewritten += written.value_or(0);
    // The others are looked at all the same; this one is due again.
    if (!written.ok()) failed.Update(Annotate(written.status(), "write the records of snapshots anew"));
    if (pack.sealed && written.ok()) {
      LF_ASSIGN_OR_RETURN(const ScrubTime now, Now());
      LF_RETURN_IF_ERROR(catalog_.SetProven(pack.id, now.time));
    }
    LF_CRASH_POINT("scrub.after_pack");
  }
  return failed;
}

absl::StatusOr<uint64_t> Scrubber::WriteAnew(const std::vector<catalog::ScrubCatalog::PlacedRecord>& records) {
  uint64_t written = 0;
  for (const catalog::ScrubCatalog::PlacedRecord& bad : records) {
    LF_RETURN_IF_ERROR(store_.Stats().status());  // the directory may have gone away since it was read
    LF_ASSIGN_OR_RETURN(const auto record, catalog_.RecordOf(bad));
    if (!record.has_value()) continue;
    LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(format::RecordType::kSnapshot, AsBytes(record->SerializeAsString())));
    LF_RETURN_IF_ERROR(store_.Sync(placed.epoch));
    LF_CRASH_POINT("scrub.after_record_write");
    LF_ASSIGN_OR_RETURN(const bool moved,
                        catalog_.MoveRecord(bad, *record, {.pack = placed.location.pack, .offset = placed.location.offset}));
    written += moved ? 1 : 0;
  }
  return written;
}

absl::StatusOr<bool> Scrubber::IsWhole(const SnapshotId& snapshot) {
  bool whole = true;
  const absl::Status walked = needed_(snapshot, [&](std::span<const format::ChunkName> names) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const auto rows, chunks_.FindChunks(names));
    for (const auto& row : rows) whole &= row.has_value() && row->good;
    return whole ? absl::OkStatus() : absl::CancelledError("known enough");
  });
  if (!whole || absl::IsDataLoss(walked)) return false;
  LF_RETURN_IF_ERROR(walked);
  return true;
}

absl::StatusOr<uint64_t> Scrubber::MarkDue(const std::function<bool()>& stop) {
  uint64_t damaged = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const auto unmarked, catalog_.Unmarked(kChunksAtOnce));
    if (unmarked.empty()) return damaged;
    std::vector<int64_t> ids;
    absl::flat_hash_map<format::ChunkName, int64_t> chunks;
    for (const auto& chunk : unmarked) {
      ids.push_back(chunk.id);
      chunks.emplace(chunk.name, chunk.id);
    }
    LF_ASSIGN_OR_RETURN(const std::vector<DeviceId> devices, catalog_.OwnersOf(ids));
    for (const DeviceId& device : devices) {
      LF_ASSIGN_OR_RETURN(const uint64_t of_device, MarkSnapshotsOf(device, chunks, stop));
      damaged += of_device;
    }
    LF_CRASH_POINT("scrub.before_marked");
    LF_RETURN_IF_ERROR(catalog_.SetMarked(ids));
  }
}

absl::StatusOr<uint64_t> Scrubber::MarkSnapshotsOf(const DeviceId& device, const absl::flat_hash_map<format::ChunkName, int64_t>& chunks,
                                                   const std::function<bool()>& stop) {
  uint64_t damaged = 0;
  std::map<int64_t, std::set<int64_t>> wanted;  // by database
  for (int64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const auto snapshots, catalog_.SnapshotsOf(device, after, kSnapshotsAtOnce));
    for (const auto& snapshot : snapshots) {
      after = snapshot.key;
      bool hit = false;
      std::set<int64_t>& of_database = wanted[snapshot.database];
      const absl::Status walked = needed_(snapshot.id, [&](std::span<const format::ChunkName> needed) -> absl::Status {
        if (stop()) return Cancelled();
        for (const format::ChunkName& name : needed) {
          const auto at = chunks.find(name);
          if (at == chunks.end()) continue;
          hit = true;
          of_database.insert(at->second);
        }
        return absl::OkStatus();
      });
      if (absl::IsNotFound(walked)) continue;  // deleted meanwhile
      // One whose manifest cannot be read may need them all.
      if (!walked.ok() && !absl::IsDataLoss(walked)) return walked;
      if (!hit && walked.ok()) continue;
      LF_ASSIGN_OR_RETURN(const bool newly, catalog_.SetDamaged(snapshot.id, true));
      damaged += newly ? 1 : 0;
    }
    if (snapshots.size() < kSnapshotsAtOnce) break;
  }
  for (const auto& [database, ids] : wanted) {
    if (!ids.empty()) LF_RETURN_IF_ERROR(catalog_.AddWanted(database, std::vector<int64_t>(ids.begin(), ids.end())));
  }
  return damaged;
}

absl::StatusOr<int> Scrubber::Heal() {
  int healed_snapshots = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<int64_t> healed, catalog_.Healed());
    if (healed.empty()) return healed_snapshots;
    LF_ASSIGN_OR_RETURN(const std::vector<DeviceId> devices, catalog_.OwnersOf(healed));
    for (const DeviceId& device : devices) {
      for (int64_t after = 0;;) {
        LF_ASSIGN_OR_RETURN(const auto snapshots, catalog_.SnapshotsOf(device, after, kSnapshotsAtOnce));
        for (const auto& snapshot : snapshots) {
          after = snapshot.key;
          if (!snapshot.damaged) continue;
          LF_ASSIGN_OR_RETURN(const bool whole, IsWhole(snapshot.id));
          if (!whole) continue;
          LF_ASSIGN_OR_RETURN(const bool newly, catalog_.SetDamaged(snapshot.id, false));
          if (!newly) continue;
          ++healed_snapshots;
          spdlog::info("snapshot {} is whole again", snapshot.id.value());
        }
        if (snapshots.size() < kSnapshotsAtOnce) break;
      }
    }
    // Last: a crash before it looks again.
    LF_RETURN_IF_ERROR(catalog_.Forget(healed));
  }
}

}  // namespace litefleet::scrub
