#include "common/check/checker.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <string_view>

#include "common/base/status.h"
#include "common/check/helper_answer.h"
#include "common/check/helper_process.h"
#include "fmt/format.h"

namespace litefleet::check {
namespace {

std::optional<State> StateOf(std::string_view word) {
  if (word == "ok") return State::kOk;
  if (word == "damaged") return State::kDamaged;
  if (word == "cannot_tell") return State::kCannotTell;
  if (word == "failed") return State::kFailed;
  return std::nullopt;
}

}  // namespace

std::string CheckResult::Text() const {
  std::string text;
  for (const std::string& message : verdict.messages) text += (text.empty() ? "" : "; ") + message;
  return text;
}

Checker::Checker(Options options) : options_(std::move(options)), helper_(options_.helper.empty() ? FindHelper() : options_.helper) {}

std::chrono::seconds Checker::TimeFor(int64_t bytes) { return std::chrono::seconds(300 + bytes / 5'000'000); }

CheckResult Checker::Check(int fd, const CheckRequest& request) const {
  CheckResult result;
  struct stat st {};
  if (fstat(fd, &st) != 0) {
    result.status = ErrnoError(errno, "look at the database to check");
    return result;
  }
  // The helper's own limit first, so that it can still say so.
  const std::chrono::seconds time = std::max(options_.limits.time, TimeFor(st.st_size));
  const auto deadline = std::chrono::steady_clock::now() + time + std::chrono::seconds(5);

  auto answers = HelperPipe::FromHelper();
  auto database = DuplicateForHelper(fd);
  if (!answers.ok() || !database.ok()) {
    result.status = answers.ok() ? database.status() : answers.status();
    return result;
  }
  std::vector<std::string> words = {"check", std::to_string(options_.limits.heap_bytes), std::to_string(options_.limits.length_bytes),
                                    std::to_string(time.count()), std::to_string(options_.limits.max_messages)};
  if (request.part) words.emplace_back("part");
  auto child = HelperProcess::Start(helper_, words, {-1, answers->helper.get(), -1, database->get()});
  if (!child.ok()) {
    result.status = child.status();
    return result;
  }
  answers->helper.Reset(-1);
  database->Reset(-1);
  const int read_end = answers->parent.get();
  (*child)->Own(std::move(answers->parent));
  HelperAnswer answer(request.progress);
  std::array<char, 4096> buffer;
  for (;;) {
    if (request.cancelled && request.cancelled()) {
      result.status = Error(absl::StatusCode::kCancelled, "CANCELLED", "the check was cancelled");
      return result;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      result.status =
          Error(absl::StatusCode::kDeadlineExceeded, "CHECK_TIMEOUT", fmt::format("the check took longer than {} s", time.count()));
      return result;
    }
    pollfd poller{read_end, POLLIN, 0};
    const int ready = poll(&poller, 1, 50);
    if (ready <= 0) continue;
    const ssize_t n = read(read_end, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      result.status = ErrnoError(errno, "read the answer of the check");
      return result;
    }
    if (n == 0) break;
    if (!answer.Take(std::string_view(buffer.data(), static_cast<size_t>(n)))) {
      result.status = HelperFailed("the helper answered nonsense");
      return result;
    }
  }
  if (answer.verdict().empty()) {
    result.status = HelperFailed(HelperProcess::HowItEnded((*child)->Wait()));
    return result;
  }
  (*child)->End();
  const std::optional<State> state = StateOf(answer.verdict());
  if (!state.has_value()) {
    result.status = HelperFailed("the helper answered nonsense");
    return result;
  }
  result.verdict = {.state = *state, .messages = std::move(answer.messages())};
  return result;
}

}  // namespace litefleet::check
