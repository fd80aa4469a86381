#include "agent/spool/drain.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "agent/spool/newest_ledger.h"
#include "agent/upload/page_gatherer.h"
#include "common/base/crash_point.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::spool {
namespace {

// A chunk as it is stored. Small ones that are raw gain nothing from compression.
struct StoredPayload final : upload::PackablePayload {
  explicit StoredPayload(StoredChunk stored) : chunk(std::move(stored)) {}
  absl::StatusOr<upload::PackedChunk> Pack(format::ChunkCompressor&) override { return upload::PackedChunk{chunk.codec, chunk.data}; }
  absl::StatusOr<std::string> Raw() const override {
    if (chunk.codec == format::Codec::kRaw) return chunk.data;
    Bytes raw;
    LF_RETURN_IF_ERROR(format::ChunkDecompressor().Decompress(chunk.codec, AsBytes(chunk.data), chunk.raw_bytes, raw));
    return std::string(AsText(raw));
  }
  const StoredChunk chunk;
};

class SpooledFeed final : public upload::ChunkFeed {
 public:
  SpooledFeed(std::unique_ptr<SpoolFileReader> file, SystemTime taken_at) : file_(std::move(file)), taken_at_(taken_at) {}
  absl::StatusOr<std::optional<upload::Chunk>> Next() override {
    LF_ASSIGN_OR_RETURN(std::optional<StoredChunk> stored, file_->Next());
    if (!stored) return std::nullopt;
    LF_RETURN_IF_ERROR(file_->Unpack(*stored, pages_, nullptr));
    read_bytes_ = static_cast<int64_t>(stored->last_page()) * file_->header().page_size();
    upload::Chunk chunk;
    chunk.name = stored->name;
    chunk.runs = stored->runs;
    chunk.raw_bytes = stored->raw_bytes;
    chunk.payload = std::make_shared<StoredPayload>(*std::move(stored));
    return chunk;
  }
  v1::UploadCommit Commit() override {
    v1::UploadCommit commit = file_->commit();
    *commit.mutable_taken_at() = ToProtoTime(taken_at_);
    return commit;
  }
  std::chrono::nanoseconds pinned_since_boot() const override { return std::chrono::nanoseconds(file_->header().taken_since_boot_ns()); }
  uint32_t page_size() const override { return file_->header().page_size(); }
  uint32_t page_count() const override { return file_->header().page_count(); }
  int64_t read_bytes() const override { return read_bytes_; }

 private:
  const std::unique_ptr<SpoolFileReader> file_;
  const SystemTime taken_at_;
  Bytes pages_;
  int64_t read_bytes_ = 0;
};

class Draining {
 public:
  Draining(SnapshotSpool& spool, const DrainJob& job, const upload::BackupOptions& options, upload::UploadTransport& transport,
           RateLimit& rate, const CancelToken& cancel)
      : spool_(spool), job_(job), options_(options), transport_(transport), rate_(rate), cancel_(cancel) {}

  absl::Status Run() {
    for (;;) {
      const std::optional<SpooledSnapshot> oldest = spool_.Oldest(job_.database);
      if (!oldest.has_value() || (job_.until.has_value() && std::chrono::steady_clock::now() >= *job_.until)) return absl::OkStatus();
      LF_RETURN_IF_ERROR(One(*oldest));
    }
  }

 private:
  absl::Status One(const SpooledSnapshot& snapshot) {
    const storage::v1::SpoolState state = spool_.ReadState(job_.database);
    const SystemTime taken_at = spool_.TakenAt(snapshot, FromUnixMillis(state.acknowledged_taken_at_ms()));
    if (snapshot.id() == state.acknowledged_spooled_id()) return Acknowledged(snapshot, taken_at, Known(snapshot, state), state);
    upload::SpooledSource source;
    source.method = static_cast<v1::Method>(snapshot.header.method());
    source.base_root_digest = snapshot.header.base_root_digest();
    source.base_snapshot_id = snapshot.header.base_snapshot_id();
    if (!snapshot.header.base_spooled_id().empty()) {
      if (state.acknowledged_spooled_id() != snapshot.header.base_spooled_id())
        return GiveUp(snapshot, kBaseGone, "what a spooled snapshot is built on is not known any more", true);
      source.base_snapshot_id = state.acknowledged_snapshot_id();
    }
    // Over a boot nobody knows how long ago that was.
    source.knows_age = spool_.KnowsAge(snapshot);
    source.open = [&]() -> absl::StatusOr<std::unique_ptr<upload::ChunkFeed>> {
      LF_ASSIGN_OR_RETURN(std::unique_ptr<SpoolFileReader> file, SpoolFileReader::Open(snapshot.path));
      return std::make_unique<SpooledFeed>(std::move(file), taken_at);
    };
    upload::BackupJob backup;
    // A sync of continuous capture is no operation.
    if (source.method != v1::METHOD_CONTINUOUS) backup.operation_id = snapshot.header.operation_id();
    backup.session_id = snapshot.id();
    backup.database = job_.database;
    backup.timeline = snapshot.header.timeline();
    backup.give_up_at = job_.give_up_at;
    backup.offline_after = job_.offline_after;
    backup.once = job_.until.has_value();
    backup.waits = job_.waits;
    backup.paused = job_.paused;
    backup.spooled = &source;
    const upload::BackupOutcome outcome =
        upload::RunBackup(backup, options_, transport_, rate_, spool_.clock(), cancel_, [&](const v1::Progress& progress) {
          if (job_.progress) job_.progress(snapshot, progress);
        });
    const std::string reason = ReasonOf(outcome.status);
    if (reason == "SPOOLED_DAMAGED") return GiveUp(snapshot, kSpooledDamaged, MessageOf(outcome.status), true);
    if (reason == "BASE_GONE" || reason == "ROOT_MISMATCH")
      return GiveUp(snapshot, kBaseGone, "the controller does not have the snapshot any more that a spooled one is built on", true);
    if (reason == "MANIFEST_INCOMPLETE" || reason == "DELTA_TOO_LARGE")
      return GiveUp(snapshot, kBaseGone, "the controller cannot put a spooled snapshot together with what it is built on", true);
    LF_RETURN_IF_ERROR(outcome.status);
    LF_CRASH_POINT("spooled.acknowledged");
    return Acknowledged(snapshot, taken_at, outcome, state);
  }

