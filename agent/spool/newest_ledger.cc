#include "agent/spool/newest_ledger.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "agent/spool/spool_file.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::spool {
namespace {

absl::Status CopyFile(const std::string& from, const std::string& to, const io::DiskReserve& reserve) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd in, io::Open(from, O_RDONLY));
  struct stat st {};
  if (fstat(in.get(), &st) != 0) return ErrnoError(errno, "stat " + from);
  const std::string folder = io::DirectoryOf(to);
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(folder));
  LF_ASSIGN_OR_RETURN(const uint64_t stays, reserve.At(folder));
  if (free < stays + static_cast<uint64_t>(st.st_size)) {
    return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                 fmt::format("{} MiB are free where {} is, and a reserve of {} MiB stays free", free >> 20, to, stays >> 20),
                 "free space where the state directory is; the reserve is `[limits] disk_reserve` of agent.toml");
  }
  LF_ASSIGN_OR_RETURN(const io::UniqueFd out, io::Open(to, O_WRONLY | O_CREAT | O_TRUNC));
  std::string buffer(256 << 10, '\0');
  for (uint64_t at = 0, size = static_cast<uint64_t>(st.st_size); at < size;) {
    const auto part = std::as_writable_bytes(std::span(buffer)).first(std::min<uint64_t>(buffer.size(), size - at));
    LF_RETURN_IF_ERROR(io::PreadAll(in.get(), part, at, from));
    LF_RETURN_IF_ERROR(io::PwriteAll(out.get(), part, at, to));
    at += part.size();
  }
  return io::Sync(out.get(), to);
}

// A file that is only ever replaced as a whole.
absl::Status ShareFile(const std::string& from, const std::string& to, const io::DiskReserve& reserve) {
  LF_RETURN_IF_ERROR(io::RemoveFile(to));
  return link(from.c_str(), to.c_str()) == 0 ? absl::OkStatus() : CopyFile(from, to, reserve);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ledger::Ledger>> CopyControllersLedger(const SnapshotSpool& spool, const std::string& database,
                                                                      const ControllersLedger& controllers,
                                                                      const std::array<std::byte, 32>& identity) {
  const std::string file = spool.LedgerFile(database);
  LF_RETURN_IF_ERROR(io::MakeDirectory(io::DirectoryOf(file)));
  const bool known = controllers.ledger != nullptr && controllers.ledger->state().has_value();
  if (known) {
    // The log first goes: it could be taken for the new base's.
    LF_RETURN_IF_ERROR(io::RemoveFile(file + "-log"));
    LF_RETURN_IF_ERROR(ShareFile(controllers.file, file, controllers.reserve));
    if (io::Exists(controllers.file + "-log")) LF_RETURN_IF_ERROR(CopyFile(controllers.file + "-log", file + "-log", controllers.reserve));
  }
  LF_ASSIGN_OR_RETURN(std::unique_ptr<ledger::Ledger> ledger, ledger::Ledger::Open(file, identity));
  const bool same = known && ledger->state().has_value() && ledger->state()->snapshot_id == controllers.ledger->state()->snapshot_id;
  if (!same && ledger->state().has_value()) LF_RETURN_IF_ERROR(ledger->Remove());
  return ledger;
}

absl::StatusOr<std::unique_ptr<ledger::Ledger>> OpenNewestLedger(const SnapshotSpool& spool, const std::string& database,
                                                                 const ControllersLedger& controllers,
                                                                 const std::array<std::byte, 32>& identity) {
  const std::optional<SpooledSnapshot> newest = spool.Newest(database);
  if (!newest.has_value()) return CopyControllersLedger(spool, database, controllers, identity);
  LF_ASSIGN_OR_RETURN(std::unique_ptr<ledger::Ledger> ledger, ledger::Ledger::Open(spool.LedgerFile(database), identity));
  const auto stands_for = [&](const std::string& id) { return ledger->state().has_value() && ledger->state()->snapshot_id == id; };
  if (stands_for(newest->id())) return ledger;
  const std::vector<SpooledSnapshot> chain = spool.List(database);
  size_t next = chain.size();
  for (size_t at = 0; at < chain.size(); ++at) {
    if (stands_for(chain[at].id()) || chain[at].full()) next = chain[at].full() && !stands_for(chain[at].id()) ? at : at + 1;
  }
  if (next == chain.size()) {
    const storage::v1::SpooledHeader& oldest = chain[0].header;
    const auto is_base = [&oldest](const std::optional<ledger::LedgerState>& known, const std::string& id) {
      return known.has_value() && !id.empty() && known->snapshot_id == id && known->root.AsString() == oldest.base_root_digest();
    };
    // What the oldest one is built on the controller has by now.
    const storage::v1::SpoolState state = spool.ReadState(database);
    const std::string& base = oldest.base_spooled_id().empty()                              ? oldest.base_snapshot_id()
                              : oldest.base_spooled_id() == state.acknowledged_spooled_id() ? state.acknowledged_snapshot_id()
                                                                                            : oldest.base_snapshot_id();
    if (is_base(ledger->state(), base) || is_base(ledger->state(), oldest.base_spooled_id())) {
      next = 0;  // as it was copied, before anything was put into it
    } else if (controllers.ledger != nullptr && is_base(controllers.ledger->state(), base)) {
      ledger.reset();
      LF_ASSIGN_OR_RETURN(ledger, CopyControllersLedger(spool, database, controllers, identity));
      if (ledger->state().has_value()) next = 0;
    }
  }
  if (next == chain.size()) {
    spdlog::warn("{}: what the newest spooled snapshot has is not known any more", database);
    LF_RETURN_IF_ERROR(ledger->Remove());
    return ledger;
  }
  for (; next < chain.size(); ++next) LF_RETURN_IF_ERROR(AdvanceLedger(*ledger, chain[next], chain[next].id()));
  return ledger;
}

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
