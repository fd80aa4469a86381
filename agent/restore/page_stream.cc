#include "agent/restore/page_stream.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "agent/capture/page_sink.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/sqlite/handle.h"

namespace litefleet::restore {
namespace {

// Offsets in page 1, from and to: versions, change counter, schema cookie, version-valid-for and the version of SQLite that wrote.
constexpr std::array<std::pair<size_t, size_t>, 4> kRewritten = {{{18, 20}, {24, 28}, {40, 44}, {92, 100}}};

bool SameFirst(ByteView a, ByteView b) {
  size_t from = 0;
  for (const auto& [begin, end] : kRewritten) {
    if (std::memcmp(a.data() + from, b.data() + from, begin - from) != 0) return false;
    from = end;
  }
  return std::memcmp(a.data() + from, b.data() + from, a.size() - from) == 0;
}

}  // namespace

absl::Status StreamPages(capture::UserDatabase& database, const capture::PinnedRead& read, const CancelToken& cancel,
                         const std::function<absl::Status(const StreamedExtent&)>& take) {
  if (read.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const auto sink, capture::PageSink::Open());
  const sqlite::BackupHandle backup(sqlite3_backup_init(sink->db(), "main", database.db(), "main"));
  if (backup == nullptr) return sqlite::ToStatus(sqlite3_errcode(sink->db()), sink->db(), "read the database");
  if (const int rc = sqlite3_backup_step(backup.get(), 0); rc != SQLITE_OK) return database.ErrorFor(rc, "read");
  StreamedExtent at;
  at.page_size = read.page_size();
  at.page_count = static_cast<uint32_t>(sqlite3_backup_pagecount(backup.get()));
  sink->Start(at.page_size, at.page_count, read.first_page());
  bool done = false;
  for (; at.extent < format::ExtentCount(at.page_size, at.page_count); ++at.extent) {
    while (!sink->FrontComplete()) {
      if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the restore was cancelled");
      const int rc = done ? SQLITE_INTERNAL : sqlite3_backup_step(backup.get(), sink->PagesAStep());
      if (rc != SQLITE_OK && rc != SQLITE_DONE) {
        return Annotate(database.ErrorFor(rc, "read"), sink->failure().empty() ? "reading all pages" : sink->failure());
      }
      done = rc == SQLITE_DONE;
    }
    at.pages = sink->Front();
    LF_RETURN_IF_ERROR(take(at));
    sink->Pop();
  }
  return absl::OkStatus();
}

bool SamePages(uint32_t extent, ByteView a, ByteView b) {
  if (a.size() != b.size()) return false;
  return extent == 0 && a.size() >= 100 ? SameFirst(a, b) : std::memcmp(a.data(), b.data(), a.size()) == 0;
}

uint32_t CountDifferent(uint32_t extent, uint32_t page_size, ByteView a, ByteView b) {
  const size_t both = std::min(a.size(), b.size());
  auto different = static_cast<uint32_t>((std::max(a.size(), b.size()) - both) / page_size);
  for (size_t at = 0; at + page_size <= both; at += page_size) {
    if (!SamePages(at == 0 ? extent : 1, a.subspan(at, page_size), b.subspan(at, page_size))) ++different;
  }
  return different;
}

}  // namespace litefleet::restore
