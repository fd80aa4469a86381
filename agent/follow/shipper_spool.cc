// The part of Shipper that is about the spool: states that cannot be sent now, and their upload.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/follow/shipper.h"
#include "agent/spool/drain.h"
#include "agent/spool/newest_ledger.h"
#include "agent/spool/room.h"
#include "agent/spool/take.h"
#include "agent/upload/page_gatherer.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::follow {
namespace {

// Of all databases; about 700 bytes of memory each.
constexpr uint32_t kMostSpooled = 16384;
constexpr uint32_t kLeastOfOne = 32;
constexpr std::chrono::minutes kExpireAgain{1};

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the sync was cancelled"); }

absl::Status Busy(const std::string& database) {
  return Error(absl::StatusCode::kUnavailable, "SPOOL_BUSY", fmt::format("what is spooled of {} is in use", database));
}

}  // namespace

std::optional<Moment> Shipper::SpooledUntil(SystemTime earliest) const {
  const auto newest = MaySpool() ? options_.snapshots->Newest(options_.database) : std::nullopt;
  if (!newest.has_value()) return std::nullopt;
  return Moment{options_.snapshots->TakenAt(*newest, earliest), newest->taken_since_boot(options_.snapshots->boot_id())};
}

bool Shipper::KnowsNewest() {
  const auto use = Spooled() ? options_.snapshots->TryUse(options_.database) : std::nullopt;
  if (Spooled() && !use.has_value()) return false;
  const absl::Status opened = OpenLedger();
  return opened.ok() && ledger_->state().has_value();
}

