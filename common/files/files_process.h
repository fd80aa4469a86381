// Files as an archive, and an archive as files, by way of the helper process litefleet-check: libarchive is there, and nowhere else. What
// packs has our rights, since it reads the files; what unpacks has none (design law 12).
//
// Thread safety: none of the objects; calls block. A cancel is seen within 50 ms. Bounds: 128 KiB here; memory and time of the helper.
//
// Errors (reason, code):
//   ROOT_MISSING, ROOT_NOT_DIRECTORY, FILES_UNREADABLE   kFailedPrecondition
//   FILES_TOO_LARGE, TOO_MANY_FILES  kResourceExhausted   a limit of the rules
//   SOURCE_CHANGED       kAborted             a file changed while it was read: another try may help
//   ARCHIVE_INVALID      kDataLoss            it is not one of ours
//   ARCHIVE_FAILED       kInternal
//   FILES_TIMEOUT        kDeadlineExceeded    without progress for too long
//   CHECK_HELPER_FAILED  kInternal
//   CANCELLED            kCancelled
#ifndef LITEFLEET_COMMON_FILES_FILES_PROCESS_H_
#define LITEFLEET_COMMON_FILES_FILES_PROCESS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/check/helper_answer.h"
#include "common/check/helper_process.h"
#include "common/files/entry.h"
#include "common/files/rules.h"

namespace litefleet::files {

struct FilesHelper {
  std::string helper;  // empty: check::FindHelper()
  int64_t heap_bytes = 64 << 20;
  std::chrono::seconds time{0};     // without any progress, then it is given up; 0: ten minutes
  std::function<bool()> cancelled;  // may be empty
};

// A helper that runs, and what it says beside its output: messages, and at its end a verdict.
class FilesProcess {
 protected:
  explicit FilesProcess(const FilesHelper& options);
  // The time begins anew.
  void Progressed();
  // CANCELLED, FILES_TIMEOUT.
  absl::Status GoesOn() const;
  absl::Status TakeAnswers();
  struct Verdict {
    std::string word;  // empty: it gave none
    int status = 0;    // how the process ended
  };
  absl::StatusOr<Verdict> WaitForVerdict();

  const FilesHelper options_;
  std::unique_ptr<check::HelperProcess> process_;
  int answers_ = -1;  // of the process
  check::HelperAnswer answer_;

 private:
  const std::chrono::seconds lease_;
  std::chrono::steady_clock::time_point deadline_;
};

class PackProcess : private FilesProcess {
 public:
  enum class What { kArchive, kTolerant, kList };  // common/archive/pack.h
  static absl::StatusOr<std::unique_ptr<PackProcess>> Start(const FilesHelper& options, const std::string& root, const Rules& rules,
                                                            What what);
  // The next piece, valid until the next call; empty at the end, which is good only then.
  absl::StatusOr<ByteView> Next();
  // REQUIRES: Next has ended. What was left out, or is not as it should be.
  const std::vector<std::string>& notes() const { return notes_; }
  // REQUIRES: the same. When something was last written to one of the files, or changed of its status.
  SystemTime newest() const { return newest_; }

 private:
  explicit PackProcess(const FilesHelper& options);
  absl::Status End();

  int text_ = -1;  // of the process
  std::vector<std::string> notes_;
  SystemTime newest_{};
  Bytes piece_;
  bool ended_ = false;
};

// What an archive holds, in the order of the archive. Names, sizes and counts are for the caller to judge, as that of a stranger.
class UnpackProcess : private FilesProcess {
 public:
  // The next bytes of the archive, valid until the next call; empty at its end.
  using More = std::function<absl::StatusOr<ByteView>()>;
  static absl::StatusOr<std::unique_ptr<UnpackProcess>> Start(const FilesHelper& options, More more, int64_t archive_bytes);

  // Until the end: each entry, and then its content in pieces. An error of one of the two ends it and is returned.
  absl::Status Run(const std::function<absl::Status(const Entry&)>& entry, const std::function<absl::Status(ByteView)>& content);

 private:
  UnpackProcess(const FilesHelper& options, More more);
  absl::Status Feed();
  absl::Status End();

  const More more_;
  io::UniqueFd archive_;
  int frames_ = -1;  // of the process
  ByteView unsent_;
};

}  // namespace litefleet::files

#endif  // LITEFLEET_COMMON_FILES_FILES_PROCESS_H_
