#include "agent/spool/take.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "agent/upload/chunk_feed.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::spool {
namespace {

absl::Status CopyFile(const std::string& from, const std::string& to) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd in, io::Open(from, O_RDONLY));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd out, io::Open(to, O_WRONLY | O_CREAT | O_TRUNC));
  struct stat st {};
  if (fstat(in.get(), &st) != 0) return ErrnoError(errno, "stat " + from);
  std::string buffer(256 << 10, '\0');
  for (uint64_t at = 0, size = static_cast<uint64_t>(st.st_size); at < size;) {
    const auto part = std::as_writable_bytes(std::span(buffer)).first(std::min<uint64_t>(buffer.size(), size - at));
    LF_RETURN_IF_ERROR(io::PreadAll(in.get(), part, at, from));
    LF_RETURN_IF_ERROR(io::PwriteAll(out.get(), part, at, to));
    at += part.size();
  }
  return io::Sync(out.get(), to);
}

class Taking {
 public:
  Taking(SnapshotSpool& spool, const TakeJob& job, const CancelToken& cancel) : spool_(spool), job_(job), cancel_(cancel) {}

  Taken Run() {
    taken_.status = Loop();
    return std::move(taken_);
  }

 private:
  absl::Status Loop() {
    LF_RETURN_IF_ERROR(OpenLedger());
    bool all = false;  // what is read takes the place of everything that is spooled
    for (;;) {
      const SnapshotSpool::Usage own = spool_.UsageOf(job_.database);
      const auto others = static_cast<uint64_t>(spool_.Total().bytes - own.bytes);
      const uint64_t room = job_.spool_bytes - std::min(job_.spool_bytes, others);
      const uint64_t used = all ? 0 : static_cast<uint64_t>(own.bytes);
      const absl::Status status = Write(room - std::min(room, used), all);
      if (ReasonOf(status) != "SPOOL_FULL") return status;
      if (own.snapshots <= 1) {
        // What others have is older than what cannot be kept otherwise.
        LF_ASSIGN_OR_RETURN(const bool room_made, MakeRoomOfOthers());
        if (room_made) continue;
      }
      if (all || own.snapshots == 0) return status;
      if (own.snapshots == 1) {
        // Without knowledge of the controller's state it would be the whole database again.
        if (job_.ledger == nullptr || !job_.ledger->state().has_value()) return status;
        LF_RETURN_IF_ERROR(LedgerOfController());
        all = true;
        continue;
      }
      LF_RETURN_IF_ERROR(MakeRoom(own.bytes / 2));
      LF_RETURN_IF_ERROR(OpenLedger());
    }
  }

  // Merges the oldest until they have no more than `bytes`, or are one.
  absl::Status MakeRoom(int64_t bytes) {
    for (;;) {
      if (cancel_.cancelled()) return Cancelled();
      const SnapshotSpool::Usage own = spool_.UsageOf(job_.database);
      if (own.snapshots < 2 || own.bytes <= bytes) return absl::OkStatus();
      LF_RETURN_IF_ERROR(spool_.MergeOldest(job_.database, kSpoolFull, job_.reserve, job_.compression_level));
    }
  }

  // Of the snapshots of all other databases the oldest are merged, until they have half as many bytes or none can be. Whether there is
  // more room. One that is in use, or whose files are damaged, is passed over.
  absl::StatusOr<bool> MakeRoomOfOthers() {
    const auto of_others = [&] { return spool_.Total().bytes - spool_.UsageOf(job_.database).bytes; };
    const int64_t before = of_others();
    std::set<std::string> passed{job_.database};
    while (of_others() > before / 2) {
      if (cancel_.cancelled()) return Cancelled();
      std::optional<SpooledSnapshot> oldest;
      for (const std::string& database : spool_.Databases()) {
        const std::vector<SpooledSnapshot> chain = spool_.List(database);
        if (passed.contains(database) || chain.size() < 2) continue;
        if (!oldest.has_value() || chain[0].taken_at() < oldest->taken_at()) oldest = chain[0];
      }
      if (!oldest.has_value()) break;
      const std::string& database = oldest->header.database();
      const std::optional<SnapshotSpool::Use> use = spool_.TryUse(database);
      if (!use.has_value()) {
        passed.insert(database);
        continue;
      }
      if (spool_.UsageOf(database).snapshots < 2) continue;  // somebody was here before
      const absl::Status merged = spool_.MergeOldest(database, kSpoolFull, job_.reserve, job_.compression_level);
      if (merged.ok()) continue;
      spdlog::warn("{}: its spooled snapshots cannot be merged to make room for {}: {}", database, job_.database, MessageOf(merged));
      passed.insert(database);
    }
    return of_others() < before;
  }

