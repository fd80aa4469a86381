#include "controller/scrub/scrubber.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::scrub {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

constexpr int kSnapshotsAtOnce = 500;
constexpr std::string_view kSchedule = "schedule";

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the scrub was cancelled"); }

// Keeps a stream of bytes below a rate, by sleeping in slices that a cancel interrupts.
class Pacer {
 public:
  explicit Pacer(int64_t rate) : rate_(rate), begun_(steady_clock::now()) {}
  // False: interrupted.
  bool Spend(uint64_t bytes, const std::function<bool()>& stop) {
    spent_ += bytes;
    if (stop()) return false;
    if (rate_ <= 0) return true;
    const auto due =
        begun_ + std::chrono::microseconds(static_cast<int64_t>(static_cast<double>(spent_) * 1e6 / static_cast<double>(rate_)));
    // What was not used is not saved up.
    if (const auto now = steady_clock::now(); now > due + std::chrono::seconds(1)) {
      begun_ = now;
      spent_ = 0;
    }
    while (steady_clock::now() < due) {
      if (stop()) return false;
      std::this_thread::sleep_for(std::min<steady_clock::duration>(std::chrono::milliseconds(50), due - steady_clock::now()));
    }
    return true;
  }

 private:
  const int64_t rate_;
  steady_clock::time_point begun_;
  uint64_t spent_ = 0;
};

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

absl::Status Scrubber::Begin() {
  for (const v1::Operation& operation : fleet_.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_SCRUB) continue;
    Job job;
    job.operation = operation;
    job.all = operation.ordered_by() != kSchedule;
    if (operation.state() == v1::OPERATION_STATE_CANCELLING) job.cancel->Cancel();
    LF_RETURN_IF_ERROR(fleet_.AdoptLocal(OperationId(operation.id()), [cancel = job.cancel] { cancel->Cancel(); }));
    MutexLock lock(mu_);
    job_ = std::move(job);
    busy_ = true;
  }
  worker_ = std::thread([this] { Work(); });
  return absl::OkStatus();
}

absl::StatusOr<v1::Operation> Scrubber::Start(bool unlimited, const std::string& request_id, const std::string& ordered_by) {
  return Enqueue(/*all=*/true, unlimited, request_id, ordered_by);
}

absl::StatusOr<v1::Operation> Scrubber::Enqueue(bool all, bool unlimited, const std::string& request_id, const std::string& ordered_by) {
  {
    MutexLock lock(mu_);
    if (busy_) {
      return Error(Code::kFailedPrecondition, "SCRUB_RUNNING", "a scrub runs already",
                   "watch it: `litefleet operation list --active` shows its id");
    }
    busy_ = true;
  }
  Job job;
  job.all = all;
  job.unlimited = unlimited;
  auto operation = fleet_.StartLocal(v1::OPERATION_KIND_SCRUB, DeviceId(), "", SnapshotId(), request_id, ordered_by,
                                     [cancel = job.cancel] { cancel->Cancel(); });
  MutexLock lock(mu_);
  // A request that came again is answered with what exists, which may have ended.
  if (!operation.ok() || operation->state() != v1::OPERATION_STATE_QUEUED) {
    busy_ = false;
    return operation;
  }
  job.operation = *operation;
  job_ = std::move(job);
  wake_.SignalAll();
  return operation;
}

void Scrubber::Work() {
  auto look_at = steady_clock::now() + std::min<std::chrono::nanoseconds>(options_.look_every, std::chrono::minutes(10));
  for (;;) {
    std::optional<Job> job;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      if (job_.has_value()) {
        job = std::move(job_);
        job_.reset();
      } else if (!committed_ && steady_clock::now() < look_at) {
        wake_.WaitUntil(mu_, look_at);
        continue;
      }
    }
    if (job.has_value()) {
      RunJob(*std::move(job));
      MutexLock lock(mu_);
      busy_ = false;
    }
    if (committed_.exchange(false)) {
      if (const auto healed = Heal(); !healed.ok()) spdlog::warn("look for healed snapshots: {}", MessageOf(healed.status()));
    }
    if (steady_clock::now() < look_at) continue;
    look_at = steady_clock::now() + options_.look_every;
    const auto due = DuePacks(/*all=*/false);
    if (due.ok() && !due->empty()) Enqueue(/*all=*/false, /*unlimited=*/false, "", std::string(kSchedule)).status().IgnoreError();
  }
}

void Scrubber::RunJob(Job job) {
  v1::Operation& operation = job.operation;
  auto next_report = steady_clock::now();
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  fleet_.UpdateLocal(operation).IgnoreError();
  const auto report = Run(job.all, job.unlimited, *job.cancel, [&](uint64_t done, uint64_t total) {
    if (steady_clock::now() < next_report) return;
    next_report = steady_clock::now() + std::chrono::milliseconds(300);
    v1::Progress& progress = *operation.mutable_progress();
    progress.set_total_bytes(static_cast<int64_t>(total));
    progress.set_done_bytes(static_cast<int64_t>(std::min(done, total)));
    progress.set_phase("reading");
    fleet_.UpdateLocal(operation).IgnoreError();
  });
  if (stopping()) return;  // taken up after the next start
  absl::Status status = report.status();
  if (report.ok() && (report->chunks_quarantined > 0 || report->snapshots_damaged > 0)) {
    status = Error(Code::kDataLoss, "DAMAGE_FOUND",
                   fmt::format("{} chunks are not what they were and are quarantined; {} more snapshots are damaged by it",
                               report->chunks_quarantined, report->snapshots_damaged),
                   "back up these databases with --full: what the devices still have heals the snapshots; look at the disk");
  }
  operation.set_state(status.ok()                         ? v1::OPERATION_STATE_SUCCEEDED
                      : status.code() == Code::kCancelled ? v1::OPERATION_STATE_CANCELLED
                                                          : v1::OPERATION_STATE_FAILED);
  if (!status.ok()) *operation.mutable_error() = ToErrorDetail(status);
  if (status.ok() && report.ok()) {
    operation.mutable_progress()->set_total_bytes(static_cast<int64_t>(report->stored_bytes));
    operation.mutable_progress()->set_done_bytes(static_cast<int64_t>(report->stored_bytes));
  }
  operation.mutable_progress()->set_phase("done");
  fleet_.UpdateLocal(operation).IgnoreError();
}

