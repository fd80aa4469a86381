// The few file operations that a store needs, behind an interface so that tests can make them fail.
//
// Thread safety: both classes may be used from any thread. Paths are absolute. Errors: as ErrnoError, with the path.
#ifndef LITEFLEET_CONTROLLER_STORE_FILE_SYSTEM_H_
#define LITEFLEET_CONTROLLER_STORE_FILE_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace litefleet::store {

// An open file; the destructor closes it.
class File {
 public:
  virtual ~File() = default;
  // Fewer bytes than asked for only at the end of the file.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) = 0;
  // All of `first`, then all of `second`, or an error; after an error the bytes from `offset` on are undefined.
  virtual absl::Status WriteAt(uint64_t offset, ByteView first, ByteView second) = 0;
  virtual absl::Status Truncate(uint64_t size) = 0;
  virtual absl::StatusOr<uint64_t> Size() = 0;
  // fsync(2).
  virtual absl::Status Sync() = 0;
  // Tells the kernel to begin writing this range; a hint, never an error.
  virtual void StartWriteback(uint64_t offset, uint64_t size) = 0;
  // Asks the kernel to forget what it has cached and written; a hint as well.
  virtual void DropCache() {}
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // For reading and writing; kAlreadyExists FILE_EXISTS.
  virtual absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<File>> OpenForWriting(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<File>> OpenForReading(const std::string& path) = 0;
  // Also of a file that may not be opened, where that can be told.
  virtual absl::StatusOr<uint64_t> SizeOf(const std::string& path);
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  virtual absl::Status MakeDirectory(const std::string& path) = 0;
  // Names, unordered.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual absl::StatusOr<uint64_t> FreeBytes(const std::string& path) = 0;
};

// The real one. Lives as long as the process.
FileSystem& PosixFileSystem();

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_FILE_SYSTEM_H_
