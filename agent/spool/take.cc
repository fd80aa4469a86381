#include "agent/spool/take.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/spool/chunk_packer.h"
#include "agent/spool/newest_ledger.h"
#include "agent/spool/room.h"
#include "agent/upload/chunk_feed.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::spool {
namespace {

class Taking {
 public:
  Taking(SnapshotSpool& spool, const TakeJob& job, const CancelToken& cancel) : spool_(spool), job_(job), cancel_(cancel) {}

  Taken Run() {
    taken_.status = Loop();
    ledger_.reset();
    if (spool_.List(job_.database).empty()) spool_.RemoveLedger(job_.database).IgnoreError();
    return std::move(taken_);
  }

 private:
  absl::Status Loop() {
    // Flash is not worn for what did not fit before, in this run or in the one before it: it is counted first. Where nothing is spooled not
    // even the controller's ledger is copied before that.
    bool counts = IsFull();
    const bool known = job_.ledger != nullptr && job_.ledger->state().has_value();
    if (!counts || !known || spool_.Newest(job_.database).has_value()) LF_RETURN_IF_ERROR(OpenLedger());
    for (;;) {
      const SnapshotSpool::Usage own = spool_.UsageOf(job_.database);
      const auto others = static_cast<uint64_t>(spool_.Total().bytes - own.bytes + spool_.AsideBytes());
      const uint64_t room = job_.spool_bytes - std::min(job_.spool_bytes, others);
      const uint64_t left = room - std::min(room, static_cast<uint64_t>(own.bytes));
      absl::Status status = counts ? Count(ledger_ != nullptr ? *ledger_ : *job_.ledger, left, false) : absl::OkStatus();
      if (status.ok() && ledger_ == nullptr) status = OpenLedger();
      if (status.ok()) status = Write(*ledger_, {.max_bytes = left, .reserve = job_.reserve}, false);
      if (ReasonOf(status) == "LEDGER_DAMAGED" && !std::exchange(without_ledger_, true)) {
        // What is damaged would be read in every run. Without it all pages are written.
        spdlog::warn("{}: {}; it is spooled without knowledge of the state before", job_.database, MessageOf(status));
        if (ledger_ == nullptr) LF_RETURN_IF_ERROR(OpenLedger());
        LF_RETURN_IF_ERROR(ledger_->Remove());
        continue;
      }
      if (ReasonOf(status) != "SPOOL_FULL") return status;
      counts = true;
      LF_ASSIGN_OR_RETURN(const Room made,
                          MakeRoom(spool_, {job_.database, job_.reserve, job_.compression_level, false, job_.goes_on}, cancel_));
      if (made == Room::kElsewhere) continue;
      if (made == Room::kNone) return own.snapshots == 1 ? InPlaceOfAll(room, status) : status;
      LF_RETURN_IF_ERROR(OpenLedger());
    }
  }

  // What is read takes the place of everything that is spooled.
  absl::Status InPlaceOfAll(uint64_t room, const absl::Status& without) {
    // Without knowledge of the controller's state it would be the whole database again.
    if (job_.ledger == nullptr || !job_.ledger->state().has_value()) return without;
    LF_RETURN_IF_ERROR(Count(*job_.ledger, room, true));
    LF_RETURN_IF_ERROR(LedgerOfController());
    return Write(*ledger_, {.max_bytes = room, .reserve = job_.reserve}, true);
  }

  bool IsFull() const {
    const std::vector<v1::CoverageGap> gaps = spool_.gaps().OpenGaps(job_.database);
    return std::any_of(gaps.begin(), gaps.end(), [](const v1::CoverageGap& gap) { return gap.reason() == kSpoolFull; });
  }

  // Whether it would fit: nothing is written but digests, behind the end of the ledger's log.
  absl::Status Count(ledger::Ledger& ledger, uint64_t max_bytes, bool all) {
    return Write(ledger, {.max_bytes = max_bytes, .reserve = job_.reserve, .counts_only = true}, all);
  }

  static absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled"); }

  absl::Status OpenLedger() {
    ledger_.reset();
    LF_ASSIGN_OR_RETURN(ledger_,
                        OpenNewestLedger(spool_, job_.database, {job_.ledger, job_.ledger_file, job_.reserve}, job_.ledger_identity));
    return absl::OkStatus();
  }

  absl::Status LedgerOfController() {
    ledger_.reset();
    LF_ASSIGN_OR_RETURN(ledger_,
                        CopyControllersLedger(spool_, job_.database, {job_.ledger, job_.ledger_file, job_.reserve}, job_.ledger_identity));
    return absl::OkStatus();
  }

