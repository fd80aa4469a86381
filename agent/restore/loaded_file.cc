#include "agent/restore/loaded_file.h"

#include <sys/stat.h>

#include <array>
#include <cerrno>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

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
    return Error(absl::StatusCode::kInternal, "LOAD_FAILED", fmt::format("what SQLite made in {} is no database", path));
  geometry.page_count = static_cast<uint32_t>(st.st_size / geometry.page_size);
  return geometry;
}

absl::Status RecordLoaded(int fd, const std::string& path, const Geometry& geometry, storage::v1::RestoreState& state) {
  LF_ASSIGN_OR_RETURN(const format::RootDigest root, RootOf(fd, geometry, path));
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, "look at " + path);
  state.set_loaded_page_size(geometry.page_size);
  state.set_loaded_page_count(geometry.page_count);
  state.set_loaded_root(std::string(root.AsString()));
  state.set_staging_device(st.st_dev);
  state.set_staging_inode(st.st_ino);
  return absl::OkStatus();
}

}  // namespace litefleet::restore
