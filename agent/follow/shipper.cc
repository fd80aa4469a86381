#include "agent/follow/shipper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/capture/precopy_source.h"
#include "common/base/crash_point.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kSyncLedger{5};  // while syncs go well

google::protobuf::Duration Since(std::chrono::nanoseconds then, std::chrono::nanoseconds now) {
  return ToProtoDuration(std::chrono::duration_cast<milliseconds>(now - then));
}

absl::Status CheckFiles(const Shipper::Comparison& comparison) {
  if (comparison.same_files()) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "DATABASE_REPLACED",
               fmt::format("another file is at {} now, or another WAL: what was read is of two", comparison.source.path));
}

// Tells of what is read, and that it was of one file.
class WatchedSource final : public capture::PageSource {
 public:
  WatchedSource(std::unique_ptr<capture::PageSource> source, const Shipper::Comparison& comparison)
      : source_(std::move(source)), comparison_(comparison) {}
  const capture::SourceInfo& info() const override { return source_->info(); }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override {
    LF_ASSIGN_OR_RETURN(std::optional<capture::ExtentPages> extent, source_->Next());
    comparison_.tick(true);
    if (!extent.has_value()) LF_RETURN_IF_ERROR(CheckFiles(comparison_));
    return extent;
  }
  absl::Status Close() override { return source_->Close(); }
  const std::string& damage() const override { return source_->damage(); }
  std::chrono::nanoseconds pinned_for() const override { return source_->pinned_for(); }

 private:
  const std::unique_ptr<capture::PageSource> source_;
  const Shipper::Comparison& comparison_;
};

}  // namespace

Shipper::Shipper(ShipperOptions options, upload::UploadTransport& transport, RateLimit& rate, SavedTurns& turns, const Clock& clock)
    : options_(std::move(options)), transport_(transport), rate_(rate), turns_(turns), clock_(clock), names_(options_.names_file) {}

bool Shipper::Connected() const { return transport_.WaitConnected(std::chrono::steady_clock::now(), CancelToken()).ok(); }

absl::Status Shipper::OpenLedger() {
  if (Spooled()) return OpenNewest();
  if (ledger_ != nullptr && !is_newest_) return absl::OkStatus();
  CloseLedger();
  LF_ASSIGN_OR_RETURN(ledger_, ledger::Ledger::Open(options_.ledger_file, options_.ledger_identity));
  return absl::OkStatus();
}

void Shipper::CloseLedger() {
  ledger_.reset();
  is_newest_ = false;
}

absl::StatusOr<std::string> Shipper::Known() {
  // Without a look at the ledger: somebody else may have the spool.
  if (Spooled()) return options_.snapshots->Newest(options_.database).value_or(spool::SpooledSnapshot()).id();
  LF_RETURN_IF_ERROR(OpenLedger());
  return ledger_->state().has_value() ? ledger_->state()->snapshot_id : std::string();
}

void Shipper::SyncLedger() {
  if (ledger_ == nullptr || is_newest_) return;  // the spool's is made anew of its files
  sync_at_ = clock_.Steady() + kSyncLedger;
  if (const absl::Status synced = ledger_->Sync(); !synced.ok())
    spdlog::warn("{}: what was acknowledged could not be made durable: {}", options_.database, MessageOf(synced));
}

void Shipper::Rest() {
  SyncLedger();
  CloseLedger();
  names_.Rest();
}

bool Shipper::IsDoubt(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsDataLoss(status) || reason == "FRAME_DAMAGED" || reason == "LEDGER_LOST" || reason == spool::kSpoolExpired ||
         reason == "BASE_GONE" || reason == "ROOT_MISMATCH" || reason == "MANIFEST_INCOMPLETE" || reason == "DELTA_TOO_LARGE" ||
         reason == "OFFER_INVALID" || reason == "CHUNK_MISSING";
}

bool Shipper::IsBaseLost(std::string_view reason) {
  return reason == "SNAPSHOT_GONE" || reason == "BASE_GONE" || reason == "ROOT_MISMATCH" || reason == "MANIFEST_INCOMPLETE";
}

void Shipper::DropLedger() {
  CloseLedger();
  dropped_beside_drain_ = draining_;
  const auto controllers = ledger::Ledger::Open(options_.ledger_file, options_.ledger_identity);
  const absl::Status removed = controllers.ok() ? (*controllers)->Remove() : controllers.status();
  if (!removed.ok()) spdlog::warn("{}: a ledger that is believed no more could not be removed: {}", options_.database, MessageOf(removed));
}

absl::Status Shipper::CheckLedger(const Stretch& stretch) {
  LF_RETURN_IF_ERROR(OpenLedger());
  return CheckState(stretch);
}

absl::Status Shipper::CheckState(const Stretch& stretch) const {
  if (ledger_->state().has_value() && ledger_->state()->page_size == stretch.to.page_size) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "LEDGER_LOST", fmt::format("{}: the ledger is not that of the database", options_.database));
}