  // Of one that was acknowledged before, and what follows that was cut.
  static upload::BackupOutcome Known(const SpooledSnapshot& snapshot, const storage::v1::SpoolState& state) {
    upload::BackupOutcome outcome;
    outcome.snapshot_id = state.acknowledged_snapshot_id();
    const auto bytes = static_cast<int64_t>(format::DatabaseBytes(snapshot.header.page_size(), snapshot.header.page_count()));
    outcome.progress.set_total_bytes(bytes);
    outcome.progress.set_done_bytes(bytes);
    outcome.progress.set_phase("done");
    return outcome;
  }

  absl::Status Acknowledged(const SpooledSnapshot& snapshot, SystemTime taken_at, const upload::BackupOutcome& outcome,
                            storage::v1::SpoolState state) {
    state.set_acknowledged_spooled_id(snapshot.id());
    state.set_acknowledged_snapshot_id(outcome.snapshot_id);
    // By a clock that is not set yet it may be before 1970: 0 says that it is not known.
    state.set_acknowledged_taken_at_ms(std::max<int64_t>(0, ToUnixMillis(taken_at)));
    LF_RETURN_IF_ERROR(spool_.WriteState(job_.database, state));
    if (job_.acknowledged) LF_RETURN_IF_ERROR(job_.acknowledged(snapshot, outcome.snapshot_id, outcome.progress));
    LF_CRASH_POINT("spooled.recorded");
    AdvanceControllers(snapshot, outcome.snapshot_id);
    LF_CRASH_POINT("spooled.ledger");
    LF_RETURN_IF_ERROR(spool_.Remove(snapshot));
    LF_CRASH_POINT("spooled.removed");
    return spool_.EndGapsBefore(job_.database, snapshot);
  }

  // A ledger that cannot be advanced costs a comparison with the controller, later, and nothing else.
  void AdvanceControllers(const SpooledSnapshot& snapshot, const std::string& id) {
    if (job_.ledger == nullptr) return;
    const auto& ledger = job_.ledger->state();
    if (ledger.has_value() && ledger->snapshot_id == id) return;
    const bool fits = snapshot.full() || (ledger.has_value() && ledger->root.AsString() == snapshot.header.base_root_digest() &&
                                          ledger->page_size == snapshot.header.page_size());
    const absl::Status advanced = fits ? AdvanceLedger(*job_.ledger, snapshot, id) : job_.ledger->Remove();
    if (advanced.ok()) return;
    spdlog::warn("{}: the ledger could not be written, the next backup compares with the controller: {}", job_.database,
                 MessageOf(advanced));
    job_.ledger->Remove().IgnoreError();
  }

  absl::Status GiveUp(const SpooledSnapshot& snapshot, std::string_view reason, const std::string& message, bool keep) {
    spdlog::error("{}: spooled snapshots cannot be uploaded: {}", job_.database, message);
    LF_RETURN_IF_ERROR(spool_.GiveUp(job_.database, snapshot.number, reason, message, keep));
    if (job_.given_up) job_.given_up(reason);
    return absl::OkStatus();
  }

  SnapshotSpool& spool_;
  const DrainJob& job_;
  const upload::BackupOptions& options_;
  upload::UploadTransport& transport_;
  RateLimit& rate_;
  const CancelToken& cancel_;
};

}  // namespace

absl::Status Drain(SnapshotSpool& spool, const DrainJob& job, const upload::BackupOptions& options, upload::UploadTransport& transport,
                   RateLimit& rate, const CancelToken& cancel) {
  return Draining(spool, job, options, transport, rate, cancel).Run();
}

}  // namespace litefleet::spool
