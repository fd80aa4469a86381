// SQLite's own checks on one file, as the unprivileged helper process runs them (design law 12).
//
// Not for a process that holds secrets or locks: the file is hostile input. Call it in litefleet-check alone, after the sandbox is
// closed; everybody else uses checker.h. Thread safety: none. Memory: bounded by Limits::heap_bytes. The file is read through its
// descriptor by a VFS that can do nothing but read: no path, no lock, no journal, no temporary file.
// Source: https://www.sqlite.org/pragma.html#pragma_integrity_check, https://www.sqlite.org/security.html
#ifndef LITEFLEET_COMMON_CHECK_SQLITE_CHECKS_H_
#define LITEFLEET_COMMON_CHECK_SQLITE_CHECKS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace litefleet::check {

enum class State {
  kOk,
  kDamaged,     // SQLite found damage, or rows that break a constraint
  kCannotTell,  // it needs collations, functions or modules of its application, or has values above the limit; what could be checked is
                // sound
  kFailed,      // memory, time, input/output error
};

struct Verdict {
  State state = State::kFailed;
  // SQLite's words, one finding each; bounded in number and length.
  std::vector<std::string> messages;
};

struct Limits {
  int64_t heap_bytes = 192 << 20;   // sqlite3_hard_heap_limit64
  int64_t length_bytes = 64 << 20;  // SQLITE_LIMIT_LENGTH: the largest row, text or blob
  std::chrono::seconds time{600};   // wall clock
  int max_messages = 20;
  // Some tables of a database: that those to which their rows refer are not there is a message, and no damage.
  bool part = false;
};

// Reads the database behind `fd`, which must be seekable. `progress` gets the bytes read so far, at most five times a second.
Verdict RunChecks(int fd, const Limits& limits, const std::function<void(int64_t)>& progress);

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_SQLITE_CHECKS_H_
