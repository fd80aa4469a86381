// litefleet-check: SQLite's checks on the database behind descriptor 3, without any rights. Started by common/check/checker.h.
//
// Answers on standard output, a line each, at most a few KiB: "progress BYTES", "message TEXT", and last "verdict WORD", which is ok,
// damaged, cannot_tell or failed. An answer without a verdict is a failure. Exit code 0 when a verdict was given.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "common/check/sandbox.h"
#include "common/check/sqlite_checks.h"

namespace {

using litefleet::check::Limits;
using litefleet::check::SandboxLimits;
using litefleet::check::State;
using litefleet::check::Verdict;

constexpr int kDatabaseFd = 3;

void PrintLine(std::string line) {
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = write(STDOUT_FILENO, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

const char* WordOf(State state) {
  switch (state) {
    case State::kOk:
      return "ok";
    case State::kDamaged:
      return "damaged";
    case State::kCannotTell:
      return "cannot_tell";
    case State::kFailed:
      return "failed";
  }
  return "failed";
}

}  // namespace

int main(int argc, char** argv) {
  // Not for people: the limits come in a fixed order.
  if (argc != 5) {
    constexpr std::string_view kUsage =
        "litefleet-check is started by litefleet; usage: litefleet-check HEAP_BYTES LENGTH_BYTES SECONDS MESSAGES\n";
    if (write(STDERR_FILENO, kUsage.data(), kUsage.size()) < 0) return 1;
    return 2;
  }
  Limits limits;
  limits.heap_bytes = std::atoll(argv[1]);
  limits.length_bytes = std::atoll(argv[2]);
  limits.time = std::chrono::seconds(std::atoll(argv[3]));
  limits.max_messages = std::atoi(argv[4]);
  SandboxLimits sandbox;
  sandbox.address_space_bytes = limits.heap_bytes + (256 << 20);
  sandbox.cpu_seconds = limits.time.count() + 10;
  if (const std::string problem = litefleet::check::EnterSandbox(sandbox, kDatabaseFd); !problem.empty()) {
    PrintLine("message the sandbox could not be closed: " + problem);
    PrintLine("verdict failed");
    return 0;
  }
  const Verdict verdict =
      litefleet::check::RunChecks(kDatabaseFd, limits, [](int64_t bytes) { PrintLine("progress " + std::to_string(bytes)); });
  for (const std::string& message : verdict.messages) PrintLine("message " + message);
  PrintLine(std::string("verdict ") + WordOf(verdict.state));
  return 0;
}
