#include "controller/prune/pruner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "controller/prune/references.h"

namespace litefleet::prune {
namespace {

constexpr int kLookAtOnce = 20'000;  // rows a read
constexpr std::string_view kRemoving = "removing snapshots";
constexpr int64_t kProgressEvery = 1000;  // parts of manifests

using catalog::PruneCatalog;

}  // namespace

bool Pruner::Window::Has(int64_t id) const {
  const auto at = static_cast<uint64_t>(id - first);
  return (bits[at / 64] >> (at % 64) & 1) != 0;
}

void Pruner::Window::Set(int64_t id) {
  const int64_t at = id - first;
  if (at >= 0 && at < count) bits[static_cast<size_t>(at) / 64] |= uint64_t{1} << (at % 64);
}

absl::Status Pruner::Recover() {
  LF_RETURN_IF_ERROR(deps_.catalog.EndMarking());
  // What the store will not do now the next run does first: a store that cannot be written to is served all the same.
  if (const absl::Status marked = deps_.marks.WriteDue(); !marked.ok())
    spdlog::error("write what was deleted into the store: {}", MessageOf(marked));
  if (const absl::Status removed = FinishRemovals(); !removed.ok()) spdlog::error("remove packs: {}", MessageOf(removed));
  return absl::OkStatus();
}

absl::Status Pruner::FinishRemovals() {
  LF_ASSIGN_OR_RETURN(const std::vector<uint64_t> removals, deps_.catalog.Removals());
  for (const uint64_t pack : removals) LF_RETURN_IF_ERROR(RemovePack(pack));
  return absl::OkStatus();
}

absl::StatusOr<v1::PruneReport> Pruner::Run(const PruneOptions& options, SystemTime now, const PruneProgress& progress) {
  v1::PruneReport report;
  report.set_dry_run(options.dry_run);
  LF_RETURN_IF_ERROR(progress(kRemoving, 0));
  const absl::Status removed = options.dry_run ? absl::OkStatus() : FinishRemovals();
  LF_RETURN_IF_ERROR(RemoveSnapshots(options, now, progress, report));
  LF_RETURN_IF_ERROR(MarkAndSweep(options, now, progress, report));
  // As long as a power cut may bring a pack back, none that is younger goes.
  LF_RETURN_IF_ERROR(removed);
  LF_RETURN_IF_ERROR(RewritePacks(options, progress, report));
  if (!options.dry_run) LF_RETURN_IF_ERROR(deps_.catalog.SaveReport(report, now));
  return report;
}

absl::Status Pruner::RemoveSnapshots(const PruneOptions& options, SystemTime now, const PruneProgress& progress, v1::PruneReport& report) {
  if (options.dry_run) {
    LF_ASSIGN_OR_RETURN(const int64_t count, deps_.deletions.CountRemovable(now - options.snapshot_grace));
    report.set_snapshots_removed(count);
    return absl::OkStatus();
  }
  LF_RETURN_IF_ERROR(deps_.marks.WriteDue());
  int64_t after = 0;
  for (;;) {
    LF_RETURN_IF_ERROR(progress(kRemoving, 0));
    const std::vector<store::PackInfo> packs = deps_.store.Packs();
    LF_ASSIGN_OR_RETURN(const catalog::DeletionCatalog::Removed removed,
                        deps_.deletions.RemoveSome(now - options.snapshot_grace, after, packs.empty() ? 0 : packs.back().id, deps_.held));
    after = removed.last_key;
    report.set_snapshots_removed(report.snapshots_removed() + removed.snapshots);
    report.set_snapshots_held(report.snapshots_held() + removed.kept);
    if (!removed.more) break;
  }
  return deps_.deletions.DropForgottenDatabases();
}

absl::Status Pruner::MarkAndSweep(const PruneOptions& options, SystemTime now, const PruneProgress& progress, v1::PruneReport& report) {
  record_bytes_.clear();
  would_go_.clear();
  PruneCatalog::Run run;
  const auto end = absl::MakeCleanup([&] {
    // What stays when this fails goes at the next run or start.
    if (!options.dry_run) deps_.catalog.EndMarking().IgnoreError();
  });
  if (options.dry_run) {
    LF_ASSIGN_OR_RETURN(run.newest_chunk, deps_.catalog.NewestChunk());
    LF_ASSIGN_OR_RETURN(run.run, deps_.catalog.NewestRun());
    ++run.run;
  } else {
    LF_ASSIGN_OR_RETURN(run, deps_.catalog.Begin());
    LF_CRASH_POINT("prune.after_begin");
  }
  const std::optional<SystemTime> gone_before = options.dry_run ? std::optional<SystemTime>(now - options.snapshot_grace) : std::nullopt;
  const auto most = static_cast<int64_t>(deps_.bitmap_bytes) * 8;
  for (int64_t first = 1; first <= run.newest_chunk; first += most) {
    Window window{.first = first, .count = std::min(most, run.newest_chunk - first + 1), .bits = {}};
    window.bits.resize(static_cast<size_t>(window.count + 63) / 64);
    LF_RETURN_IF_ERROR(MarkWindow(window, gone_before, first == 1, progress, report));
    LF_RETURN_IF_ERROR(TrashWindow(window, run.newest_chunk, options, now, run.run, progress, report));
    LF_RETURN_IF_ERROR(SweepWindow(window, options, now, run.run, progress, report));
  }
  if (options.dry_run) return absl::OkStatus();
  // Also packs that have no manifest any more.
  for (uint64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Pack> packs, deps_.catalog.PacksAfter(after, kLookAtOnce));
    if (packs.empty()) break;
    after = packs.back().id;
    for (const PruneCatalog::Pack& pack : packs) record_bytes_.try_emplace(pack.id, 0);
  }
  LF_RETURN_IF_ERROR(deps_.catalog.SetRecordBytes(record_bytes_));
  return report.chunks_swept() > 0 ? DropRights() : absl::OkStatus();
}