absl::Status Shipper::OpenNewest() {
  const std::optional<spool::SpooledSnapshot> newest = options_.snapshots->Newest(options_.database);
  if (ledger_ != nullptr && is_newest_ && newest.has_value() && ledger_->state().has_value() &&
      ledger_->state()->snapshot_id == newest->id())
    return absl::OkStatus();
  std::unique_ptr<ledger::Ledger> controllers = is_newest_ ? nullptr : std::move(ledger_);
  CloseLedger();
  if (controllers == nullptr) {
    LF_ASSIGN_OR_RETURN(controllers, ledger::Ledger::Open(options_.ledger_file, options_.ledger_identity));
  }
  LF_ASSIGN_OR_RETURN(
      ledger_, spool::OpenNewestLedger(*options_.snapshots, options_.database,
                                       {controllers.get(), options_.ledger_file, options_.backup.spool.reserve}, options_.ledger_identity));
  is_newest_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Shipper::Shipped> Shipper::Spool(const Waiting& waiting, const Stretch& stretch, capture::UserDatabase& database,
                                                const CancelToken& cancel, const std::function<void(bool)>& progress) {
  const auto make = [&] {
    auto feed = std::make_unique<WalFeed>(stretch, database, *ledger_, names_, WalFeed::Order::kAscending);
    feed->OnBatch([&] {
      progress(true);
      return cancel.cancelled() ? Cancelled() : absl::OkStatus();
    });
    return feed;
  };
  return SpoolFeed(waiting, stretch, make, cancel, progress);
}

absl::StatusOr<Shipper::Shipped> Shipper::SpoolSaved(const Waiting& waiting, const CancelToken& cancel,
                                                     const std::function<void(bool)>& progress) {
  LF_ASSIGN_OR_RETURN(const Shipped shipped,
                      SpoolFeed(
                          waiting, saved_->stretch,
                          [&] { return std::make_unique<WalFeed>(saved_->stretch, saved_->pages, *ledger_, names_); }, cancel, progress));
  saved_.reset();
  return shipped;
}

absl::StatusOr<Shipper::Shipped> Shipper::SpoolFeed(const Waiting& waiting, const Stretch& stretch,
                                                    const std::function<std::unique_ptr<WalFeed>()>& make, const CancelToken& cancel,
                                                    const std::function<void(bool)>& progress) {
  committing_ = false;
  spool::SnapshotSpool& snapshots = *options_.snapshots;
  const std::string& name = options_.database;
  const auto use = draining_ ? std::nullopt : snapshots.TryUse(name);
  if (!draining_ && !use.has_value()) return Busy(name);
  const spool::GoesOn goes_on = [&] {
    progress(false);
    return cancel.cancelled() ? Cancelled() : absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(ExpireSpooled(goes_on));
  LF_RETURN_IF_ERROR(BoundCount(goes_on));
  const auto end = absl::MakeCleanup([&] {
    if (Spooled()) return;
    CloseLedger();
    snapshots.RemoveLedger(name).IgnoreError();  // of the next first one it is made anew
  });
  LF_RETURN_IF_ERROR(OpenNewest());
  LF_RETURN_IF_ERROR(CheckState(stretch));
  LF_RETURN_IF_ERROR(NoteBase(waiting.shipped_until));
  for (;;) {
    const auto all = static_cast<uint64_t>(snapshots.Total().bytes + snapshots.AsideBytes());
    const std::unique_ptr<WalFeed> feed = make();
    const auto spooled = WriteFeed(waiting, stretch, *feed,
                                   options_.backup.spool.max_bytes - std::min(all, options_.backup.spool.max_bytes), cancel, progress);
    if (ReasonOf(spooled.status()) != spool::kSpoolFull) return spooled;
    spool::RoomJob room;
    room.database = name;
    room.reserve = options_.backup.spool.reserve;
    room.keep_oldest = draining_;
    room.goes_on = goes_on;
    LF_ASSIGN_OR_RETURN(const spool::Room made, spool::MakeRoom(snapshots, room, cancel));
    // What is being uploaded makes room.
    if (made == spool::Room::kNone)
      return draining_ ? Error(absl::StatusCode::kUnavailable, spool::kSpoolFull, MessageOf(spooled.status())) : spooled.status();
  }
}

absl::StatusOr<Shipper::Shipped> Shipper::WriteFeed(const Waiting& waiting, const Stretch& stretch, WalFeed& feed, uint64_t max_bytes,
                                                    const CancelToken& cancel, const std::function<void(bool)>& progress) {
  spool::SnapshotSpool& snapshots = *options_.snapshots;
  LF_ASSIGN_OR_RETURN(const bool changed, feed.Begin());
  if (!changed) return Shipped{{}, feed.commits()};
  const storage::v1::SpooledHeader header = HeaderOf(waiting, stretch);
  LF_ASSIGN_OR_RETURN(const auto writer, snapshots.Begin(header, {.max_bytes = max_bytes, .reserve = options_.backup.spool.reserve}));
  format::ChunkCompressor compressor(options_.backup.changes_level);
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    LF_ASSIGN_OR_RETURN(const std::optional<upload::Chunk> chunk, feed.Next());
    if (!chunk.has_value()) break;
    spool::StoredChunk stored{.name = chunk->name, .runs = chunk->runs, .raw_bytes = chunk->raw_bytes};
    LF_ASSIGN_OR_RETURN(upload::PackedChunk packed, static_cast<upload::PackablePayload&>(*chunk->payload).Pack(compressor));
    stored.codec = packed.codec;
    stored.data = std::move(packed.data);
    LF_RETURN_IF_ERROR(writer->Add(stored));
    progress(true);
  }
  LF_RETURN_IF_ERROR(writer->Finish(feed.Commit(), ToUnixMillis(clock_.Now())));
  LF_CRASH_POINT("spooled.renamed");
  LF_RETURN_IF_ERROR(snapshots.Added(options_.database));
  if (const absl::Status advanced = ledger_->Commit(header.session_id(), feed.root(), /*lazily=*/true); advanced.ok()) {
    names_.Advanced(header.session_id());
  } else {
    // It is made anew from the files.
    spdlog::warn("{}: the ledger of the spool could not be written: {}", options_.database, MessageOf(advanced));
    ledger_->Remove().IgnoreError();
    CloseLedger();
  }
  LF_CRASH_POINT("spooled.taken");
  EndSpoolGaps(stretch.taken_at);
  return Shipped{header.session_id(), feed.commits()};
}

storage::v1::SpooledHeader Shipper::HeaderOf(const Waiting& waiting, const Stretch& stretch) const {
  storage::v1::SpooledHeader header;
  header.set_session_id(waiting.session_id);
  header.set_operation_id(waiting.session_id);  // there has to be one; nobody hears of it
  header.set_database(options_.database);
  header.set_timeline(waiting.timeline);
  header.set_method(v1::METHOD_CONTINUOUS);
  header.set_page_size(stretch.to.page_size);
  header.set_page_count(stretch.to.page_count);
  header.set_taken_at_ms(ToUnixMillis(stretch.taken_at));
  header.set_boot_id(options_.snapshots->boot_id());
  header.set_taken_since_boot_ns(stretch.since_boot.count());
  header.set_started_at_ms(header.taken_at_ms());
  const std::optional<spool::SpooledSnapshot> newest = options_.snapshots->Newest(options_.database);
  header.set_base_taken_at_ms(newest.has_value() ? newest->header.taken_at_ms() : ToUnixMillis(waiting.shipped_until));
  (newest.has_value() ? *header.mutable_base_spooled_id() : *header.mutable_base_snapshot_id()) = ledger_->state()->snapshot_id;
  header.set_base_root_digest(std::string(ledger_->state()->root.AsString()));
  return header;
}

absl::Status Shipper::NoteBase(SystemTime shipped_until) const {
  if (Spooled() || shipped_until == SystemTime{}) return absl::OkStatus();
  storage::v1::SpoolState state = options_.snapshots->ReadState(options_.database);
  if (state.acknowledged_taken_at_ms() >= ToUnixMillis(shipped_until)) return absl::OkStatus();
  state.set_acknowledged_taken_at_ms(ToUnixMillis(shipped_until));
  return options_.snapshots->WriteState(options_.database, state);
}

absl::Status Shipper::BoundCount(const spool::GoesOn& goes_on) {
  spool::SnapshotSpool& snapshots = *options_.snapshots;
  const auto databases = static_cast<uint32_t>(std::max<size_t>(1, snapshots.Databases().size()));
  const uint32_t most = std::min(std::max(kMostSpooled / databases, kLeastOfOne), options_.most_spooled);
  while (snapshots.UsageOf(options_.database).snapshots >= most) {
    const auto merged =
        snapshots.MergeSome(options_.database, spool::kSpoolFull, options_.backup.spool.reserve, spool::kMergeLevel, draining_, goes_on);
    if (merged.ok() && !*merged) break;
    if (merged.ok()) continue;
    if (absl::IsCancelled(merged.status())) return merged.status();
    if (snapshots.UsageOf(options_.database).snapshots >= 2 * most) return merged.status();
    spdlog::warn("{}: spooled snapshots could not be merged: {}", options_.database, MessageOf(merged.status()));
    break;
  }
  return absl::OkStatus();
}

absl::Status Shipper::ExpireSpooled(const spool::GoesOn& goes_on) {
  if (draining_ || clock_.Steady() < expire_at_ || !Spooled()) return absl::OkStatus();
  const absl::Status expired =
      options_.snapshots->Expire(options_.database, options_.spool_age, options_.backup.spool.reserve, spool::kMergeLevel, goes_on);
  if (!absl::IsCancelled(expired)) expire_at_ = clock_.Steady() + kExpireAgain;
  LF_RETURN_IF_ERROR(expired);
  if (Spooled()) return absl::OkStatus();
  spool_gaps_ = true;
  CloseLedger();
  return Error(absl::StatusCode::kAborted, spool::kSpoolExpired, "what was spooled is older than `[limits] spool_age` and was dropped");
}

void Shipper::KeepSpoolSmall(const std::function<bool()>& goes_on) {
  const auto use = Spooled() ? options_.snapshots->TryUse(options_.database) : std::nullopt;
  if (!use.has_value()) return;
  const spool::GoesOn or_cancelled = [&] { return goes_on() ? absl::OkStatus() : Cancelled(); };
  absl::Status status = ExpireSpooled(or_cancelled);
  // What is dropped is what the database is compared with no more, and that is all.
  if (ReasonOf(status) == spool::kSpoolExpired) return;
  if (status.ok()) status = BoundCount(or_cancelled);
  if (!status.ok()) spdlog::info("{}: the spool stays as it is: {}", options_.database, MessageOf(status));
}

void Shipper::EndSpoolGaps(SystemTime at) {
  if (!MaySpool() || !spool_gaps_) return;
  const absl::Status ended = options_.snapshots->EndGaps(options_.database, at);
  spool_gaps_ = !ended.ok();
  if (!ended.ok()) spdlog::error("{}: that a gap has ended could not be written: {}", options_.database, MessageOf(ended));
}

absl::StatusOr<Shipper::Compared> Shipper::CompareSpooled(const Comparison& comparison, const CancelToken& cancel) {
  spool::SnapshotSpool& snapshots = *options_.snapshots;
  const auto use = snapshots.TryUse(options_.database);
  if (!use.has_value()) return Busy(options_.database);
  const spool::GoesOn goes_on = [&] {
    const bool on = comparison.tick(false);
    return on && !cancel.cancelled() ? absl::OkStatus() : Cancelled();
  };
  CloseLedger();
  LF_ASSIGN_OR_RETURN(const auto controllers, ledger::Ledger::Open(options_.ledger_file, options_.ledger_identity));
  LF_RETURN_IF_ERROR(NoteBase(comparison.shipped_until));
  Compared compared;
  capture::OnlineOptions source = comparison.source;
  source.wal_only = true;
  source.cancelled = [&] { return !goes_on().ok(); };
  spool::TakeJob job;
  job.goes_on = goes_on;
  job.database = options_.database;
  job.operation_id = comparison.session_id;
  job.timeline = comparison.timeline;
  job.started_at = clock_.Now();
  job.ledger = controllers.get();
  job.ledger_file = options_.ledger_file;
  job.ledger_identity = options_.ledger_identity;
  job.acknowledged_taken_at_ms = ToUnixMillis(comparison.shipped_until);
  job.method = v1::METHOD_CONTINUOUS;
  job.open = [&] { return OpenCompared(comparison, source, compared); };
  job.spool_bytes = options_.backup.spool.max_bytes;
  job.reserve = options_.backup.spool.reserve;
  job.compression_level = options_.backup.changes_level;
  const spool::Taken taken = spool::Take(snapshots, job, cancel);
  LF_RETURN_IF_ERROR(taken.status);
  LF_CRASH_POINT("follow.compared");
  compared.current = compared.spooled = true;
  LF_RETURN_IF_ERROR(OpenLedger());
  if (compared.place.has_value() && compared.place->frame == 0 && ledger_->state().has_value())
    compared.place->page_size = ledger_->state()->page_size;
  EndSpoolGaps(compared.taken.at);
  return compared;
}

Shipper::Drained Shipper::Drain(std::chrono::milliseconds most, const CancelToken& cancel, const std::function<void(bool moved)>& tick,
                                const std::function<void(const std::string& snapshot_id)>& acknowledged) {
  Drained drained;
  spool::SnapshotSpool& snapshots = *options_.snapshots;
  const auto use = snapshots.TryUse(options_.database);
  if (!use.has_value()) {
    drained.status = Busy(options_.database);
    return drained;
  }
  if (!is_newest_) CloseLedger();  // it is the upload's
  auto controllers = ledger::Ledger::Open(options_.ledger_file, options_.ledger_identity);
  if (!controllers.ok()) spdlog::warn("{}: without a ledger: {}", options_.database, MessageOf(controllers.status()));
  std::string last;
  spool::DrainJob job;
  job.database = options_.database;
  job.ledger = controllers.ok() ? controllers->get() : nullptr;
  job.give_up_at = SteadyTime::max();
  job.until = std::chrono::steady_clock::now() + most;
  job.offline_after = std::chrono::milliseconds(1);
  int64_t sent = 0;
  bool moved = false;
  job.progress = [&](const spool::SpooledSnapshot&, const v1::Progress& progress) {
    moved = std::exchange(sent, progress.wire_bytes()) != progress.wire_bytes() || moved;
  };
  // Asked all the while.
  job.paused = [&] {
    tick(std::exchange(moved, false));
    return false;
  };
  job.acknowledged = [&](const spool::SpooledSnapshot& snapshot, const std::string& id, const v1::Progress&) {
    last = snapshot.id();
    drained.snapshot_id = id;
    drained.taken = {FromUnixMillis(snapshots.ReadState(options_.database).acknowledged_taken_at_ms()),
                     snapshot.taken_since_boot(snapshots.boot_id())};
    ++drained.snapshots;
    acknowledged(id);
    return absl::OkStatus();
  };
  job.given_up = [&](std::string_view reason) {
    drained.given_up = true;
    drained.base_gone = drained.base_gone || reason == spool::kBaseGone;
  };
  upload::BackupOptions options = options_.backup;
  options.attempt.compressors = 1;  // nothing is compressed
  draining_ = true;
  dropped_beside_drain_ = false;
  drained.status = spool::Drain(snapshots, job, options, transport_, rate_, cancel);
  draining_ = false;
  if (dropped_beside_drain_) {
    controllers = absl::CancelledError("");
    DropLedger();
  }
  spool_gaps_ = spool_gaps_ || drained.given_up;
  if (Spooled()) return drained;
  CloseLedger();
  if (!drained.given_up && !last.empty()) names_.Renamed(last, drained.snapshot_id);
  if (controllers.ok()) ledger_ = *std::move(controllers);
  return drained;
}

}  // namespace litefleet::follow
