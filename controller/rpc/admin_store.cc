// Deletions, the trash, prune and what the store holds.
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr int64_t kMinScrubRate = int64_t{1} << 20;
constexpr std::chrono::seconds kMaxGrace = std::chrono::hours(24 * 366);
constexpr std::chrono::seconds kMaxPin = std::chrono::hours(24 * 366 * 100);

}  // namespace

absl::StatusOr<v1::DeleteSnapshotResponse> AdminHandlers::DeleteSnapshot(const v1::DeleteSnapshotRequest& request,
                                                                         const std::string& ordered_by) const {
  LF_ASSIGN_OR_RETURN(const v1::Snapshot found, deps_.snapshots->Resolve(request.snapshot()));
  // On hold the time stands still, which only makes the grace longer.
  LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, deps_.time->Tick());
  LF_RETURN_IF_ERROR(deps_.deletions->Trash(SnapshotId(found.id()), request.force(), ordered_by, now.time));
  LF_RETURN_IF_ERROR(deps_.marks->WriteDue());
  v1::DeleteSnapshotResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_snapshot(), deps_.snapshots->Resolve(found.id()));
  return response;
}

absl::StatusOr<v1::PinSnapshotResponse> AdminHandlers::PinSnapshot(const v1::PinSnapshotRequest& request) const {
  LF_ASSIGN_OR_RETURN(const v1::Snapshot found, deps_.snapshots->Resolve(request.snapshot()));
  catalog::PinLimit limit{.until = std::nullopt, .at_least = request.at_least()};
  if (request.has_duration()) {
    LF_ASSIGN_OR_RETURN(const std::chrono::seconds duration,
                        CheckedDuration(true, request.duration(), std::chrono::seconds(1), kMaxPin, std::chrono::seconds(1), "duration"));
    LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, deps_.time->Tick());
    // On hold nobody knows what time it is: a limit reckoned from it may have passed once it is known.
    if (now.hold.empty()) limit.until = now.time + duration;
  }
  LF_RETURN_IF_ERROR(deps_.deletions->SetPinned(SnapshotId(found.id()), true, limit));
  LF_RETURN_IF_ERROR(deps_.marks->WriteDue());
  v1::PinSnapshotResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_snapshot(), deps_.snapshots->Resolve(found.id()));
  return response;
}

absl::StatusOr<v1::UnpinSnapshotResponse> AdminHandlers::UnpinSnapshot(const v1::UnpinSnapshotRequest& request) const {
  LF_ASSIGN_OR_RETURN(const v1::Snapshot found, deps_.snapshots->Resolve(request.snapshot()));
  LF_RETURN_IF_ERROR(deps_.deletions->SetPinned(SnapshotId(found.id()), false));
  LF_RETURN_IF_ERROR(deps_.marks->WriteDue());
  v1::UnpinSnapshotResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_snapshot(), deps_.snapshots->Resolve(found.id()));
  return response;
}

absl::StatusOr<v1::ListTrashResponse> AdminHandlers::ListTrash(const v1::ListTrashRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::TrashItem> page, deps_.snapshots->ListTrash(page_size, request.page_token()));
  v1::ListTrashResponse response;
  const auto grace = deps_.maintenance->options().prune.snapshot_grace;
  for (v1::TrashItem& item : page.items) {
    *item.mutable_removed_after() = ToProtoTime(FromProtoTime(item.trashed_at()) + grace);
    *response.add_items() = std::move(item);
  }
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::RestoreTrashResponse> AdminHandlers::RestoreTrash(const v1::RestoreTrashRequest& request) const {
  LF_ASSIGN_OR_RETURN(const v1::Snapshot found, deps_.snapshots->Resolve(request.snapshot()));
  LF_RETURN_IF_ERROR(deps_.deletions->Restore(SnapshotId(found.id())));
  LF_RETURN_IF_ERROR(deps_.marks->WriteDue());
  v1::RestoreTrashResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_snapshot(), deps_.snapshots->Resolve(found.id()));
  return response;
}

absl::StatusOr<v1::CatalogBackups> AdminHandlers::GetCatalogBackups() const {
  LF_ASSIGN_OR_RETURN(const backup::CatalogBackups::Figures figures, deps_.backups->GetFigures());
  v1::CatalogBackups backups;
  backups.set_count(figures.count);
  backups.set_bytes(figures.bytes);
  if (figures.newest_at.has_value()) *backups.mutable_newest_at() = ToProtoTime(*figures.newest_at);
  *backups.mutable_every() = ToProtoDuration(figures.every);
  backups.set_keep(figures.keep);
  backups.set_last_error(figures.last_error);
  return backups;
}

absl::StatusOr<v1::GetStoreStatsResponse> AdminHandlers::GetStoreStats(const v1::GetStoreStatsRequest&) const {
  LF_ASSIGN_OR_RETURN(v1::GetStoreStatsResponse stats, deps_.pruning->Stats(deps_.clock->Now() - catalog::PruneCatalog::kGrowthOver));
  LF_ASSIGN_OR_RETURN(const store::StoreStats store, deps_.store->Stats());
  stats.set_store_bytes(static_cast<int64_t>(store.stored_bytes));
  stats.set_packs(static_cast<int64_t>(store.packs));
  if (deps_.backups != nullptr) {
    LF_ASSIGN_OR_RETURN(*stats.mutable_catalog_backups(), GetCatalogBackups());
  }
  stats.set_dead_bytes(std::max<int64_t>(0, stats.store_bytes() - stats.live_bytes() - stats.trash_bytes()));
  for (v1::DeviceUsage& usage : *stats.mutable_devices()) {
    const auto device = deps_.identities->ResolveDevice(usage.device_id());
    usage.set_device_name(device.ok() ? device->name() : usage.device_id());
    if (deps_.quotas == nullptr) continue;
    LF_ASSIGN_OR_RETURN(const retention::Quotas::Standing standing, deps_.quotas->Of(DeviceId(usage.device_id())));
    usage.set_held_bytes(standing.holds.bytes);
    usage.set_quota_bytes(standing.quota.bytes);
    usage.set_quota_snapshots(standing.quota.snapshots);
  }
  return stats;
}

absl::StatusOr<v1::StartPruneResponse> AdminHandlers::StartPrune(const v1::StartPruneRequest& request,
                                                                 const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  std::optional<std::chrono::milliseconds> grace;
  if (request.has_grace()) {
    LF_ASSIGN_OR_RETURN(grace,
                        CheckedDuration(true, request.grace(), std::chrono::seconds(0), kMaxGrace, std::chrono::seconds(0), "grace"));
  }
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.maintenance->StartPrune(request.dry_run(), grace, request.request_id(), ordered_by));
  v1::StartPruneResponse response;
  *response.mutable_operation() = std::move(operation);
  return response;
}

absl::StatusOr<v1::StartScrubResponse> AdminHandlers::StartScrub(const v1::StartScrubRequest& request,
                                                                 const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  std::optional<int64_t> rate;
  if (request.has_bytes_per_second()) {
    if (request.bytes_per_second() < 0 || (request.bytes_per_second() > 0 && request.bytes_per_second() < kMinScrubRate)) {
      return Error(absl::StatusCode::kInvalidArgument, "RATE_INVALID",
                   fmt::format("a scrub at {} bytes a second would not end", request.bytes_per_second()),
                   "give at least 1 MiB a second, or 0 for no limit");
    }
    rate = request.bytes_per_second();
  }
  v1::StartScrubResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_operation(), deps_.scrubber->Start(rate, request.request_id(), ordered_by));
  return response;
}

}  // namespace litefleet::rpc
