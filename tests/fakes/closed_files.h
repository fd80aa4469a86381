// The real file system, but for files that may not be opened: those of another user. Thread safety: `closed` is set while nobody looks.
#ifndef LITEFLEET_TESTS_FAKES_CLOSED_FILES_H_
#define LITEFLEET_TESTS_FAKES_CLOSED_FILES_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "controller/store/file_system.h"

namespace litefleet::fakes {

class ClosedFiles final : public store::FileSystem {
 public:
  std::set<std::string> closed;  // names, without their directory

  absl::StatusOr<std::unique_ptr<store::File>> Create(const std::string& path) override { return real_.Create(path); }
  absl::StatusOr<std::unique_ptr<store::File>> OpenForWriting(const std::string& path) override {
    if (IsClosed(path)) return ErrnoError(EACCES, "open " + path);
    return real_.OpenForWriting(path);
  }
  absl::StatusOr<std::unique_ptr<store::File>> OpenForReading(const std::string& path) override {
    if (IsClosed(path)) return ErrnoError(EACCES, "open " + path);
    return real_.OpenForReading(path);
  }
  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override { return real_.SizeOf(path); }
  absl::Status Rename(const std::string& from, const std::string& to) override { return real_.Rename(from, to); }
  absl::Status Remove(const std::string& path) override { return real_.Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override { return real_.SyncDirectory(path); }
  absl::Status MakeDirectory(const std::string& path) override { return real_.MakeDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return real_.List(path); }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override { return real_.FreeBytes(path); }

 private:
  bool IsClosed(const std::string& path) const { return closed.contains(path.substr(path.rfind('/') + 1)); }

  store::FileSystem& real_ = store::PosixFileSystem();
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_CLOSED_FILES_H_
