#include "common/copy/copy_process.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <sstream>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::copy {
namespace {

constexpr std::chrono::seconds kSilence{30};
constexpr int kLook = 20;  // ms
constexpr size_t kMaxLine = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<CopyProcess>> CopyProcess::Start(const std::string& helper, const std::string& path,
                                                                const std::vector<int>& files, GoingOn going_on) {
  std::unique_ptr<CopyProcess> copy(new CopyProcess(path, std::move(going_on)));
  LF_ASSIGN_OR_RETURN(check::HelperPipe commands, check::HelperPipe::BothWays());
  LF_ASSIGN_OR_RETURN(check::HelperPipe answers, check::HelperPipe::FromHelper());
  std::vector<io::UniqueFd> owned;
  std::vector<int> numbers = {commands.helper.get(), answers.helper.get(), -1};
  for (const int file : files) {
    LF_ASSIGN_OR_RETURN(io::UniqueFd duplicate, check::DuplicateForHelper(file));
    numbers.push_back(duplicate.get());
    owned.push_back(std::move(duplicate));
  }
  LF_ASSIGN_OR_RETURN(copy->process_, check::HelperProcess::Start(helper.empty() ? check::FindHelper() : helper,
                                                                  {"copy", path, std::to_string(files.size())}, numbers));
  copy->commands_ = commands.parent.get();
  copy->answers_ = answers.parent.get();
  copy->process_->Own(std::move(commands.parent));
  copy->process_->Own(std::move(answers.parent));
  commands.helper.Reset(-1);
  answers.helper.Reset(-1);
  LF_ASSIGN_OR_RETURN(const Answer opened, copy->Ask(""));
  if (opened.word != "opened" || opened.numbers.size() != 2) return copy->Nonsense(opened);
  copy->opened_ = {opened.numbers[0], opened.numbers[1]};
  return copy;
}

absl::StatusOr<std::optional<uint64_t>> CopyProcess::Share() {
  LF_ASSIGN_OR_RETURN(const Answer answer, Ask("share"));
  if (answer.word == "shared" && answer.numbers.size() == 1) return std::optional(answer.numbers[0]);
  if (answer.word != "cannot" || answer.numbers.size() != 1) return Nonsense(answer);
  switch (const int error = static_cast<int>(answer.numbers[0])) {
    case EOPNOTSUPP:
    case ENOTTY:
    case EXDEV:
    case EINVAL:
    case ENOSYS:
    case EPERM:  // a swap file, an immutable one, a seal
    case ETXTBSY:
      return std::nullopt;
    default:
      return ErrnoError(error, "share the blocks of " + path_);
  }
}

absl::StatusOr<uint64_t> CopyProcess::Copy() {
  LF_ASSIGN_OR_RETURN(const Answer answer, Ask("copy"));
  if (answer.word != "copied" || answer.numbers.size() != 1) return Nonsense(answer);
  return answer.numbers[0];
}

absl::StatusOr<std::optional<uint64_t>> CopyProcess::Side(const std::string& suffix, int file) {
  LF_ASSIGN_OR_RETURN(const Answer answer, Ask(fmt::format("side {} {}", suffix, file)));
  if (answer.word == "absent") return std::nullopt;
  if (answer.word != "copied" || answer.numbers.size() != 1) return Nonsense(answer);
  return std::optional(answer.numbers[0]);
}

// Nothing is said before the first answer.
absl::StatusOr<CopyProcess::Answer> CopyProcess::Ask(const std::string& command) {
  if (!command.empty()) {
    const std::string line = command + "\n";
    if (send(commands_, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
      return check::HelperFailed(check::HelperProcess::HowItEnded(process_->End()));
  }
  uint64_t done = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::string line, ReadLine(done));
    std::istringstream words(line);
    Answer answer;
    words >> answer.word;
    for (uint64_t number = 0; words >> number;) answer.numbers.push_back(number);
    if (answer.word == "failed" && answer.numbers.size() == 1) {
      const int error = static_cast<int>(answer.numbers[0]);
      return ErrnoError(error, fmt::format("{} {}", command.empty() ? "open" : "copy", path_));
    }
    if (answer.word != "progress") return answer;
    if (answer.numbers.size() != 1) return Nonsense(answer);
    done = answer.numbers[0];
  }
}

absl::StatusOr<std::string> CopyProcess::ReadLine(uint64_t done) {
  const auto until = std::chrono::steady_clock::now() + kSilence;
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    if (absl::Status status = going_on_(done); !status.ok()) {
      process_->End();
      return status;
    }
    if (std::chrono::steady_clock::now() >= until) {
      process_->End();
      return Error(absl::StatusCode::kDeadlineExceeded, "COPY_TIMEOUT",
                   fmt::format("the copy of {} made no progress for {} s", path_, kSilence.count()), "look at the disk of the device");
    }
    pollfd poller{answers_, POLLIN, 0};
    if (poll(&poller, 1, kLook) <= 0) continue;
    std::array<char, kMaxLine> buffer;
    const ssize_t n = read(answers_, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read the answer of the helper");
    if (n == 0) return check::HelperFailed(check::HelperProcess::HowItEnded(process_->Wait()));
    pending_.append(buffer.data(), static_cast<size_t>(n));
    if (pending_.size() > kMaxLine && pending_.find('\n') == std::string::npos) return check::HelperFailed("the helper answered nonsense");
  }
}

absl::Status CopyProcess::Nonsense(const Answer& answer) const {
  return check::HelperFailed(fmt::format("the helper answered \"{}\"", answer.word.substr(0, 32)));
}

}  // namespace litefleet::copy
