// Asks the unprivileged helper process litefleet-check for SQLite's verdict on a database file (design law 12).
//
// Not for a live database: the file must not change, and nobody may have it open through SQLite in this process, since its descriptor is
// handed on and closed (design law 3). Thread safety: Check blocks and may be called from any thread. Bounds: memory of the helper, its
// time, what it may print.
//
//   Checker checker({});
//   const CheckResult result = checker.Check(staging_fd, {.cancelled = [&] { return token.cancelled(); }});
#ifndef LITEFLEET_COMMON_CHECK_CHECKER_H_
#define LITEFLEET_COMMON_CHECK_CHECKER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/check/sqlite_checks.h"

namespace litefleet::check {

struct CheckRequest {
  std::function<bool()> cancelled;              // asked every 50 ms; may be empty
  std::function<void(int64_t bytes)> progress;  // bytes read so far, may exceed the file's size; may be empty
  bool part = false;                            // Limits::part
};

struct CheckResult {
  // OK when there is a verdict. kCancelled CANCELLED; kDeadlineExceeded CHECK_TIMEOUT; kInternal CHECK_HELPER_FAILED (it could not be
  // started, was killed by a limit, or answered nonsense).
  absl::Status status;
  Verdict verdict;
  // All messages as one text.
  std::string Text() const;
};

class Checker {
 public:
  struct Options {
    std::string helper;  // empty: beside this program, or ../libexec/litefleet, or ../bin
    Limits limits;
  };
  explicit Checker(Options options);

  // `fd` needs to be readable; it stays the caller's.
  CheckResult Check(int fd, const CheckRequest& request) const;

  // Where the helper is; empty when it was not found.
  const std::string& helper() const { return helper_; }
  // Grows the time limit with the size of the file: 5 MB/s at least are expected.
  static std::chrono::seconds TimeFor(int64_t bytes);

 private:
  const Options options_;
  const std::string helper_;
};

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_CHECKER_H_