absl::Status Pruner::MarkWindow(Window& window, std::optional<SystemTime> gone_before, bool count, const PruneProgress& progress,
                                v1::PruneReport& report) {
  int64_t parts = 0;
  LF_ASSIGN_OR_RETURN(const int64_t read, ForEachChunk(deps_.catalog, deps_.store, gone_before,
                                                       [&](const PartRead& part, std::span<const format::ChunkName> names) -> absl::Status {
                                                         if (parts++ % kProgressEvery == 0) LF_RETURN_IF_ERROR(progress("marking", 0.3));
                                                         LF_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, deps_.catalog.ChunkIds(names));
                                                         for (const int64_t id : ids) window.Set(id);
                                                         if (count) record_bytes_[part.place.pack] += part.bytes;
                                                         return absl::OkStatus();
                                                       }));
  if (count) report.set_manifests_read(read);
  return absl::OkStatus();
}

absl::Status Pruner::TrashWindow(const Window& window, int64_t newest, const PruneOptions& options, SystemTime now, int64_t run,
                                 const PruneProgress& progress, v1::PruneReport& report) {
  const int64_t last = std::min(newest, window.first + window.count - 1);
  std::vector<int64_t> unneeded;
  std::vector<PruneCatalog::Chunk> would_go;
  std::vector<int64_t> needed;
  const auto flush = [&](bool all) -> absl::Status {
    while (unneeded.size() >= (all ? 1u : static_cast<size_t>(PruneCatalog::kAtOnce))) {
      const size_t some = std::min(unneeded.size(), static_cast<size_t>(PruneCatalog::kAtOnce));
      LF_ASSIGN_OR_RETURN(const PruneCatalog::Changed trashed, deps_.catalog.Trash(std::span(unneeded).first(some), now, run));
      unneeded.erase(unneeded.begin(), unneeded.begin() + static_cast<std::ptrdiff_t>(some));
      report.set_chunks_trashed(report.chunks_trashed() + trashed.chunks);
      report.set_bytes_trashed(report.bytes_trashed() + trashed.bytes);
      LF_CRASH_POINT("prune.after_trash");
    }
    while (needed.size() >= (all ? 1u : static_cast<size_t>(PruneCatalog::kAtOnce))) {
      const size_t some = std::min(needed.size(), static_cast<size_t>(PruneCatalog::kAtOnce));
      LF_ASSIGN_OR_RETURN(const PruneCatalog::Changed taken, deps_.catalog.TakeOutOfTrash(std::span(needed).first(some)));
      needed.erase(needed.begin(), needed.begin() + static_cast<std::ptrdiff_t>(some));
      report.set_chunks_rescued(report.chunks_rescued() + taken.chunks);
    }
    return absl::OkStatus();
  };
  for (int64_t after = window.first - 1;;) {
    LF_RETURN_IF_ERROR(progress("looking for what nothing needs", 0.5));
    LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Chunk> chunks, deps_.catalog.ChunksAfter(after, last, kLookAtOnce));
    if (chunks.empty()) break;
    after = chunks.back().id;
    for (const PruneCatalog::Chunk& chunk : chunks) {
      const bool marked = window.Has(chunk.id);
      if (marked) report.set_chunks_marked(report.chunks_marked() + 1);
      if (options.dry_run) {
        if (!marked && chunk.state != catalog::kChunkTrash) would_go.push_back(chunk);
        continue;
      }
      if (!marked && chunk.state != catalog::kChunkTrash) unneeded.push_back(chunk.id);
      if (marked && chunk.state == catalog::kChunkTrash) needed.push_back(chunk.id);
    }
    LF_RETURN_IF_ERROR(CountUnneeded(std::exchange(would_go, {}), /*from_trash=*/false, options, report));
    LF_RETURN_IF_ERROR(flush(false));
  }
  return flush(true);
}

