// The unprivileged helper process litefleet-check, as its parents start and end it (design law 12).
//
// Not for anything else: it gets no environment, no descriptor but those that are named, and dies with its parent's object. Thread safety:
// none. Errors: kInternal CHECK_HELPER_FAILED, ErrnoError.
#ifndef LITEFLEET_COMMON_CHECK_HELPER_PROCESS_H_
#define LITEFLEET_COMMON_CHECK_HELPER_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/io/file.h"

namespace litefleet::check {

// Beside this program, or in ../libexec/litefleet, or ../bin; empty when it was not found.
std::string FindHelper();

absl::Status HelperFailed(std::string_view why);

class HelperProcess {
 public:
  // `files`: what the helper gets as descriptors 0, 1, 2 ...; -1 in the first three places is /dev/null. They stay the caller's.
  static absl::StatusOr<std::unique_ptr<HelperProcess>> Start(const std::string& helper, const std::vector<std::string>& arguments,
                                                              const std::vector<int>& files);
  // Kills it if it still runs.
  ~HelperProcess();
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;

  // The parent's ends of what it talks through: closed before it is waited for, so that it ends at its next word even where we may not kill
  // it (root without CAP_KILL: the helper is nobody's).
  void Own(io::UniqueFd end) { ends_.push_back(std::move(end)); }

  // Kills it if it still runs. The wait status, or -1.
  int End();
  // REQUIRES: it has said its last word.
  int Wait();
  // For people.
  static std::string HowItEnded(int status);

 private:
  explicit HelperProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  std::vector<io::UniqueFd> ends_;
};

// A pipe whose parent's end is kept, and whose other end is away from the numbers that the helper gets.
struct HelperPipe {
  io::UniqueFd parent;
  io::UniqueFd helper;
  // The helper writes, the parent reads.
  static absl::StatusOr<HelperPipe> FromHelper();
  // Both read and write.
  static absl::StatusOr<HelperPipe> BothWays();
};

// `fd` duplicated away from the numbers that the helper gets.
absl::StatusOr<io::UniqueFd> DuplicateForHelper(int fd);

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_HELPER_PROCESS_H_
