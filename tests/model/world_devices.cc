// What becomes of devices: they are asked for what was lost, and forgotten.
#include <utility>

#include "common/base/status.h"
#include "controller/rebuild/store_records.h"
#include "fmt/format.h"
#include "tests/fakes/wanted_answer.h"
#include "tests/model/world.h"

namespace litefleet::model {
namespace {

constexpr prune::PruneOptions kAtOnce{.snapshot_grace = {}, .chunk_grace = {}, .sweeps = 0, .rewrite_percent = 30};

}  // namespace

void World::OpenHealer() {
  // Heal asks devices that are enrolled.
  std::string sql;
  for (const Device& device : model_.devices) {
    if (device.forgetting) continue;
    sql += fmt::format(
        "insert into device (id, name, state, key_hash, enrolled_ms) values ('{0}', '{0}', {1}, x'00', 1) "
        "on conflict (id) do update set state = {1};",
        device.id.value(), static_cast<int>(v1::DEVICE_STATE_ACTIVE));
  }
  Expect(path_.db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); }), {}, "enrol the devices");
  healer_ = std::make_unique<heal::Healer>(
      heal::HealerDeps{
          .catalog = heals_,
          .chunks = *path_.ingest_catalog,
          .store = *path_.store,
          .clock = clock_,
          .start = [this](const DeviceId& device,
                          const v1::HealOrder& order) { return fleet_->StartHeal(device, order, "scrub").status(); },
          .order_of = [this](const DeviceId& device, const OperationId& operation) { return fleet_->HealOrderOf(device, operation); },
          .is_asked = [this](const DeviceId& device, const std::string& database) { return fleet_->IsHealing(device, database); },
          .set_whole = [this](const SnapshotId& snapshot) { return scrubs_.SetDamaged(snapshot, false).status(); },
          .changed = [] {}},
      heal::HealerOptions{});
}

// Devices answer with what they have now.
void World::Heal() {
  if (!model_.ever_flipped || !Expect(healer_->OrderDue().status(), {}, "order what is wanted")) return;
  const auto devices = model_.devices;
  for (const Device& device : devices) {
    const auto active = operations_.ActiveOf(device.id);
    if (!Expect(active.status(), {}, "list orders")) return;
    for (const catalog::OperationRow& row : *active) AnswerHealOrder(device.id, device.now, OperationId(row.operation.id()));
  }
  if (scrubbing_now_) return;  // it is done on the thread that scrubs
  Expect(scrubber_->Heal().status(), {}, "heal");
  const auto snapshots = model_.snapshots;
  for (const auto& [id, snapshot] : snapshots) {
    if (!snapshot.harmed || snapshot.fate != Fate::kAlive || Affected(id)) continue;
    const auto stored = path_.snapshots->Resolve(id);
    if (!stored.ok() || stored->state() != v1::SNAPSHOT_STATE_COMMITTED) continue;
    // From now on it counts as any.
    if (path_.ReadBack(id).ok()) tell_("whole " + id);
  }
}

void World::AnswerHealOrder(const DeviceId& device, const fakes::PagedDatabase& has, const OperationId& operation) {
  const auto order = fleet_->HealOrderOf(device, operation);
  if (!Expect(order.status(), {}, "look at an order")) return;
  v1::SendWantedRequest request = fakes::AnswerOf(operation.value(), *order, has);
  if (!Expect(healer_->Accept(device, request).status(), {}, "take what was wanted")) return;
  request.clear_contents();
  request.set_last(true);
  if (Expect(healer_->Accept(device, request).status(), {}, "take the end of what was wanted"))
    Expect(fleet_->Cancel(operation).status(), {}, "end the order");
}

// As an operator does it with a device that was revoked; another one comes in its place.
void World::Forget(int device) {
  const auto at = static_cast<size_t>(device);
  EndUpload(device);
  const DeviceId id = model_.devices[at].id;
  std::vector<std::string> its;
  for (const std::string& snapshot : model_.order) {
    const Snapshot& known = model_.snapshots.at(snapshot);
    if (known.device != device || known.fate == Fate::kGone) continue;
    its.push_back(snapshot);
    tell_("pin " + snapshot + " 0");
    tell_("open " + snapshot);
  }
  tell_(fmt::format("forgetting {}", device));
  if (!Expect(identities_.RevokeDevice(id).status(), {"DEVICE_NOT_FOUND"}, "revoke it")) return;
  if (!Expect(deletions_.BeginForget(id), {}, "begin to forget")) return;
  for (int trashed = 1; trashed > 0;) {
    const auto some = deletions_.TrashSome(id, "forget:model");
    if (!Expect(some.status(), {}, "forget snapshots")) return;
    trashed = *some;
  }
  if (!Expect(marks_.WriteDue(), {}, "write marks")) return;
  for (const std::string& snapshot : its) tell_("gone " + snapshot);
  catalog::DeletionCatalog::Removed removed{.more = true};
  while (removed.more) {
    const std::vector<store::PackInfo> packs = path_.store->Packs();
    const auto some = deletions_.RemoveSome(FromUnixMillis(0), removed.last_key, packs.empty() ? 0 : packs.back().id,
                                            [this](const SnapshotId& snapshot) { return path_.readers->pins().IsPinned(snapshot); });
    if (!Expect(some.status(), {}, "remove what is forgotten")) return;
    removed = *some;
  }
  for (int dropped = 1; dropped > 0;) {
    const auto some = deletions_.DropSome(id);
    if (!Expect(some.status(), {}, "drop what is forgotten")) return;
    dropped = *some;
  }
  // As of every device that is forgotten: marks go with its databases, and records of its snapshots may stand for longer. As long as no
  // record says that it is forgotten a prune finds its marks, and leaves them.
  const auto prune = [&] {
    return pruning_now_ ? absl::OkStatus()
                        : pruner_.Run(kAtOnce, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); }).status();
  };
  if (Random(3) == 0 && !Expect(prune(), {}, "prune beside a device that is half forgotten")) return;
  if (!Expect(identities_.ForgetDevice(id), {"DEVICE_NOT_FOUND"}, "forget it")) return;
  if (Random(3) == 0 && !Expect(prune(), {}, "prune before a record says that a device is forgotten")) return;
  if (!Expect(deletions_.DropForgottenDatabases(), {}, "drop databases")) return;
  catalog::RecordCatalog due(*path_.db);
  if (!Expect(rebuild::StoreRecords(due, *path_.store, clock_).WriteDue(), {}, "write that it is forgotten")) return;
  if (!Expect(deletions_.DropForgottenDatabases(), {}, "drop databases")) return;
  // Ids are never given twice.
  const std::string next = fmt::format("{:08x}-2222-4222-8222-222222222222", model_.forgotten + 1);
  tell_(fmt::format("forgotten {} {}", device, next));
  OpenHealer();
}

}  // namespace litefleet::model