absl::Status Pruner::SweepWindow(const Window& window, const PruneOptions& options, SystemTime now, int64_t run,
                                 const PruneProgress& progress, v1::PruneReport& report) {
  const SystemTime before = now - options.chunk_grace;
  for (int64_t after = window.first - 1;;) {
    LF_RETURN_IF_ERROR(progress("removing chunks", 0.55));
    LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Chunk> chunks,
                        deps_.catalog.Trashed(after, before, run - options.sweeps, PruneCatalog::kAtOnce));
    if (chunks.empty()) return absl::OkStatus();
    after = chunks.back().id;
    std::vector<int64_t> ids;
    std::vector<PruneCatalog::Chunk> would_go;
    bool last = false;
    for (const PruneCatalog::Chunk& chunk : chunks) {
      last = chunk.id >= window.first + window.count;
      if (last) break;
      if (window.Has(chunk.id)) continue;
      ids.push_back(chunk.id);
      if (options.dry_run) would_go.push_back(chunk);
    }
    if (options.dry_run) {
      LF_RETURN_IF_ERROR(CountUnneeded(would_go, /*from_trash=*/true, options, report));
      if (last) return absl::OkStatus();
      continue;
    }
    LF_ASSIGN_OR_RETURN(const PruneCatalog::Changed swept, deps_.catalog.Sweep(ids));
    report.set_chunks_swept(report.chunks_swept() + swept.chunks);
    report.set_bytes_swept(report.bytes_swept() + swept.bytes);
    swept_ = swept_ || swept.chunks > 0;
    LF_CRASH_POINT("prune.after_sweep");
    if (last) return absl::OkStatus();
  }
}

absl::Status Pruner::CountUnneeded(std::span<const PruneCatalog::Chunk> chunks, bool from_trash, const PruneOptions& options,
                                   v1::PruneReport& report) {
  if (chunks.empty()) return absl::OkStatus();
  const bool at_once = options.chunk_grace.count() <= 0 && options.sweeps <= 0;  // what is trashed is swept by the same run
  LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Chunk> unclaimed, deps_.catalog.Unclaimed(chunks));
  for (const PruneCatalog::Chunk& chunk : unclaimed) {
    const bool quarantined = chunk.state == catalog::kChunkQuarantined;  // those go without a trash
    if (!from_trash && !quarantined) {
      report.set_chunks_trashed(report.chunks_trashed() + 1);
      report.set_bytes_trashed(report.bytes_trashed() + chunk.stored_bytes);
    }
    if (!from_trash && !quarantined && !at_once) continue;
    if (!quarantined) {
      report.set_chunks_swept(report.chunks_swept() + 1);
      report.set_bytes_swept(report.bytes_swept() + chunk.stored_bytes);
    }
    Gone& gone = would_go_[chunk.pack];
    ++gone.chunks;
    gone.bytes += chunk.stored_bytes;
  }
  return absl::OkStatus();
}

absl::Status Pruner::DropRights() {
  int64_t owner = 0;
  int64_t chunk = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool more, deps_.catalog.DropRights(owner, chunk));
    if (!more) return absl::OkStatus();
  }
}

}  // namespace litefleet::prune