absl::StatusOr<v1::UploadCommitted> Shipper::Send(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                                  const CancelToken& cancel, const std::function<void(bool)>& progress) {
  const SteadyTime began = clock_.Steady();
  v1::UploadBegin begin;
  begin.set_session_id(session_id);
  begin.set_database(options_.database);
  begin.set_timeline(timeline);
  begin.set_method(v1::METHOD_CONTINUOUS);
  begin.set_page_size(feed.page_size());
  begin.set_page_count(feed.page_count());
  begin.set_base_snapshot_id(ledger_->state()->snapshot_id);
  begin.set_base_root_digest(std::string(ledger_->state()->root.AsString()));
  const auto complete = [&](v1::UploadCommit& commit) {
    committing_ = true;
    *commit.mutable_age() = Since(stretch.since_boot, clock_.SinceBoot());
    *commit.mutable_duration() = ToProtoDuration(std::chrono::duration_cast<milliseconds>(clock_.Steady() - began));
    *commit.mutable_pinned() = commit.duration();
  };
  upload::AttemptOptions attempt = options_.backup.attempt;
  attempt.compressors = 1;
  attempt.compression_level = options_.backup.changes_level;
  attempt.clock = &clock_;
  upload::UploadSession::Counts counts;
  int64_t moved = 0;
  const auto report = [&](const upload::UploadSession::Counts& now) {
    const int64_t total = now.wire_bytes + now.durable_bytes + static_cast<int64_t>(now.answered_chunks);
    // What the own rate holds back does not stand still.
    progress(std::exchange(moved, total) != total || now.held_back);
  };
  absl::StatusOr<v1::UploadCommitted> committed =
      upload::Attempt::Run(attempt, transport_, begin, feed, complete, rate_, cancel, report, counts);
  if (durable_.first != session_id) durable_ = {session_id, 0};
  brought_something_ = counts.durable_chunks > durable_.second;
  durable_.second = std::max(durable_.second, counts.durable_chunks);
  return committed;
}

absl::Status Shipper::Advance(const std::string& snapshot_id, const format::RootDigest& root) {
  LF_CRASH_POINT("follow.acknowledged");
  if (const absl::Status advanced = ledger_->Commit(snapshot_id, root, /*lazily=*/true); !advanced.ok()) {
    ledger_->Remove().IgnoreError();
    return Error(absl::StatusCode::kAborted, "LEDGER_LOST", fmt::format("the ledger could not be written: {}", MessageOf(advanced)));
  }
  names_.Advanced(snapshot_id);
  LF_CRASH_POINT("follow.advanced");
  // What a power cut takes away of it is what the next outage's states are built on, and the controller thins it out meanwhile.
  if (clock_.Steady() >= sync_at_) SyncLedger();
  return absl::OkStatus();
}

absl::StatusOr<Shipper::Shipped> Shipper::ShipFeed(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                                   const CancelToken& cancel, const std::function<void(bool)>& progress) {
  committing_ = brought_something_ = false;
  LF_ASSIGN_OR_RETURN(const bool changed, feed.Begin());
  if (!changed) return Shipped{{}, feed.commits()};
  LF_ASSIGN_OR_RETURN(const v1::UploadCommitted committed, Send(session_id, timeline, stretch, feed, cancel, progress));
  if (!committed.created()) {
    // Of an attempt before, whose answer was lost: it was the same stretch. What the ledger is to learn of it is read to the end.
    for (;;) {
      LF_ASSIGN_OR_RETURN(const std::optional<upload::Chunk> chunk, feed.Next());
      if (!chunk.has_value()) break;
    }
  }
  LF_RETURN_IF_ERROR(Advance(committed.snapshot_id(), feed.root()));
  EndSpoolGaps(stretch.taken_at);
  return Shipped{committed.snapshot_id(), feed.commits()};
}

absl::StatusOr<Shipper::Shipped> Shipper::Ship(const std::string& session_id, uint64_t timeline, const Stretch& stretch,
                                               capture::UserDatabase& database, const CancelToken& cancel,
                                               const std::function<void(bool)>& progress) {
  LF_RETURN_IF_ERROR(CheckLedger(stretch));
  WalFeed feed(stretch, database, *ledger_, names_);
  return ShipFeed(session_id, timeline, stretch, feed, cancel, progress);
}

absl::StatusOr<bool> Shipper::Save(const Stretch& stretch, capture::UserDatabase& database) {
  return SaveBy(&SavedPages::Add, stretch, database);
}

absl::StatusOr<bool> Shipper::SaveEnd(const Stretch& stretch, capture::UserDatabase& database) {
  return SaveBy(&SavedPages::AddEnd, stretch, database);
}

absl::StatusOr<bool> Shipper::SaveBy(absl::StatusOr<bool> (SavedPages::*add)(const Stretch&, capture::UserDatabase&),
                                     const Stretch& stretch, capture::UserDatabase& database) {
  LF_RETURN_IF_ERROR(CheckLedger(stretch));
  const bool first = !saved_.has_value();
  if (first) {
    std::unique_ptr<SavedTurns::Turn> turn = turns_.Take();
    if (turn == nullptr) return false;
    saved_.emplace(std::move(turn), stretch, SavedPages(ledger_->state()->page_count, kSavedBytes));
  }
  const absl::StatusOr<bool> added = (saved_->pages.*add)(stretch, database);
  if (!added.ok() || (first && !*added)) saved_.reset();
  if (added.ok() && *added) {
    const capture::WalPlace from = saved_->stretch.from;
    saved_->stretch = stretch;
    saved_->stretch.from = from;
  }
  return added;
}

