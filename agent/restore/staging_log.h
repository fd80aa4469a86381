// The names of the extents that a staging file holds, in order, so that a fetch that a crash or a restart interrupted goes on behind them.
//
// File STATE/restore/OP.extents: 8 bytes "LFEXT1\r\n", the 32 bytes of the root digest of the whole, then 32 bytes an extent. A name is
// appended after its extent was written; nothing is synced. So it claims and proves nothing: who resumes believes a name only where the
// content of the staging file has it, and the root digest over everything decides at the end.
//
// Thread safety: none. Errors: ErrnoError; kDataLoss STAGING_DAMAGED where the file is not of this root.
#ifndef LITEFLEET_AGENT_RESTORE_STAGING_LOG_H_
#define LITEFLEET_AGENT_RESTORE_STAGING_LOG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/format/digest.h"
#include "common/io/file.h"

namespace litefleet::restore {

class StagingLog {
 public:
  // An empty one, in place of what is there.
  static absl::StatusOr<std::unique_ptr<StagingLog>> Create(const std::string& path, const format::RootDigest& root);
  static absl::StatusOr<std::unique_ptr<StagingLog>> Open(const std::string& path, const format::RootDigest& root);

  // The name of an extent; nothing where the log does not reach as far.
  absl::StatusOr<std::optional<format::ChunkName>> At(uint32_t extent) const;
  absl::Status Put(uint32_t extent, const format::ChunkName& name);

 private:
  StagingLog(std::string path, io::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  const std::string path_;
  const io::UniqueFd fd_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_STAGING_LOG_H_