  static absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled"); }

  // The ledger of the newest state that is known, or none.
  absl::Status OpenLedger() {
    const std::vector<SpooledSnapshot> chain = spool_.List(job_.database);
    if (chain.empty()) return LedgerOfController();
    LF_ASSIGN_OR_RETURN(ledger_, ledger::Ledger::Open(spool_.LedgerFile(job_.database), job_.ledger_identity));
    const auto stands_for = [&](const std::string& id) { return ledger_->state().has_value() && ledger_->state()->snapshot_id == id; };
    if (stands_for(chain.back().id())) return absl::OkStatus();
    size_t next = chain.size();
    for (size_t at = 0; at < chain.size(); ++at) {
      if (stands_for(chain[at].id()) || chain[at].full()) next = chain[at].full() && !stands_for(chain[at].id()) ? at : at + 1;
    }
    if (next == chain.size() && job_.ledger != nullptr && job_.ledger->state().has_value() &&
        job_.ledger->state()->snapshot_id == chain[0].header.base_snapshot_id()) {
      LF_RETURN_IF_ERROR(LedgerOfController());
      next = 0;
    }
    if (next == chain.size()) {
      spdlog::warn("{}: what the newest spooled snapshot has is not known any more; the next one has all pages", job_.database);
      return ledger_->Remove();
    }
    for (; next < chain.size(); ++next) LF_RETURN_IF_ERROR(AdvanceLedger(*ledger_, chain[next], chain[next].id()));
    return absl::OkStatus();
  }

  absl::Status LedgerOfController() {
    const std::string file = spool_.LedgerFile(job_.database);
    LF_RETURN_IF_ERROR(io::MakeDirectory(io::DirectoryOf(file)));
    ledger_.reset();
    const bool known = job_.ledger != nullptr && job_.ledger->state().has_value();
    if (known) {
      LF_RETURN_IF_ERROR(CopyFile(job_.ledger_file, file));
      if (io::Exists(job_.ledger_file + "-log")) {
        LF_RETURN_IF_ERROR(CopyFile(job_.ledger_file + "-log", file + "-log"));
      } else {
        LF_RETURN_IF_ERROR(io::RemoveFile(file + "-log"));
      }
    }
    LF_ASSIGN_OR_RETURN(ledger_, ledger::Ledger::Open(file, job_.ledger_identity));
    const bool same = known && ledger_->state().has_value() && ledger_->state()->snapshot_id == job_.ledger->state()->snapshot_id;
    if (!same && ledger_->state().has_value()) LF_RETURN_IF_ERROR(ledger_->Remove());
    return absl::OkStatus();
  }

  storage::v1::SpooledHeader Header(const capture::SourceInfo& info, bool changes_only, bool all) const {
    storage::v1::SpooledHeader header;
    header.set_session_id(NewUlid(spool_.clock().Now()));
    header.set_operation_id(job_.operation_id);
    header.set_database(job_.database);
    header.set_timeline(job_.timeline);
    header.set_method(job_.method);
    header.set_page_size(info.page_size);
    header.set_page_count(info.page_count);
    header.set_taken_at_ms(ToUnixMillis(info.pinned_at));
    header.set_boot_id(BootId());
    header.set_taken_since_boot_ns(info.pinned_since_boot.count());
    header.set_started_at_ms(ToUnixMillis(job_.started_at));
    const std::vector<SpooledSnapshot> chain = spool_.List(job_.database);
    header.set_base_taken_at_ms(chain.empty() || all ? job_.acknowledged_taken_at_ms : chain.back().header.taken_at_ms());
    if (all) {
      for (const SpooledSnapshot& superseded : chain) header.set_merged(header.merged() + superseded.header.merged() + 1);
    }
    if (!changes_only) return header;
    (chain.empty() || all ? *header.mutable_base_snapshot_id() : *header.mutable_base_spooled_id()) = ledger_->state()->snapshot_id;
    header.set_base_root_digest(std::string(ledger_->state()->root.AsString()));
    return header;
  }