  storage::v1::SpooledHeader Header(const ledger::Ledger& ledger, const capture::SourceInfo& info, bool changes_only, bool all) const {
    storage::v1::SpooledHeader header;
    header.set_session_id(NewUlid(spool_.clock().Now()));
    header.set_operation_id(job_.operation_id);
    header.set_database(job_.database);
    header.set_timeline(job_.timeline);
    header.set_method(job_.method);
    header.set_page_size(info.page_size);
    header.set_page_count(info.page_count);
    header.set_taken_at_ms(ToUnixMillis(info.pinned_at));
    header.set_boot_id(spool_.boot_id());
    header.set_taken_since_boot_ns(info.pinned_since_boot.count());
    header.set_started_at_ms(ToUnixMillis(job_.started_at));
    const std::vector<SpooledSnapshot> chain = spool_.List(job_.database);
    header.set_base_taken_at_ms(chain.empty() || all ? job_.acknowledged_taken_at_ms : chain.back().header.taken_at_ms());
    if (all) {
      for (const SpooledSnapshot& superseded : chain) header.set_merged(header.merged() + superseded.header.merged() + 1);
    }
    if (!changes_only) return header;
    (chain.empty() || all ? *header.mutable_base_snapshot_id() : *header.mutable_base_spooled_id()) = ledger.state()->snapshot_id;
    header.set_base_root_digest(std::string(ledger.state()->root.AsString()));
    return header;
  }

  absl::Status Write(ledger::Ledger& ledger, const SpoolFileWriter::Limits& limits, bool all) {
    LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> source, job_.open());
    const capture::SourceInfo info = source->info();
    taken_.wal = info.wal;
    taken_.taken_at = info.pinned_at;
    upload::FeedPlan plan{.ledger = &ledger};
    plan.changes_only = ledger.state().has_value() && ledger.state()->page_size == info.page_size;
    plan.find_moved = false;
    const uint64_t database_bytes = format::DatabaseBytes(info.page_size, info.page_count);
    // Flash is not worn for what cannot fit, however well it compresses.
    if (!plan.changes_only && database_bytes / 8 > limits.max_bytes) {
      return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                   fmt::format("a database of {} MiB does not fit into the {} MiB that are left of the spool", database_bytes >> 20,
                               limits.max_bytes >> 20),
                   "raise `[limits] spool_bytes` of agent.toml");
    }
    const format::RootDigest before = ledger.state().has_value() ? ledger.state()->root : format::RootDigest();
    const uint32_t pages_before = ledger.state().has_value() ? ledger.state()->page_count : 0;
    const storage::v1::SpooledHeader header = Header(ledger, info, plan.changes_only, all);
    upload::SourceFeed feed(std::move(source), plan);
    LF_ASSIGN_OR_RETURN(const auto writer, spool_.Begin(header, limits));
    ChunkPacker packer(*writer, job_.compression_level);
    for (;;) {
      if (cancel_.cancelled()) return Cancelled();
      LF_ASSIGN_OR_RETURN(std::optional<upload::Chunk> chunk, feed.Next());
      if (!chunk) break;
      LF_RETURN_IF_ERROR(packer.Add(*std::move(chunk)));
    }
    LF_RETURN_IF_ERROR(packer.Finish(cancel_));
    if (limits.counts_only) return absl::OkStatus();
    const v1::UploadCommit commit = feed.Commit();
    const auto root = format::RootDigest::FromBytes(commit.root_digest()).value_or(format::RootDigest());
    // In the place of all it supersedes what is spooled, also where it is what the controller has.
    if (!all && plan.changes_only && root == before && info.page_count == pages_before) return absl::OkStatus();
    LF_RETURN_IF_ERROR(writer->Finish(commit, ToUnixMillis(spool_.clock().Now())));
    LF_CRASH_POINT("spooled.renamed");
    LF_RETURN_IF_ERROR(spool_.Added(job_.database));
    taken_.id = header.session_id();
    taken_.bytes = writer->bytes();
    if (const absl::Status advanced = ledger.Commit(header.session_id(), root); !advanced.ok()) {
      // It is made anew from the files.
      spdlog::warn("{}: the ledger of the spool could not be written: {}", job_.database, MessageOf(advanced));
      ledger.Remove().IgnoreError();
    }
    LF_CRASH_POINT("spooled.taken");
    return absl::OkStatus();
  }

  SnapshotSpool& spool_;
  const TakeJob& job_;
  const CancelToken& cancel_;
  std::unique_ptr<ledger::Ledger> ledger_;
  bool without_ledger_ = false;  // it was damaged
  Taken taken_;
};

}  // namespace

Taken Take(SnapshotSpool& spool, const TakeJob& job, const CancelToken& cancel) { return Taking(spool, job, cancel).Run(); }

}  // namespace litefleet::spool
