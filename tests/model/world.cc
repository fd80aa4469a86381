#include "tests/model/world.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "controller/catalog/rebuild_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/rebuild/rebuild.h"
#include "fmt/format.h"

namespace litefleet::model {
namespace {

constexpr uint64_t kSealBytes = 700'000;

ingest::IngestLimits Limits() {
  ingest::IngestLimits limits;
  limits.mark_bytes = 150'000;
  limits.entries_per_part = 3;
  return limits;
}

const Clock& Advanced(FakeClock& clock, int64_t ms) {
  clock.Advance(std::chrono::milliseconds(ms));
  return clock;
}

absl::Status NeededBy(ingest::DataPath& path, const SnapshotId& snapshot,
                      const std::function<absl::Status(std::span<const format::ChunkName>)>& visit) {
  return manifest::ForEachNeededChunk(*path.ingest_catalog, *path.store, snapshot,
                                      [&](std::span<const manifest::ChunkRef> chunks) -> absl::Status {
                                        std::vector<format::ChunkName> names;
                                        for (const auto& chunk : chunks) names.push_back(chunk.name);
                                        return visit(names);
                                      });
}

}  // namespace

World::World(Model& model, std::string directory, fakes::VolatileFiles& files, unsigned seed, Tell tell)
    : model_(model),
      directory_(std::move(directory)),
      files_(files),
      random_(seed),
      tell_(std::move(tell)),
      path_(directory_, Advanced(clock_, model.clock_ms), Limits(), kSealBytes, files, /*threads=*/false),
      deletions_(*path_.db),
      pruning_(*path_.db),
      policies_(*path_.db),
      marks_(deletions_, *path_.store, clock_),
      pruner_({.catalog = pruning_,
               .deletions = deletions_,
               .marks = marks_,
               .store = *path_.store,
               .held = [this](const SnapshotId& id) { return path_.readers->pins().IsPinned(id); },
               .count_generation = [this] { return generation_.Advance(); }}),
      retention_(policies_, deletions_, [this] { return marks_.WriteDue(); }),
      operations_(*path_.db),
      identities_(*path_.db),
      reports_(identities_, *path_.snapshots, catalog::GapCatalog(*path_.db), *path_.db),
      scrubs_(*path_.db),
      generations_(*path_.db),
      generation_(generations_, *path_.store, clock_),
      backups_({.catalog = directory_ + "/catalog.db",
                .store = directory_ + "/store",
                .scratch = directory_ + "/scratch",
                .keep = 2,
                .leave_free = 0,
                .made = [this] { return generation_.Advance().status(); }},
               clock_, files_),
      holdings_(*path_.db),
      heals_(*path_.db),
      uploads_(model.devices.size()) {
  std::filesystem::create_directories(directory_ + "/scratch");
  auto fleet = fleet::DeviceFleet::Create({&operations_, &reports_, &clock_, "test"}, {.own_ticker = false});
  if (Expect(fleet.status(), {}, "make the fleet")) fleet_ = *std::move(fleet);
  scrubber_ = std::make_unique<scrub::Scrubber>(
      *fleet_, *path_.store, *path_.ingest_catalog, scrubs_,
      [this](const SnapshotId& snapshot, const auto& visit) { return NeededBy(path_, snapshot, visit); }, clock_,
      scrub::ScrubberOptions{.bytes_per_second = 0});
  OpenHealer();
  path_.check_quota = [this](const DeviceId& device, bool goes_on) {
    return retention::Quotas(holdings_, policies_, quota_).Check(device, goes_on);
  };
}

World::~World() {
  readers_.clear();
  uploads_.clear();
}

void World::Violation(const std::string& text) { tell_("violation " + text); }

bool World::Expect(const absl::Status& status, std::initializer_list<std::string_view> reasons, std::string_view what) {
  if (status.ok() || std::find(reasons.begin(), reasons.end(), ReasonOf(status)) != reasons.end()) return true;
  Violation(fmt::format("{}: {} {}", what, ReasonOf(status), MessageOf(status)));
  return false;
}

std::string World::Pick(std::initializer_list<Fate> fates) {
  std::vector<std::string> found;
  for (const std::string& id : model_.order) {
    if (std::find(fates.begin(), fates.end(), model_.snapshots.at(id).fate) != fates.end()) found.push_back(id);
  }
  return found.empty() ? "" : found[Random(found.size())];
}

absl::Status World::Rebuild(const std::string& directory, const Clock& clock, fakes::VolatileFiles& files) {
  const std::string path = directory + "/catalog.db";
  store::FileStoreOptions options;
  options.directory = directory + "/store";
  options.reserve_bytes = 0;
  LF_ASSIGN_OR_RETURN(const auto store, store::FileStore::Open(options, clock, files));
  LF_ASSIGN_OR_RETURN(const auto catalog, catalog::RebuildCatalog::Create(path + ".rebuild"));
  // Damaged bytes are no violation: a power cut leaves holes where later writes got to the disk before earlier ones, and nobody was told of
  // what stood there. Whether all that was acknowledged is there is looked at afterwards.
  LF_RETURN_IF_ERROR(rebuild::Rebuild(*store, *catalog, clock, {}).status());
  LF_RETURN_IF_ERROR(catalog->Close());
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  std::filesystem::rename(path + ".rebuild", path);
  return absl::OkStatus();
}

absl::Status World::ExpectOutdated(const std::string& directory, const Clock& clock, fakes::VolatileFiles& files) {
  store::FileStoreOptions options;
  options.directory = directory + "/store";
  options.reserve_bytes = 0;
  LF_ASSIGN_OR_RETURN(const auto db, catalog::CatalogDb::Open(directory + "/catalog.db", false, catalog::Migrations()));
  LF_ASSIGN_OR_RETURN(const auto store, store::FileStore::Open(options, clock, files));
  catalog::GenerationCatalog generations(*db);
  const absl::Status status = rebuild::CatalogGeneration(generations, *store, clock).CheckNewest();
  if (ReasonOf(status) == "CATALOG_OUTDATED") return absl::OkStatus();
  return absl::InternalError(fmt::format("an older copy of the catalog is taken for the newest: {}", status.ToString()));
}

void World::Stop() { Expect(generation_.AdvanceIfGrown(), {}, "count the catalog"); }

void World::Start() {
  if (!Expect(generation_.CheckNewest(), {}, "look whether the catalog is the newest")) return;
  if (!Expect(generation_.Advance().status(), {}, "count the catalog")) return;
  tell_("counted");
  if (!Expect(pruner_.Recover(), {}, "recover")) return;
  const char* const tiers = Random(2) == 0 ? "" : "tiers = [{every = \"all\", for = \"2h\"}, {every = \"1h\", for = \"7d\"}]\n";
  const std::string policy = fmt::format("name = \"all\"\n[retention]\nkeep_last = 2\nfloor = 2\n{}", tiers);
  Expect(policies_.Put("all", policy, clock_.Now()).status(), {}, "put a policy");
  // What a crash left open has been decided one way or the other.
  const auto snapshots = model_.snapshots;
  for (const auto& [id, snapshot] : snapshots) {
    if (snapshot.fate != Fate::kOpen) continue;
    const bool there = path_.Count("select count(*) from snapshot where state <> 3 and id = '" + id + "'") == 1;
    tell_((there ? "alive " : "gone ") + id);
  }
  for (size_t device = 0; device < model_.devices.size(); ++device) {
    if (model_.devices[device].forgetting) Forget(static_cast<int>(device));
  }
  CheckAll();
}

bool World::Affected(const std::string& id) {
  bool affected = false;
  NeededBy(path_, SnapshotId(id), [&](std::span<const format::ChunkName> names) {
    for (const format::ChunkName& name : names) affected |= model_.flipped.contains(name.Hex());
    return absl::OkStatus();
  }).IgnoreError();
  return affected;
}

void World::Check(const std::string& id, const Snapshot& snapshot) {
  const auto stored = path_.snapshots->Resolve(id);
  const auto bytes = path_.ReadBack(id);
  if (snapshot.fate == Fate::kGone) {
    if (!bytes.ok() && (ReasonOf(bytes.status()) == "SNAPSHOT_IN_TRASH" || absl::IsNotFound(bytes.status()))) return;
    return Violation(fmt::format("snapshot {} was deleted and is there: {}", id, bytes.status().ToString()));
  }
  if (snapshot.fate == Fate::kOpen) return;
  const bool may_be_bad = snapshot.harmed || Affected(id);
  if (!stored.ok() || !bytes.ok()) {
    const absl::Status status = stored.ok() ? bytes.status() : stored.status();
    if (may_be_bad && (absl::IsDataLoss(status) || absl::IsNotFound(status))) return;
    return Violation(fmt::format("snapshot {} was acknowledged and does not restore: {}", id, status.ToString()));
  }
  if (stored->root_digest() != snapshot.state.Root().AsString()) Violation(fmt::format("snapshot {} has another root", id));
  if (*bytes != snapshot.state.Run(1, snapshot.state.count())) Violation(fmt::format("snapshot {} has another content", id));
  if (!snapshot.pinned) return;
  if (path_.Count("select pinned from snapshot where id = '" + id + "'") != 1)
    Violation(fmt::format("snapshot {} is no longer pinned", id));
  if (const int64_t until = path_.Count("select pinned_until from snapshot where id = '" + id + "'"); until != snapshot.pinned_until)
    Violation(fmt::format("snapshot {} is pinned until {}, and was until {}", id, until, snapshot.pinned_until));
}

// What triggers keep is what there is.
void World::CheckHoldings() {
  if (model_.ever_flipped) return;  // a chunk that came again may weigh something else
  const int64_t wrong = path_.Count(
      "select count(*) from owner where held_bytes <> coalesce((select sum(coalesce((select stored_bytes from chunk where id = d.chunk), "
      "(select stored_bytes from swept_chunk where chunk = d.chunk), 0)) from device_chunk d where d.owner = owner.id), 0)");
  if (wrong != 0) Violation(fmt::format("{} devices hold something else than their rights say", wrong));
}

void World::CheckAll() {
  CheckHoldings();
  const auto snapshots = model_.snapshots;
  for (const auto& [id, snapshot] : snapshots) Check(id, snapshot);
  // Also what was committed and never acknowledged.
  const auto listed = path_.snapshots->List(DeviceId(), "", 1000, "");
  if (!Expect(listed.status(), {}, "list snapshots")) return;
  for (const v1::Snapshot& each : listed->items) {
    if (snapshots.contains(each.id())) continue;
    const auto bytes = path_.ReadBack(each.id());
    if (!bytes.ok() && !model_.ever_flipped)
      Violation(fmt::format("snapshot {} is listed and does not restore: {}", each.id(), bytes.status().ToString()));
  }
}

void World::Small() {
  const unsigned what = Random(21);
  if (what < 11) return StepUpload();
  if (what < 15) return StepReader();
  if (what < 17) return Delete();
  if (what < 18) return TakeBack();
  if (what < 19) return Pin();
  if (what < 20) return EndUpload(static_cast<int>(Random(model_.devices.size())));
  Heal();
}

void World::Act(int actions) {
  for (int i = 0; i < actions && model_.violation.empty(); ++i) {
    const unsigned what = Random(100);
    if (what < 70) {
      Small();
    } else if (what < 80) {
      Prune();
    } else if (what < 84) {
      Retain();
    } else if (what < 88) {
      Scrub();
    } else if (what < 89) {
      Flip();
    } else if (what < 95) {
      const int64_t by = Random(4) == 0 ? int64_t{3'600'000} * (1 + Random(200)) : 1000 * (1 + int64_t{Random(600)});
      tell_(fmt::format("clock {}", by));
      clock_.Advance(std::chrono::milliseconds(by));
    } else if (what < 96) {
      Random(2) == 0 ? BackUpCatalog() : SetQuota();
    } else if (what < 97) {
      Expect(path_.ingest->Maintain(), {}, "remove expired sessions");
    } else if (what < 98) {
      if (Random(2) == 0) Forget(static_cast<int>(Random(model_.devices.size())));
    } else if (const std::string id = Pick({Fate::kAlive}); !id.empty()) {
      Check(id, model_.snapshots.at(id));
    }
  }
}

}  // namespace litefleet::model
