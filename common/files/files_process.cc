#include "common/files/files_process.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::files {
namespace {

using Code = absl::StatusCode;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr size_t kPieceBytes = 64 << 10;
constexpr int kLookMillis = 50;  // between looks at the cancel

// Without any progress. A walk through a million names on slow flash shows none until it is over.
constexpr seconds kLease{600};

// Of the processor, for the helper: 2 MB/s at least are expected.
seconds ComputingTime(int64_t bytes) { return seconds(300 + bytes / 2'000'000); }

absl::StatusOr<size_t> ReadPiece(int fd, std::span<std::byte> out) {
  for (;;) {
    const ssize_t n = read(fd, out.data(), out.size());
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return ErrnoError(errno, "read what the helper writes");
  }
}

std::string ProgramOf(const FilesHelper& options) { return options.helper.empty() ? check::FindHelper() : options.helper; }

int64_t NumberOf(std::string_view digits) {
  int64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

absl::Status RefusedFor(const std::string& reason, const std::string& text) {
  if (reason == "FILES_TOO_LARGE")
    return Error(Code::kResourceExhausted, reason, text, "raise the limit of the [[files]] in agent.toml, or exclude what is not wanted");
  if (reason == "TOO_MANY_FILES")
    return Error(Code::kResourceExhausted, reason, text, "raise max_files of the [[files]] in agent.toml, or exclude what is not wanted");
  if (reason == "FILES_UNREADABLE")
    return Error(Code::kFailedPrecondition, reason, text, "let the agent's user read them, or exclude them in agent.toml");
  if (reason == "ROOT_MISSING" || reason == "ROOT_NOT_DIRECTORY")
    return Error(Code::kFailedPrecondition, reason, text, "look at `root` of the [[files]] in agent.toml");
  return Error(Code::kInternal, "ARCHIVE_FAILED", text);
}

}  // namespace

FilesProcess::FilesProcess(const FilesHelper& options)
    : options_(options), answer_(nullptr), lease_(options.time.count() > 0 ? options.time : kLease) {
  Progressed();
}

void FilesProcess::Progressed() { deadline_ = steady_clock::now() + lease_; }

absl::Status FilesProcess::GoesOn() const {
  if (options_.cancelled && options_.cancelled()) return Error(Code::kCancelled, "CANCELLED", "what was done with files was cancelled");
  if (steady_clock::now() < deadline_) return absl::OkStatus();
  return Error(Code::kDeadlineExceeded, "FILES_TIMEOUT", fmt::format("for {} s nothing came of what was done with files", lease_.count()),
               "look whether their file system answers (df, dmesg), and whether the machine has no time for it");
}

absl::Status FilesProcess::TakeAnswers() {
  std::array<std::byte, 4096> buffer{};
  LF_ASSIGN_OR_RETURN(const size_t n, ReadPiece(answers_, buffer));
  if (n == 0) answers_ = -1;
  return answer_.Take(AsText(ByteView(buffer).first(n))) ? absl::OkStatus() : check::HelperFailed("the helper answered nonsense");
}

absl::StatusOr<FilesProcess::Verdict> FilesProcess::WaitForVerdict() {
  while (answers_ >= 0 && answer_.verdict().empty()) {
    LF_RETURN_IF_ERROR(GoesOn());
    pollfd end{answers_, POLLIN, 0};
    if (poll(&end, 1, kLookMillis) > 0) LF_RETURN_IF_ERROR(TakeAnswers());
  }
  const std::string word = answer_.verdict();
  return Verdict{word, word.empty() ? process_->Wait() : process_->End()};
}

PackProcess::PackProcess(const FilesHelper& options) : FilesProcess(options), piece_(kPieceBytes) {}

absl::StatusOr<std::unique_ptr<PackProcess>> PackProcess::Start(const FilesHelper& options, const std::string& root, const Rules& rules,
                                                                What what) {
  std::unique_ptr<PackProcess> pack(new PackProcess(options));
  std::vector<std::string> words = {"pack", root, std::to_string(rules.max_file_bytes), std::to_string(rules.max_bytes),
                                    std::to_string(rules.max_files)};
  if (what == What::kList) words.emplace_back("list");
  if (what == What::kTolerant) words.emplace_back("tolerant");
  for (const std::string& glob : rules.include) words.push_back("include=" + glob);
  for (const std::string& glob : rules.exclude) words.push_back("exclude=" + glob);
  for (const std::string& path : rules.databases) words.push_back("database=" + path);
  LF_ASSIGN_OR_RETURN(check::HelperPipe text, check::HelperPipe::FromHelper());
  LF_ASSIGN_OR_RETURN(check::HelperPipe answers, check::HelperPipe::FromHelper());
  LF_ASSIGN_OR_RETURN(pack->process_,
                      check::HelperProcess::Start(ProgramOf(options), words, {-1, text.helper.get(), answers.helper.get()}));
  pack->text_ = text.parent.get();
  pack->answers_ = answers.parent.get();
  pack->process_->Own(std::move(text.parent));
  pack->process_->Own(std::move(answers.parent));
  return pack;
}

absl::StatusOr<ByteView> PackProcess::Next() {
  Progressed();  // what was done with the last piece took its own time
  while (!ended_) {
    LF_RETURN_IF_ERROR(GoesOn());
    std::array<pollfd, 2> ends = {pollfd{text_, POLLIN, 0}, pollfd{answers_, POLLIN, 0}};
    if (poll(ends.data(), ends.size(), kLookMillis) <= 0) continue;
    if (ends[1].revents != 0) LF_RETURN_IF_ERROR(TakeAnswers());
    if (ends[0].revents == 0) continue;
    LF_ASSIGN_OR_RETURN(const size_t n, ReadPiece(text_, piece_));
    if (n > 0) return ByteView(piece_).first(n);
    ended_ = true;
    LF_RETURN_IF_ERROR(End());
  }
  return ByteView();
}

absl::Status PackProcess::End() {
  LF_ASSIGN_OR_RETURN(const Verdict verdict, WaitForVerdict());
  const std::string& word = verdict.word;
  std::string reason, text;
  for (const std::string& message : answer_.messages()) {
    if (message.starts_with("reason ")) reason = message.substr(7);
    if (message.starts_with("text ")) text = message.substr(5);
    if (message.starts_with("note ")) notes_.push_back(message.substr(5));
    if (message.starts_with("newest ")) newest_ = FromUnixMillis(NumberOf(std::string_view(message).substr(7)));
  }
  if (word == "ok") return absl::OkStatus();
  if (word == "changed") {
    return Error(Code::kAborted, "SOURCE_CHANGED", text,
                 "exclude what is always written to, or stop the application meanwhile (before_backup)");
  }
  if (word == "refused" || word == "failed") return RefusedFor(reason, text);
  return check::HelperFailed(check::HelperProcess::HowItEnded(verdict.status));
}

UnpackProcess::UnpackProcess(const FilesHelper& options, More more) : FilesProcess(options), more_(std::move(more)) {}

absl::StatusOr<std::unique_ptr<UnpackProcess>> UnpackProcess::Start(const FilesHelper& options, More more, int64_t archive_bytes) {
  std::unique_ptr<UnpackProcess> unpack(new UnpackProcess(options, std::move(more)));
  // A pair of sockets, since a pipe that nobody reads ends who writes into it by a signal.
  LF_ASSIGN_OR_RETURN(check::HelperPipe in, check::HelperPipe::BothWays());
  LF_ASSIGN_OR_RETURN(check::HelperPipe out, check::HelperPipe::FromHelper());
  LF_ASSIGN_OR_RETURN(check::HelperPipe answers, check::HelperPipe::FromHelper());
  LF_ASSIGN_OR_RETURN(unpack->process_, check::HelperProcess::Start(ProgramOf(options),
                                                                    {"unpack", std::to_string(options.heap_bytes), "0",
                                                                     std::to_string(ComputingTime(archive_bytes).count()), "archive"},
                                                                    {in.helper.get(), out.helper.get(), answers.helper.get()}));
  unpack->archive_ = std::move(in.parent);
  unpack->frames_ = out.parent.get();
  unpack->answers_ = answers.parent.get();
  unpack->process_->Own(std::move(out.parent));
  unpack->process_->Own(std::move(answers.parent));
  return unpack;
}

absl::Status UnpackProcess::Run(const std::function<absl::Status(const Entry&)>& entry,
                                const std::function<absl::Status(ByteView)>& content) {
  FrameReader reader;
  Bytes piece(kPieceBytes);
  uint64_t left = 0;  // of the last entry's content
  for (bool ended = false;;) {
    LF_RETURN_IF_ERROR(GoesOn());
    std::array<pollfd, 3> ends = {pollfd{frames_, POLLIN, 0}, pollfd{answers_, POLLIN, 0}, pollfd{archive_.get(), POLLOUT, 0}};
    if (poll(ends.data(), ends.size(), kLookMillis) <= 0) continue;
    if (ends[1].revents != 0) LF_RETURN_IF_ERROR(TakeAnswers());
    if (ends[2].revents != 0) LF_RETURN_IF_ERROR(Feed());
    if (ends[0].revents == 0) continue;
    LF_ASSIGN_OR_RETURN(const size_t n, ReadPiece(frames_, piece));
    if (n == 0) {
      archive_.Reset(-1);
      LF_RETURN_IF_ERROR(End());
      return ended && reader.empty() ? absl::OkStatus() : check::HelperFailed("the helper ended in the middle of an archive");
    }
    Progressed();
    reader.Add(AsText(ByteView(piece).first(n)));
    bool nonsense = false;
    while (const auto frame = reader.Take(nonsense)) {
      const bool fits = !ended && (frame->type == 'D' ? frame->data.size() <= left : left == 0);
      if (!fits) return check::HelperFailed("the helper gave frames in a wrong order");
      ended = frame->type == 'Z';
      if (frame->type == 'D') {
        left -= frame->data.size();
        LF_RETURN_IF_ERROR(content(AsBytes(frame->data)));
      }
      if (frame->type == 'E') {
        left = frame->entry.kind == EntryKind::kFile ? frame->entry.size : 0;
        LF_RETURN_IF_ERROR(entry(frame->entry));
      }
      // A file that is synced to slow flash takes its time too.
      Progressed();
      LF_RETURN_IF_ERROR(GoesOn());
    }
    if (nonsense) return check::HelperFailed("the helper gave frames that are none");
  }
}

// As much as it takes at the moment.
absl::Status UnpackProcess::Feed() {
  while (archive_.valid()) {
    if (unsent_.empty()) {
      LF_ASSIGN_OR_RETURN(unsent_, more_());
      Progressed();
      if (unsent_.empty()) archive_.Reset(-1);  // its end
      continue;
    }
    const ssize_t n = send(archive_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      Progressed();
      unsent_ = unsent_.subspan(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      return absl::OkStatus();
    } else if (errno == EPIPE || errno == ECONNRESET) {
      archive_.Reset(-1);  // it has seen enough; its verdict says of what
    } else if (errno != EINTR) {
      return ErrnoError(errno, "hand an archive to the helper");
    }
  }
  return absl::OkStatus();
}

absl::Status UnpackProcess::End() {
  LF_ASSIGN_OR_RETURN(const Verdict verdict, WaitForVerdict());
  const std::string& word = verdict.word;
  if (word == "ok") return absl::OkStatus();
  if (word == "damaged") return Error(Code::kDataLoss, "ARCHIVE_INVALID", "the archive of files cannot be read: " + answer_.Text());
  if (word == "failed") return Error(Code::kInternal, "ARCHIVE_FAILED", answer_.Text());
  return check::HelperFailed(check::HelperProcess::HowItEnded(verdict.status));
}

}  // namespace litefleet::files