  absl::Status Write(uint64_t max_bytes, bool all) {
    LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> source, job_.open());
    const capture::SourceInfo info = source->info();
    taken_.wal = info.wal;
    taken_.taken_at = info.pinned_at;
    upload::FeedPlan plan{.ledger = ledger_.get()};
    plan.changes_only = ledger_->state().has_value() && ledger_->state()->page_size == info.page_size;
    plan.find_moved = false;
    const uint64_t database_bytes = format::DatabaseBytes(info.page_size, info.page_count);
    // Flash is not worn for what cannot fit, however well it compresses.
    if (!plan.changes_only && database_bytes / 8 > max_bytes) {
      return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                   fmt::format("a database of {} MiB does not fit into the {} MiB that are left of the spool", database_bytes >> 20,
                               max_bytes >> 20),
                   "raise `[limits] spool_bytes` of agent.toml");
    }
    const format::RootDigest before = ledger_->state().has_value() ? ledger_->state()->root : format::RootDigest();
    const uint32_t pages_before = ledger_->state().has_value() ? ledger_->state()->page_count : 0;
    const storage::v1::SpooledHeader header = Header(info, plan.changes_only, all);
    upload::SourceFeed feed(std::move(source), plan);
    LF_ASSIGN_OR_RETURN(const auto writer, spool_.Begin(header, {.max_bytes = max_bytes, .reserve = job_.reserve}));
    format::ChunkCompressor compressor(job_.compression_level);
    for (;;) {
      if (cancel_.cancelled()) return Cancelled();
      LF_ASSIGN_OR_RETURN(std::optional<upload::Chunk> chunk, feed.Next());
      if (!chunk) break;
      StoredChunk stored{.name = chunk->name, .runs = chunk->runs, .raw_bytes = chunk->raw_bytes};
      LF_ASSIGN_OR_RETURN(upload::PackedChunk packed, static_cast<upload::PackablePayload&>(*chunk->payload).Pack(compressor));
      stored.codec = packed.codec;
      stored.data = std::move(packed.data);
      LF_RETURN_IF_ERROR(writer->Add(stored));
    }
    const v1::UploadCommit commit = feed.Commit();
    const auto root = format::RootDigest::FromBytes(commit.root_digest()).value_or(format::RootDigest());
    if (plan.changes_only && root == before && info.page_count == pages_before) return absl::OkStatus();
    LF_RETURN_IF_ERROR(writer->Finish(commit, ToUnixMillis(spool_.clock().Now())));
    LF_CRASH_POINT("spooled.renamed");
    LF_RETURN_IF_ERROR(spool_.Added(job_.database));
    taken_.id = header.session_id();
    taken_.bytes = writer->bytes();
    if (const absl::Status advanced = ledger_->Commit(header.session_id(), root); !advanced.ok()) {
      // It is made anew from the files.
      spdlog::warn("{}: the ledger of the spool could not be written: {}", job_.database, MessageOf(advanced));
      ledger_->Remove().IgnoreError();
    }
    LF_CRASH_POINT("spooled.taken");
    return absl::OkStatus();
  }

  SnapshotSpool& spool_;
  const TakeJob& job_;
  const CancelToken& cancel_;
  std::unique_ptr<ledger::Ledger> ledger_;
  Taken taken_;
};

}  // namespace

Taken Take(SnapshotSpool& spool, const TakeJob& job, const CancelToken& cancel) { return Taking(spool, job, cancel).Run(); }

absl::Status AdvanceLedger(ledger::Ledger& ledger, const SpooledSnapshot& snapshot, const std::string& id) {
  LF_ASSIGN_OR_RETURN(const auto file, SpoolFileReader::Open(snapshot.path));
  LF_RETURN_IF_ERROR(ledger.Begin(snapshot.header.page_size(), snapshot.header.page_count(),
                                  file->full() ? ledger::Ledger::kAll : ledger::Ledger::kChanges));
  Bytes pages;
  std::vector<format::PageDigest> digests;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::optional<StoredChunk> chunk, file->Next());
    if (!chunk) break;
    digests.clear();
    LF_RETURN_IF_ERROR(file->Unpack(*chunk, pages, &digests));
    size_t at = 0;
    for (const upload::PageRun& run : chunk->runs) {
      LF_RETURN_IF_ERROR(ledger.Put(run.first_page, std::span(digests).subspan(at, run.page_count)));
      at += run.page_count;
    }
  }
  return ledger.Commit(id, format::RootDigest::FromBytes(snapshot.root).value_or(format::RootDigest()));
}

}  // namespace litefleet::spool