absl::StatusOr<Shipper::Shipped> Shipper::SendSaved(const std::string& session_id, uint64_t timeline, const CancelToken& cancel,
                                                    const std::function<void(bool)>& progress) {
  LF_RETURN_IF_ERROR(CheckLedger(saved_->stretch));
  WalFeed feed(saved_->stretch, saved_->pages, *ledger_, names_);
  LF_ASSIGN_OR_RETURN(const Shipped shipped, ShipFeed(session_id, timeline, saved_->stretch, feed, cancel, progress));
  saved_.reset();
  return shipped;
}

absl::StatusOr<std::unique_ptr<capture::PageSource>> Shipper::OpenCompared(const Comparison& comparison,
                                                                           const capture::OnlineOptions& source, Compared& compared) {
  LF_RETURN_IF_ERROR(CheckFiles(comparison));
  LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> opened, capture::OpenOnlineSource(source));
  if (!opened->info().wal) return capture::NotInWalMode(source.path);
  LF_RETURN_IF_ERROR(CheckFiles(comparison));
  // Of a hold beside it its connection shares the wal-index.
  if (const auto& state = opened->info().wal_state; state.has_value()) compared.place = capture::PlaceOf(*state);
  compared.taken = {opened->info().pinned_at, opened->info().pinned_since_boot};
  return std::make_unique<WatchedSource>(std::move(opened), comparison);
}

absl::StatusOr<Shipper::Compared> Shipper::Compare(const Comparison& comparison, const CancelToken& cancel) {
  LF_RETURN_IF_ERROR(OpenLedger());
  if (comparison.fresh_base) LF_RETURN_IF_ERROR(ledger_->Remove());
  Compared compared;
  upload::BackupJob job;
  job.method = v1::METHOD_CONTINUOUS;
  job.session_id = comparison.session_id;
  job.database = options_.database;
  job.timeline = comparison.timeline;
  job.spool_file = options_.spool_file;
  job.ledger = ledger_.get();
  job.give_up_at = comparison.give_up_at;
  capture::OnlineOptions source = comparison.source;
  source.wal_only = true;
  source.cancelled = [&] {
    const bool goes_on = comparison.tick(false);
    return !goes_on || cancel.cancelled();
  };
  job.open = [&] { return OpenCompared(comparison, source, compared); };
  job.open_precopy = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    LF_RETURN_IF_ERROR(CheckFiles(comparison));
    LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> opened, capture::OpenPrecopySource(source));
    return std::make_unique<WatchedSource>(std::move(opened), comparison);
  };
  int64_t sent = 0;
  const upload::BackupOutcome outcome = upload::RunBackup(
      job, options_.backup, transport_, rate_, clock_, cancel,
      [&](const v1::Progress& progress) { comparison.tick(std::exchange(sent, progress.wire_bytes()) != progress.wire_bytes()); });
  if (!outcome.ledger_note.empty()) spdlog::info("{}: {}", options_.database, outcome.ledger_note);
  LF_RETURN_IF_ERROR(outcome.status);
  LF_CRASH_POINT("follow.compared");
  compared.snapshot_id = outcome.snapshot_id;
  // The answer to an earlier commit of this session does not advance the ledger.
  compared.current = ledger_->state().has_value() && ledger_->state()->snapshot_id == outcome.snapshot_id;
  if (!compared.current) compared.place.reset();
  if (compared.current) EndSpoolGaps(compared.taken.at);
  // A WAL that nothing was ever written to does not know it.
  if (compared.place.has_value() && compared.place->frame == 0) compared.place->page_size = ledger_->state()->page_size;
  return compared;
}

absl::StatusOr<std::unique_ptr<capture::PageSource>> Shipper::PinForProof(const capture::OnlineOptions& source,
                                                                          const std::function<bool()>& stop) {
  capture::OnlineOptions options = source;
  options.wal_only = true;
  options.cancelled = stop;
  return capture::OpenOnlineSource(options);
}

absl::StatusOr<std::optional<Shipper::Proof>> Shipper::Prove(capture::PageSource& pages) {
  LF_RETURN_IF_ERROR(OpenLedger());
  if (!ledger_->state().has_value()) return std::nullopt;
  const capture::SourceInfo& info = pages.info();
  Proof proof{ledger_->state()->snapshot_id, ledger_->state()->root, {}, info.page_size, info.page_count};
  format::RootBuilder root(info.page_size, info.page_count);
  std::vector<format::PageDigest> digests;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::optional<capture::ExtentPages> extent, pages.Next());
    if (!extent.has_value()) break;
    digests.clear();
    format::DigestPages(info.page_size, extent->data, digests);
    root.Add(format::NameChunk(info.page_size, digests));
  }
  proof.read = root.Finish();
  return proof;
}

}  // namespace litefleet::follow
