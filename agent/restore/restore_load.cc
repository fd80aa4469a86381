// The part of RestoreSession that makes a database of a snapshot that is SQL text.
#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <memory>

#include "agent/restore/apply.h"
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

struct Geometry {
  uint32_t page_size = 4096;  // of an empty database
  uint32_t page_count = 0;
};

absl::StatusOr<Geometry> GeometryOf(int fd, const std::string& path) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, "look at " + path);
  Geometry geometry;
  if (st.st_size == 0) return geometry;
  std::array<std::byte, 2> raw{};
  LF_RETURN_IF_ERROR(io::PreadAll(fd, raw, 16, path));
  const uint32_t size = std::to_integer<uint32_t>(raw[0]) << 8 | std::to_integer<uint32_t>(raw[1]);
  geometry.page_size = size == 1 ? 65536 : size;
  if (!format::IsPageSize(geometry.page_size) || st.st_size % geometry.page_size != 0)
    return Error(absl::StatusCode::kInternal, "LOAD_FAILED", fmt::format("what SQLite made of the text in {} is no database", path));
  geometry.page_count = static_cast<uint32_t>(st.st_size / geometry.page_size);
  return geometry;
}

absl::StatusOr<format::RootDigest> RootOf(int fd, const Geometry& geometry, const std::string& path) {
  format::RootBuilder root(geometry.page_size, geometry.page_count);
  Bytes extent;
  for (uint32_t i = 0; i < format::ExtentCount(geometry.page_size, geometry.page_count); ++i) {
    extent.resize(size_t{format::PagesIn(geometry.page_size, geometry.page_count, i)} * geometry.page_size);
    LF_RETURN_IF_ERROR(io::PreadAll(fd, extent, uint64_t{i} * format::kExtentBytes, path));
    root.Add(format::NameChunkOf(geometry.page_size, extent));
  }
  return root.Finish();
}

}  // namespace

// The text is complete and proven in the staging file. Afterwards the staging file is the database that SQLite made of it, and the order is
// one for that database.
absl::Status RestoreSession::LoadText() {
  if (order_.content() != v1::SNAPSHOT_CONTENT_SQL || state_.loaded_page_size() != 0) return absl::OkStatus();
  progress_.Begin("loading", 60, 70);
  const std::string path = place_->PathOf(load_name());
  LF_RETURN_IF_ERROR(place_->Remove(load_name()));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, place_->Open(load_name(), O_RDWR | O_CREAT | O_EXCL, 0600));
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(place_->directory()));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, target_.reserve.At(place_->directory()));
  dump::HelperOptions helper;
  helper.helper = parts_.checker.helper();
  helper.cancelled = [this] { return cancel_.cancelled(); };
  const auto room = static_cast<int64_t>(available > reserve ? available - reserve : 1);
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<dump::LoadProcess> load,
                      dump::LoadProcess::Start(helper, fd.get(), place_->directory(), room, static_cast<int64_t>(staging_->bytes())));
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
  LF_ASSIGN_OR_RETURN(const Geometry geometry, GeometryOf(fd.get(), path));
  LF_ASSIGN_OR_RETURN(const format::RootDigest root, RootOf(fd.get(), geometry, path));
  LF_CRASH_POINT("restore.loaded");
  // In the place of the text: a crash from here to CHECKED finds a staging file without what it should have, and fetches the text again.
  staging_.reset();
  LF_RETURN_IF_ERROR(place_->Rename(load_name(), staging_name()));
  state_.set_loaded_page_size(geometry.page_size);
  state_.set_loaded_page_count(geometry.page_count);
  state_.set_loaded_root(std::string(root.AsString()));
  UseLoaded();
  LF_ASSIGN_OR_RETURN(staging_, StagingFile::Reopen(*place_, staging_name(), geometry.page_size, geometry.page_count));
  struct stat st {};
  if (fstat(staging_->fd(), &st) != 0) return ErrnoError(errno, "look at " + staging_->path());
  state_.set_staging_device(st.st_dev);
  state_.set_staging_inode(st.st_ino);
  state_.add_steps(fmt::format("loaded {} bytes of SQL text into a database of {} pages", segments.text_bytes(), geometry.page_count));
  if (!live()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const LiveTarget target, LookAtLiveTarget(*place_, parts_.options.apply, cancel_));
  return CheckPageSize(target, geometry.page_size);
}

void RestoreSession::UseLoaded() {
  ordered_ = order_;
  order_.set_page_size(state_.loaded_page_size());
  order_.set_page_count(state_.loaded_page_count());
  order_.set_root_digest(state_.loaded_root());
  root_ = format::RootDigest::FromBytes(state_.loaded_root()).value_or(format::RootDigest{});
}

void RestoreSession::ForgetLoaded() {
  if (state_.loaded_page_size() == 0) return;
  order_ = ordered_;
  root_ = format::RootDigest::FromBytes(order_.root_digest()).value_or(format::RootDigest{});
  state_.clear_loaded_page_size();
  state_.clear_loaded_page_count();
  state_.clear_loaded_root();
}

}  // namespace litefleet::restore
