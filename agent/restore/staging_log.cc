#include "agent/restore/staging_log.h"

#include <fcntl.h>

#include <array>
#include <string_view>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr std::string_view kMagic = "LFEXT1\r\n";
constexpr size_t kHeaderBytes = kMagic.size() + format::kDigestBytes;

uint64_t OffsetOf(uint32_t extent) { return kHeaderBytes + uint64_t{extent} * format::kDigestBytes; }

std::string Header(const format::RootDigest& root) { return std::string(kMagic) + std::string(root.AsString()); }

}  // namespace

absl::StatusOr<std::unique_ptr<StagingLog>> StagingLog::Create(const std::string& path, const format::RootDigest& root) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_TRUNC));
  LF_RETURN_IF_ERROR(io::PwriteAll(fd.get(), AsBytes(Header(root)), 0, path));
  return std::unique_ptr<StagingLog>(new StagingLog(path, std::move(fd)));
}

absl::StatusOr<std::unique_ptr<StagingLog>> StagingLog::Open(const std::string& path, const format::RootDigest& root) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, O_RDWR));
  std::array<std::byte, kHeaderBytes> header{};
  const absl::Status read = io::PreadAll(fd.get(), header, 0, path);
  if (!read.ok() || AsText(header) != Header(root)) {
    return Error(absl::StatusCode::kDataLoss, "STAGING_DAMAGED", fmt::format("{} does not tell of this restore", path));
  }
  return std::unique_ptr<StagingLog>(new StagingLog(path, std::move(fd)));
}

absl::StatusOr<std::optional<format::ChunkName>> StagingLog::At(uint32_t extent) const {
  format::ChunkName name;
  const absl::Status read = io::PreadAll(fd_.get(), name.bytes, OffsetOf(extent), path_);
  if (read.code() == absl::StatusCode::kOutOfRange) return std::nullopt;
  LF_RETURN_IF_ERROR(read);
  return name;
}

absl::Status StagingLog::Put(uint32_t extent, const format::ChunkName& name) {
  return io::PwriteAll(fd_.get(), AsBytes(name.AsString()), OffsetOf(extent), path_);
}

}  // namespace litefleet::restore