absl::StatusOr<std::vector<store::PackInfo>> Scrubber::DuePacks(bool all) const {
  LF_ASSIGN_OR_RETURN(const auto proven, catalog_.ProvenPacks());
  const SystemTime before = clock_.Now() - options_.every;
  std::vector<store::PackInfo> due;
  for (const store::PackInfo& pack : store_.Packs()) {
    const auto at = proven.find(pack.id);
    // A pack that may still grow is looked at when somebody asks for it.
    if (all || (pack.sealed && (at == proven.end() || at->second < before))) due.push_back(pack);
  }
  const auto proven_at = [&](const store::PackInfo& pack) {
    const auto at = proven.find(pack.id);
    return at == proven.end() ? SystemTime::min() : at->second;
  };
  std::sort(due.begin(), due.end(), [&](const store::PackInfo& a, const store::PackInfo& b) {
    return proven_at(a) != proven_at(b) ? proven_at(a) < proven_at(b) : a.id > b.id;
  });
  return due;
}

absl::StatusOr<Scrubber::Report> Scrubber::Run(bool all, bool unlimited, const CancelToken& cancel,
                                               const std::function<void(uint64_t, uint64_t)>& progress) {
  LF_ASSIGN_OR_RETURN(const std::vector<store::PackInfo> packs, DuePacks(all));
  // Without the directory every chunk would seem to be missing.
  LF_RETURN_IF_ERROR(Annotate(store_.Stats().status(), "look at the store before the scrub"));
  uint64_t total = 0;
  for (const store::PackInfo& pack : packs) total += pack.size;
  Report report;
  uint64_t done = 0;
  Pacer pacer(unlimited ? 0 : options_.bytes_per_second);
  PackScrubber scrubber(store_, chunks_, catalog_);
  const std::function<bool()> stop = [&] { return cancel.cancelled() || stopping(); };
  for (const store::PackInfo& pack : packs) {
    LF_ASSIGN_OR_RETURN(const PackFindings findings, scrubber.Scrub(pack.id, [&](uint64_t bytes) -> absl::Status {
      done += bytes;
      if (!pacer.Spend(bytes, stop)) return Cancelled();
      progress(done, total);
      return absl::OkStatus();
    }));
    ++report.packs;
    report.stored_bytes += findings.stored_bytes;
    report.logical_bytes += findings.logical_bytes;
    if (!findings.bad.empty()) {
      // Once more, in case the file went away between the first look and now.
      LF_RETURN_IF_ERROR(store_.Stats().status());
      LF_ASSIGN_OR_RETURN(const auto ids, catalog_.Quarantine(findings.bad, fmt::format("scrub of pack {:016x}", pack.id), clock_.Now()));
      report.chunks_quarantined += ids.size();
      LF_CRASH_POINT("scrub.after_quarantine");
      LF_ASSIGN_OR_RETURN(const uint64_t damaged, MarkDamaged(findings.bad, ids));
      report.snapshots_damaged += damaged;
    }
    for (const SnapshotId& snapshot : findings.without_manifest) {
      LF_RETURN_IF_ERROR(catalog_.SetDamaged(snapshot, true));
      ++report.snapshots_damaged;
    }
    if (pack.sealed) LF_RETURN_IF_ERROR(catalog_.SetProven(pack.id, clock_.Now()));
    LF_CRASH_POINT("scrub.after_pack");
  }
  return report;
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

absl::StatusOr<uint64_t> Scrubber::MarkDamaged(const std::vector<catalog::ScrubCatalog::PlacedChunk>& bad, std::span<const int64_t> ids) {
  uint64_t damaged = 0;
  absl::flat_hash_set<format::ChunkName> names;
  for (const auto& chunk : bad) names.insert(chunk.name);
  LF_ASSIGN_OR_RETURN(const std::vector<DeviceId> devices, catalog_.OwnersOf(ids));
  for (const DeviceId& device : devices) {
    for (int64_t after = 0;;) {
      LF_ASSIGN_OR_RETURN(const auto snapshots, catalog_.SnapshotsOf(device, after, kSnapshotsAtOnce));
      for (const auto& snapshot : snapshots) {
        after = snapshot.key;
        if (snapshot.damaged) continue;
        bool hit = false;
        const absl::Status walked = needed_(snapshot.id, [&](std::span<const format::ChunkName> needed) -> absl::Status {
          for (const format::ChunkName& name : needed) hit |= names.contains(name);
          return hit ? absl::CancelledError("known enough") : absl::OkStatus();
        });
        if (!hit && absl::IsNotFound(walked)) continue;  // deleted meanwhile
        if (!hit && !walked.ok() && !absl::IsDataLoss(walked)) return walked;
        if (!hit && walked.ok()) continue;
        LF_RETURN_IF_ERROR(catalog_.SetDamaged(snapshot.id, true));
        ++damaged;
      }
      if (snapshots.size() < kSnapshotsAtOnce) break;
    }
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
          LF_RETURN_IF_ERROR(catalog_.SetDamaged(snapshot.id, false));
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
