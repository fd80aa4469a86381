// What devices, operators and the controller's own threads do.
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/store_names.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "tests/model/world.h"

namespace litefleet::model {
namespace {

constexpr int kBeside = 30;  // actions in the middle of a prune or a scrub

}  // namespace

void World::Mutate(int device) {
  std::vector<unsigned> pages = model_.devices[static_cast<size_t>(device)].now.pages;
  const unsigned kinds = Random(6);
  const auto fresh = [this] { return Random(3) == 0 ? Random(50) : random_(); };  // some content is everywhere
  if (kinds == 0 || pages.empty()) {
    for (unsigned i = 1 + Random(150); i > 0; --i) pages.push_back(fresh());
  } else if (kinds == 1) {
    pages.resize(pages.size() - Random(pages.size() / 2 + 1));
  } else if (kinds == 2) {
    const size_t from = Random(pages.size());
    for (size_t at = from; at < std::min(pages.size(), from + 80); ++at) pages[at] = fresh();
  } else if (kinds < 5) {
    for (unsigned i = 1 + Random(12); i > 0; --i) pages[Random(pages.size())] = fresh();
  }
  if (pages.size() > 400) pages.resize(200);
  tell_(fmt::format("now {} {}", device, PagesText(pages)));
}

void World::BeginUpload(int device) {
  const auto at = static_cast<size_t>(device);
  bool resume = !model_.devices[at].session.empty();
  if (resume && Random(5) == 0) {
    tell_(fmt::format("drop {}", device));
    resume = false;
  }
  if (!resume) {
    Mutate(device);
    if (Random(12) == 0) tell_(fmt::format("lose {}", device));
    tell_(fmt::format("begin {} {} {}", device, NewUlid(clock_.Now()), PagesText(model_.devices[at].now.pages)));
  }
  const Device& its = model_.devices[at];
  fakes::PagedWish wish{.session_id = its.session, .database = "main", .compare = Random(6) != 0, .base = {}, .base_state = {}};
  if (!its.base.empty()) {
    wish.base = its.base;
    wish.base_state = its.base_state;
  }
  uploads_[at] = std::make_unique<fakes::PagedUpload>(*path_.ingest, its.id, its.session_state, std::move(wish));
}

void World::StepUpload() {
  const auto device = static_cast<int>(Random(model_.devices.size()));
  const auto at = static_cast<size_t>(device);
  if (uploads_[at] == nullptr) BeginUpload(device);
  fakes::PagedUpload& upload = *uploads_[at];
  for (unsigned steps = 1 + Random(5); steps > 0; --steps) {
    if (upload.Step()) continue;
    if (const std::string id = upload.outcome().snapshot; !id.empty()) {
      tell_(fmt::format("ack {} {}", device, id));
      // Committed long ago, and acknowledged now: a policy may have had its turn.
      if (path_.Count("select count(*) from snapshot where state <> 3 and id = '" + id + "'") == 0) tell_("gone " + id);
    }
    return EndUpload(device);
  }
}

void World::EndUpload(int device) {
  const auto at = static_cast<size_t>(device);
  if (uploads_[at] == nullptr) return;
  uploads_[at]->End();
  const absl::Status status = uploads_[at]->outcome().status;
  uploads_[at].reset();
  // What a session that went away, or damage that was found, tells a device to do again.
  if (!Expect(status, {"SESSION_EXPIRED", "CHUNK_VANISHED", "CHUNK_DAMAGED", "CHUNK_MISSING", "BASE_VANISHED", "QUOTA_EXCEEDED"}, "upload"))
    return;
  if (status.ok()) return;
  if (ReasonOf(status) == "QUOTA_EXCEEDED") {
    if (quota_.bytes == 0 && quota_.snapshots == 0) Violation("an upload was refused by a quota that nobody has set");
    return;  // it tries again
  }
  if (!model_.ever_flipped && ReasonOf(status) != "SESSION_EXPIRED" && ReasonOf(status) != "CHUNK_VANISHED")
    return Violation(fmt::format("upload: {}", status.ToString()));
  if (ReasonOf(status) == "SESSION_EXPIRED" || absl::IsDataLoss(status)) tell_(fmt::format("drop {}", device));
  if (absl::IsDataLoss(status)) tell_(fmt::format("lose {}", device));
}

void World::StepReader() {
  if (readers_.size() < 2) {
    const std::string id = Pick({Fate::kAlive});
    if (id.empty()) return;
    auto reader = path_.readers->Open(SnapshotId(id), {});
    if (reader.ok()) {
      readers_.push_back({.snapshot = id, .reader = *std::move(reader)});
    } else if (!model_.snapshots.at(id).harmed && !Affected(id)) {
      Violation(fmt::format("open snapshot {}: {}", id, reader.status().ToString()));
    }
    return;
  }
  const size_t at = Random(readers_.size());
  for (unsigned steps = 1 + Random(3); steps > 0; --steps) {
    const auto chunk = readers_[at].reader->Next();
    if (chunk.ok() && chunk->has_value()) continue;
    const std::string id = readers_[at].snapshot;
    if (!chunk.ok() && !model_.snapshots.at(id).harmed && !Affected(id))
      Violation(fmt::format("a reader of snapshot {}: {}", id, chunk.status().ToString()));
    readers_.erase(readers_.begin() + static_cast<std::ptrdiff_t>(at));
    return;
  }
}

void World::Delete() {
  const std::string id = Pick({Fate::kAlive});
  if (id.empty()) return;
  tell_("open " + id);
  const absl::Status status = deletions_.Trash(SnapshotId(id), Random(4) != 0, "operator:model", clock_.Now());
  if (!status.ok()) {
    tell_("alive " + id);
    Expect(status, {"SNAPSHOT_PINNED", "NEWEST_CHECKED", "LAST_SNAPSHOT", model_.snapshots.at(id).harmed ? "SNAPSHOT_NOT_FOUND" : ""},
           "delete");
    return;
  }
  if (Expect(marks_.WriteDue(), {}, "write marks")) tell_("gone " + id);
}

void World::TakeBack() {
  const std::string id = Pick({Fate::kGone});
  if (id.empty()) return;
  tell_("open " + id);
  const absl::Status status = deletions_.Restore(SnapshotId(id));
  if (!status.ok()) {
    tell_("gone " + id);
    Expect(status, {"SNAPSHOT_NOT_FOUND"}, "take back");
    return;
  }
  tell_("pin " + id + " 0");
  if (Expect(marks_.WriteDue(), {}, "write marks")) tell_("alive " + id);
}

void World::Pin() {
  const std::string id = Pick({Fate::kAlive});
  if (id.empty() || model_.snapshots.at(id).harmed) return;
  const bool pin = !model_.snapshots.at(id).pinned && Random(2) == 0;
  if (!pin) tell_("pin " + id + " 0");
  catalog::PinLimit limit;
  if (pin && Random(2) == 0) limit.until = clock_.Now() + std::chrono::hours(1 + Random(300));
  if (!Expect(deletions_.SetPinned(SnapshotId(id), pin, limit), {}, "pin")) return;
  if (Expect(marks_.WriteDue(), {}, "write marks") && pin)
    tell_(fmt::format("pin {} 1 {}", id, limit.until.has_value() ? ToUnixMillis(*limit.until) : 0));
}

void World::Prune() {
  if (std::exchange(pruning_now_, true)) return;
  prune::PruneOptions options;
  options.rewrite_percent = static_cast<int>(1 + Random(70));
  if (Random(3) != 0) {
    options.snapshot_grace = options.chunk_grace = std::chrono::milliseconds(0);
    options.sweeps = Random(2);
  }
  options.dry_run = Random(8) == 0;
  const bool cancel = Random(10) == 0;
  int budget = kBeside;
  // It asks at each record of a pack that is rewritten too: a run is cancelled there less often than between two steps.
  const auto report = pruner_.Run(options, clock_.Now(), [&, last = -1.0](std::string_view, double share) mutable -> absl::Status {
    const bool step = std::exchange(last, share) != share;
    if (cancel && Random(step ? 6 : 60) == 0) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the model wants it");
    for (unsigned i = Random(4); i > 0 && --budget >= 0; --i) Random(16) == 0 ? Scrub() : Small();
    if (Random(100) == 0) Forget(static_cast<int>(Random(model_.devices.size())));
    return absl::OkStatus();
  });
  pruning_now_ = false;
  if (!Expect(report.status(), {"CANCELLED"}, "prune") || !report.ok()) return;
  if (report->chunks_rescued() > 0) Violation(fmt::format("prune had put {} chunks in use into the trash", report->chunks_rescued()));
  if (report->packs_damaged() > 0 && !model_.ever_flipped) Violation(fmt::format("prune found {} damaged packs", report->packs_damaged()));
}

void World::Retain() {
  if (pruning_now_) return;
  struct Before {
    std::string id;
    bool newest = false;
  };
  std::vector<Before> before;
  const int64_t now_ms = ToUnixMillis(clock_.Now());
  const auto snapshots = model_.snapshots;
  for (const auto& [id, snapshot] : snapshots) {
    if (snapshot.fate != Fate::kAlive) continue;
    const std::string row = "(select key from snapshot where id = '" + id + "')";
    before.push_back({id, path_.Count("select count(*) from database where newest = " + row) == 1});
    if (!snapshot.PinnedAt(now_ms)) tell_("open " + id);
  }
  const auto totals = retention_.Run(clock_.Now(), [] { return false; });
  if (!Expect(totals.status(), {}, "retention")) return;
  for (const Before& each : before) {
    const bool there = path_.Count("select count(*) from snapshot where state <> 3 and id = '" + each.id + "'") == 1;
    tell_((there ? "alive " : "gone ") + each.id);
    if (there) continue;
    if (snapshots.at(each.id).PinnedAt(now_ms)) Violation("retention dropped a pinned snapshot");
    if (each.newest && !snapshots.at(each.id).harmed) Violation("retention dropped the newest snapshot");
  }
  for (size_t device = 0; device < model_.devices.size(); ++device) {
    // A device that was taken over for one: an operator looks and lets it go.
    if (Random(2) == 0) policies_.Release(model_.devices[device].id, "main").IgnoreError();
  }
}

void World::Scrub() {
  if (std::exchange(scrubbing_now_, true)) return;
  // What comes to be while it runs it need not see.
  const auto snapshots = model_.snapshots;
  const auto flipped = model_.flipped;
  const CancelToken cancel;
  int budget = kBeside;  // what is appended meanwhile is read too
  scrub::Scrubber::Report report;
  const absl::Status status = scrubber_->Run({}, cancel, report, [&](uint64_t, uint64_t) {
    if (Random(4) != 0 || --budget < 0) return;
    Random(10) == 0 ? Prune() : Small();
  });
  scrubbing_now_ = false;
  if (!Expect(status, {}, "scrub") || !status.ok()) return;
  if (report.chunks_quarantined > flipped.size())
    return Violation(fmt::format("scrub quarantined {} chunks, {} were flipped", report.chunks_quarantined, flipped.size()));
  if (report.snapshots_damaged > 0 && !model_.ever_flipped) return Violation("scrub found snapshots damaged in a sound store");
  const auto now = model_.snapshots;
  for (const auto& [id, snapshot] : now) {
    if (!Affected(id)) continue;
    const auto stored = path_.snapshots->Resolve(id);
    if (snapshots.contains(id) && stored.ok() && snapshot.fate == Fate::kAlive && snapshots.at(id).fate == Fate::kAlive &&
        !path_.ReadBack(id).ok() && stored->state() != v1::SNAPSHOT_STATE_DAMAGED) {
      Violation(fmt::format("snapshot {} needs a quarantined chunk and is not marked", id));
    }
    tell_("harm " + id);
  }
  tell_("scrubbed");
  Expect(scrubber_->Heal().status(), {}, "heal");
}

void World::BackUpCatalog() {
  if (Expect(backups_.BackUp(), {}, "back the catalog up")) tell_("counted");
}

void World::SetQuota() {
  quota_ = {};
  if (Random(3) == 0) quota_.bytes = 1 + int64_t{Random(2'000'000)};
  if (Random(3) == 0) quota_.snapshots = 1 + int64_t{Random(6)};
}

void World::Flip() {
  if (pruning_now_ || scrubbing_now_ || Random(3) != 0) return;
  struct Hit {
    std::string name;
    uint64_t pack = 0, offset = 0;
    int64_t bytes = 0;
  } hit;
  Expect(path_.db->Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(sqlite::Statement get, sqlite::Statement::Prepare(db,
                                                                          "select name, pack, offset, stored_bytes from chunk "
                                                                          "where state = 1 and id >= ? order by id limit 1"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, int64_t{Random(60)}).Step());
    if (!found) return absl::OkStatus();
    hit = {.name = ToHex(get.Blob(0)),
           .pack = static_cast<uint64_t>(get.Int(1)),
           .offset = static_cast<uint64_t>(get.Int(2)),
           .bytes = get.Int(3)};
    return absl::OkStatus();
  }),
         {}, "choose a chunk");
  if (hit.name.empty() || hit.bytes == 0) return;
  for (const store::PackInfo& pack : path_.store->Packs()) {
    if (pack.id != hit.pack) continue;
    tell_("flip " + hit.name);
    files_.Flip(directory_ + "/store/packs/" + format::MakePackFileName(pack.id, pack.sealed),
                hit.offset + format::kRecordHeaderBytes + Random(static_cast<size_t>(hit.bytes)));
  }
}

}  // namespace litefleet::model
