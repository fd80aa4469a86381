// A snapshot received: hashed while it comes, compared with the root digest at the end, and only then under its name.
//
// Thread safety: none. Durability: a file is synced before it gets its name, its directory after.
#ifndef LITEFLEET_CONTROLLER_CLI_DOWNLOAD_H_
#define LITEFLEET_CONTROLLER_CLI_DOWNLOAD_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"
#include "common/io/file.h"
#include "common/io/uncached_writer.h"

namespace litefleet::cli {

// Pages in ascending order, in pieces of any size. Memory: one extent.
class RootVerifier {
 public:
  // Errors: kDataLoss GEOMETRY_INVALID.
  static absl::StatusOr<RootVerifier> Make(uint32_t page_size, uint32_t page_count, std::string_view root_digest);
  // Errors: kDataLoss TOO_MUCH_DATA.
  absl::Status Add(ByteView data);
  // Errors: kDataLoss TRUNCATED, ROOT_MISMATCH.
  absl::Status Finish();

 private:
  RootVerifier(uint32_t page_size, uint32_t page_count, format::RootDigest expected);
  void CloseExtent();

  uint32_t page_size_;
  uint64_t left_;  // bytes still to come
  format::RootDigest expected_;
  format::RootBuilder builder_;
  Bytes extent_;  // of the extent that is not whole yet
};

// FILE as it will be: written beside its place under another name, which goes when this is not finished.
class NewFile {
 public:
  // kAlreadyExists FILE_EXISTS where `path` is there, unless `replace`; kFailedPrecondition LEFT_OVER_FILES where a WAL or journal stands
  // beside it, which SQLite would apply to the new file.
  static absl::StatusOr<NewFile> Make(const std::string& path, bool replace);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();
  absl::Status Write(ByteView data);
  // Synced, and under its name. Errors: as Make.
  absl::Status Finish();
  const std::string& temporary() const { return temporary_; }

 private:
  NewFile(std::string path, std::string temporary, io::UniqueFd fd, bool replace);

  std::string path_;
  std::string temporary_;  // empty once there is nothing to remove
  io::UniqueFd fd_;
  bool replace_;
  std::unique_ptr<io::UncachedWriter> writer_;  // of fd_; null once it has ended
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_DOWNLOAD_H_
