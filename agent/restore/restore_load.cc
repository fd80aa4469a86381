// The part of RestoreSession that makes the staging database of SQL text, or of some tables of a snapshot.
#include <fcntl.h>

#include <memory>
#include <utility>

#include "agent/restore/apply.h"
#include "agent/restore/loaded_file.h"
#include "agent/restore/plan.h"
#include "agent/restore/restore_session.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "common/format/extent.h"
#include "common/format/segment.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr uint64_t kVersions = 18;  // of the file format, in page 1: 1 a rollback journal, 2 a WAL

}  // namespace

// The text is complete and proven in the staging file. Afterwards the staging file is the database that SQLite made of it, and the order is
// one for that database.
absl::Status RestoreSession::LoadText() {
  if (order_.content() != v1::SNAPSHOT_CONTENT_SQL || state_.loaded_page_size() != 0) return absl::OkStatus();
  progress_.Begin("loading", 60, 70);
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, NewLoadFile());
  LF_ASSIGN_OR_RETURN(const int64_t room, RoomToLoad());
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<dump::LoadProcess> load,
                      dump::LoadProcess::Start(Helper(), fd.get(), place_->directory(), room, static_cast<int64_t>(staging_->bytes())));
  format::SegmentReader segments(format::Content::kSql);
  Bytes extent;
  const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
  for (uint32_t i = 0; i < extents; ++i) {
    LF_RETURN_IF_ERROR(staging_->ReadExtent(i, extent));
    LF_RETURN_IF_ERROR(segments.Add(extent, [&](ByteView text) { return load->Write(text); }));
    progress_.At(i + 1, extents);
    LF_CRASH_POINT("restore.loading");
  }
  LF_RETURN_IF_ERROR(segments.Finish());
  LF_RETURN_IF_ERROR(load->Finish());
  LF_RETURN_IF_ERROR(TakeLoaded(fd.get()));
  state_.add_steps(
      fmt::format("loaded {} bytes of SQL text into a database of {} pages", segments.text_bytes(), state_.loaded_page_count()));
  if (!live() || order_.tables_size() > 0) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckNotEmpty(v1::RESTORE_MODE_LIVE, state_.loaded_page_count(), *place_));
  LF_ASSIGN_OR_RETURN(const LiveTarget target, LookAtLiveTarget(*place_, parts_.options.apply, cancel_, resumed_));
  return CheckPageSize(target, state_.loaded_page_size());
}

// The chosen tables become a database of their own. Into a live one they are merged when its lock is had (apply_live).
absl::Status RestoreSession::TakeTables() {
  if (order_.tables_size() == 0 || live()) return absl::OkStatus();
  progress_.Begin("loading", 60, 70);
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, NewLoadFile());
  LF_ASSIGN_OR_RETURN(const int64_t room, RoomToLoad());
  dump::DumpOptions what;
  what.tables.assign(order_.tables().begin(), order_.tables().end());
  LF_ASSIGN_OR_RETURN(const auto text, dump::DumpProcess::Sql(Helper(), {.fd = staging_->fd(), .bytes = 0, .read = {}}, what));
  LF_ASSIGN_OR_RETURN(const auto load,
                      dump::LoadProcess::Start(Helper(), fd.get(), place_->directory(), room, static_cast<int64_t>(staging_->bytes())));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, text->Next());
    if (piece.empty()) break;
    LF_RETURN_IF_ERROR(load->Write(piece));
  }
  LF_RETURN_IF_ERROR(load->Finish());
  LF_RETURN_IF_ERROR(TakeLoaded(fd.get()));
  state_.add_steps(fmt::format("took {} tables into a database of {} pages", order_.tables_size(), state_.loaded_page_count()));
  return absl::OkStatus();
}

absl::StatusOr<io::UniqueFd> RestoreSession::NewLoadFile() {
  LF_RETURN_IF_ERROR(place_->Remove(load_name()));
  return place_->Open(load_name(), O_RDWR | O_CREAT | O_EXCL, 0600);
}

absl::StatusOr<int64_t> RestoreSession::RoomToLoad() const {
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(place_->directory()));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, target_.reserve.At(place_->directory()));
  return static_cast<int64_t>(available > reserve ? available - reserve : 1);
}

dump::HelperOptions RestoreSession::Helper() const {
  dump::HelperOptions helper;
  helper.helper = parts_.checker.helper();
  helper.cancelled = [this] { return cancel_.cancelled(); };
  return helper;
}

// In the place of what it was made of: a crash from here to CHECKED finds a staging file without what it should have, and fetches it again.
absl::Status RestoreSession::TakeLoaded(int fd) {
  const std::string path = place_->PathOf(load_name());
  LF_ASSIGN_OR_RETURN(const Geometry geometry, GeometryOf(fd, path));
  // The text does not say it, and SQLite makes a database in rollback mode. Where a live one is overwritten its own mode stays.
  constexpr std::string_view kWal = "\2\2";
  if (order_.journal_mode() == v1::JOURNAL_MODE_WAL && geometry.page_count > 0)
    LF_RETURN_IF_ERROR(io::PwriteAll(fd, AsBytes(kWal), kVersions, path));
  LF_RETURN_IF_ERROR(RecordLoaded(fd, path, geometry, state_));
  LF_CRASH_POINT("restore.loaded");
  staging_.reset();
  LF_RETURN_IF_ERROR(place_->Rename(load_name(), staging_name()));
  UseLoaded();
  LF_ASSIGN_OR_RETURN(staging_, StagingFile::Reopen(*place_, staging_name(), geometry.page_size, geometry.page_count));
  return absl::OkStatus();
}

void RestoreSession::UseLoaded() {
  if (!ordered_.has_value()) ordered_ = order_;
  order_.set_page_size(state_.loaded_page_size());
  order_.set_page_count(state_.loaded_page_count());
  order_.set_root_digest(state_.loaded_root());
  root_ = format::RootDigest::FromBytes(state_.loaded_root()).value_or(format::RootDigest{});
}

void RestoreSession::ForgetLoaded() {
  if (state_.loaded_page_size() == 0) return;
  // After a merge into a live database the order was not changed.
  if (ordered_.has_value()) order_ = *std::exchange(ordered_, std::nullopt);
  root_ = format::RootDigest::FromBytes(order_.root_digest()).value_or(format::RootDigest{});
  state_.clear_loaded_page_size();
  state_.clear_loaded_page_count();
  state_.clear_loaded_root();
}

}  // namespace litefleet::restore
