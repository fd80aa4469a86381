#include "common/dump/dump_process.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include "common/base/status.h"
#include "common/dump/page_channel.h"
#include "fmt/format.h"

namespace litefleet::dump {
namespace {

using Code = absl::StatusCode;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr size_t kPiece = 64 << 10;
constexpr int kLook = 50;            // ms, between looks at the cancel
constexpr int kTemporaryFiles = 12;  // a sort of SQLite has a few
constexpr std::string_view kNoPartHint = "take the tables that it is made of, all of them, or the database as a whole";

// 2 MB/s at least are expected.
seconds TimeFor(const HelperOptions& options, int64_t bytes) {
  return options.time.count() > 0 ? options.time : seconds(300 + bytes / 2'000'000);
}

std::vector<std::string> Words(std::string mode, const HelperOptions& options, seconds time) {
  return {std::move(mode), std::to_string(options.heap_bytes), std::to_string(options.length_bytes), std::to_string(time.count())};
}

absl::Status CheckGoingOn(const HelperOptions& options, steady_clock::time_point deadline, std::string_view what) {
  if (options.cancelled && options.cancelled()) return Error(Code::kCancelled, "CANCELLED", fmt::format("the {} was cancelled", what));
  if (steady_clock::now() < deadline) return absl::OkStatus();
  return Error(Code::kDeadlineExceeded, what == "load" ? "LOAD_TIMEOUT" : "DUMP_TIMEOUT", fmt::format("the {} took too long", what));
}

absl::StatusOr<size_t> ReadSome(int fd, std::span<std::byte> out, std::string_view what) {
  for (;;) {
    const ssize_t n = read(fd, out.data(), out.size());
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return ErrnoError(errno, fmt::format("read {}", what));
  }
}

}  // namespace

absl::StatusOr<io::UniqueFd> TemporaryFile(const std::string& directory) {
  io::UniqueFd fd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  std::string name = directory + "/.litefleet-sort-XXXXXX";
  fd = io::UniqueFd(mkostemp(name.data(), O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, "make a temporary file in " + directory);
  unlink(name.c_str());
  return fd;
}

DumpProcess::DumpProcess(const HelperOptions& options, DumpSource source, seconds time)
    : options_(options), source_(std::move(source)), deadline_(steady_clock::now() + time + seconds(5)), answer_(nullptr), piece_(kPiece) {}

absl::StatusOr<std::unique_ptr<DumpProcess>> DumpProcess::Start(const HelperOptions& options, DumpSource source,
                                                                std::vector<std::string> words) {
  if (source.fd >= 0) {
    struct stat st {};
    if (fstat(source.fd, &st) != 0) return ErrnoError(errno, "look at the database to dump");
    source.bytes = static_cast<uint64_t>(st.st_size);
  }
  const seconds time = TimeFor(options, static_cast<int64_t>(source.bytes));
  std::vector<std::string> all = Words(words[0], options, time);
  all.push_back(source.fd >= 0 ? "file" : std::to_string(source.bytes));
  all.insert(all.end(), words.begin() + 1, words.end());
  std::unique_ptr<DumpProcess> dump(new DumpProcess(options, std::move(source), time));
  LF_ASSIGN_OR_RETURN(check::HelperPipe text, check::HelperPipe::FromHelper());
  LF_ASSIGN_OR_RETURN(check::HelperPipe answers, check::HelperPipe::FromHelper());
  check::HelperPipe database;
  if (dump->source_.fd >= 0) {
    LF_ASSIGN_OR_RETURN(database.helper, check::DuplicateForHelper(dump->source_.fd));
  } else {
    LF_ASSIGN_OR_RETURN(database, check::HelperPipe::BothWays());
  }
  LF_ASSIGN_OR_RETURN(dump->process_, check::HelperProcess::Start(options.helper.empty() ? check::FindHelper() : options.helper, all,
                                                                  {-1, text.helper.get(), answers.helper.get(), database.helper.get()}));
  dump->text_ = text.parent.get();
  dump->answers_ = answers.parent.get();
  dump->channel_ = database.parent.get();
  dump->process_->Own(std::move(text.parent));
  dump->process_->Own(std::move(answers.parent));
  dump->process_->Own(std::move(database.parent));
  return dump;
}

absl::StatusOr<std::unique_ptr<DumpProcess>> DumpProcess::Sql(const HelperOptions& options, DumpSource source, const DumpOptions& what) {
  std::vector<std::string> words = {"dump"};
  if (what.compatible) words.emplace_back("compatible");
  if (what.schema_only) words.emplace_back("schema-only");
  if (what.data_only) words.emplace_back("data-only");
  for (const std::string& table : what.tables) words.push_back("table=" + table);
  for (const std::string& table : what.without) words.push_back("without=" + table);
  return Start(options, std::move(source), std::move(words));
}
absl::StatusOr<std::unique_ptr<DumpProcess>> DumpProcess::Part(const HelperOptions& options, DumpSource source,
                                                               const std::vector<std::string>& tables) {
  std::vector<std::string> words = {"dump", "part"};
  for (const std::string& table : tables) words.push_back("table=" + table);
  return Start(options, std::move(source), std::move(words));
}
absl::StatusOr<std::unique_ptr<DumpProcess>> DumpProcess::Csv(const HelperOptions& options, DumpSource source, const std::string& table) {
  return Start(options, std::move(source), {"csv", "table=" + table});
}
absl::StatusOr<std::unique_ptr<DumpProcess>> DumpProcess::Tables(const HelperOptions& options, DumpSource source) {
  return Start(options, std::move(source), {"tables"});
}

absl::StatusOr<ByteView> DumpProcess::Next() {
  while (!ended_) {
    LF_RETURN_IF_ERROR(CheckGoingOn(options_, deadline_, "dump"));
    std::array<pollfd, 3> files = {pollfd{text_, POLLIN, 0}, pollfd{channel_, POLLIN, 0}, pollfd{answers_, POLLIN, 0}};
    if (poll(files.data(), files.size(), kLook) <= 0) continue;
    if (files[1].revents != 0) LF_RETURN_IF_ERROR(Serve());
    if (files[2].revents != 0) LF_RETURN_IF_ERROR(TakeAnswers());
    if (files[0].revents == 0) continue;
    LF_ASSIGN_OR_RETURN(const size_t n, ReadSome(text_, piece_, "the dump"));
    if (n > 0) return ByteView(piece_).first(n);
    ended_ = true;
    LF_RETURN_IF_ERROR(Verdict());
  }
  return ByteView();
}

absl::Status DumpProcess::Serve() {
  std::array<std::byte, kChannelRequestBytes> raw{};
  size_t have = 0;
  while (have < raw.size()) {
    LF_ASSIGN_OR_RETURN(const size_t n, ReadSome(channel_, std::span(raw).subspan(have), "what the helper asks for"));
    if (n == 0) {
      channel_ = -1;  // it has ended
      return absl::OkStatus();
    }
    have += n;
  }
  const std::optional<ChannelRequest> request = DecodeChannelRequest(raw, source_.bytes);
  if (!request.has_value()) return check::HelperFailed("the helper asked for nonsense");
  page_.assign(4 + request->bytes, std::byte{0});
  LF_RETURN_IF_ERROR(source_.read(request->offset, std::span(page_).subspan(4)));
  read_bytes_ += request->bytes;
  // The helper waits for this, so that it does not block for long; one that does not take it is ended by its deadline or by us.
  for (size_t at = 0; at < page_.size();) {
    const ssize_t n = send(channel_, page_.data() + at, page_.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      at += static_cast<size_t>(n);
      continue;
    }
    if (errno == EPIPE || errno == ECONNRESET) {
      channel_ = -1;
      return absl::OkStatus();
    }
    if (errno != EAGAIN && errno != EINTR) return ErrnoError(errno, "answer the helper");
    LF_RETURN_IF_ERROR(CheckGoingOn(options_, deadline_, "dump"));
    pollfd file{channel_, POLLOUT, 0};
    poll(&file, 1, kLook);
  }
  return absl::OkStatus();
}

absl::Status DumpProcess::TakeAnswers() {
  std::array<std::byte, 4096> buffer{};
  LF_ASSIGN_OR_RETURN(const size_t n, ReadSome(answers_, buffer, "what the helper says"));
  if (n == 0) answers_ = -1;
  if (!answer_.Take(AsText(ByteView(buffer).first(n)))) return check::HelperFailed("the helper answered nonsense");
  return absl::OkStatus();
}

// Everything was read: how did it end?
absl::Status DumpProcess::Verdict() {
  while (answers_ >= 0 && answer_.verdict().empty()) {
    LF_RETURN_IF_ERROR(CheckGoingOn(options_, deadline_, "dump"));
    pollfd file{answers_, POLLIN, 0};
    if (poll(&file, 1, kLook) > 0) LF_RETURN_IF_ERROR(TakeAnswers());
  }
  const std::string word = answer_.verdict();
  const int status = word.empty() ? process_->Wait() : process_->End();
  if (word == "ok") return absl::OkStatus();
  const std::string text = answer_.Text();
  if (word == "damaged")
    return Error(Code::kDataLoss, "DATABASE_DAMAGED", text, "back it up by the method online, which copies what is readable");
  if (word == "no_table") return Error(Code::kNotFound, "TABLE_NOT_FOUND", text, "name one that the snapshot has, or leave it out for all");
  if (word == "no_part") return Error(Code::kFailedPrecondition, "DUMP_REFUSED", text, std::string(kNoPartHint));
  if (word == "refused") {
    return Error(Code::kFailedPrecondition, "DUMP_REFUSED", text,
                 "only its application can read that; a copy of the pages (methods online and file, format db) needs nothing of it");
  }
  if (word == "failed") {
    return Error(Code::kResourceExhausted, "DUMP_FAILED", text,
                 "a row of more than 128 MiB is not dumped, if it was that; a copy of the pages (methods online and file, format db) has "
                 "no such limit");
  }
  return check::HelperFailed(check::HelperProcess::HowItEnded(status));
}

LoadProcess::LoadProcess(const HelperOptions& options, seconds time)
    : options_(options), deadline_(steady_clock::now() + time + seconds(5)), answer_(nullptr) {}

absl::StatusOr<std::unique_ptr<LoadProcess>> LoadProcess::Start(const HelperOptions& options, int database, const std::string& scratch,
                                                                int64_t most_bytes, int64_t text_bytes) {
  return StartAs(options, database, scratch, most_bytes, text_bytes, nullptr);
}

absl::StatusOr<std::unique_ptr<LoadProcess>> LoadProcess::StartMerge(const HelperOptions& options, int database, const std::string& scratch,
                                                                     int64_t most_bytes, int64_t text_bytes, const MergeOptions& merge) {
  return StartAs(options, database, scratch, most_bytes, text_bytes, &merge);
}

absl::StatusOr<std::unique_ptr<LoadProcess>> LoadProcess::StartAs(const HelperOptions& options, int database, const std::string& scratch,
                                                                  int64_t most_bytes, int64_t text_bytes, const MergeOptions* merge) {
  const seconds time = TimeFor(options, text_bytes);
  std::unique_ptr<LoadProcess> load(new LoadProcess(options, time));
  std::vector<std::string> words = Words(merge == nullptr ? "load" : "merge", options, time);
  words.push_back(std::to_string(most_bytes));
  words.push_back(std::to_string(kTemporaryFiles));
  if (merge != nullptr) {
    if (merge->may_break_keys) words.emplace_back("may-break-keys");
    for (const std::string& table : merge->tables) words.push_back("table=" + table);
  }
  // A pair of sockets, since a pipe that nobody reads ends who writes into it by a signal.
  LF_ASSIGN_OR_RETURN(check::HelperPipe text, check::HelperPipe::BothWays());
  LF_ASSIGN_OR_RETURN(check::HelperPipe answers, check::HelperPipe::FromHelper());
  std::vector<io::UniqueFd> kept;
  LF_ASSIGN_OR_RETURN(kept.emplace_back(), check::DuplicateForHelper(database));
  for (int i = 0; i < kTemporaryFiles; ++i) {
    LF_ASSIGN_OR_RETURN(const io::UniqueFd file, TemporaryFile(scratch));
    LF_ASSIGN_OR_RETURN(kept.emplace_back(), check::DuplicateForHelper(file.get()));
  }
  std::vector<int> files = {text.helper.get(), answers.helper.get(), -1};
  for (const io::UniqueFd& fd : kept) files.push_back(fd.get());
  LF_ASSIGN_OR_RETURN(load->process_,
                      check::HelperProcess::Start(options.helper.empty() ? check::FindHelper() : options.helper, words, files));
  load->text_ = std::move(text.parent);
  load->answers_ = answers.parent.get();
  load->process_->Own(std::move(answers.parent));
  return load;
}

// Until text can be written, or the helper has said its last word.
absl::Status LoadProcess::Wait(bool to_write) {
  while (!answered_) {
    LF_RETURN_IF_ERROR(CheckGoingOn(options_, deadline_, "load"));
    std::array<pollfd, 2> files = {pollfd{answers_, POLLIN, 0}, pollfd{to_write ? text_.get() : -1, POLLOUT, 0}};
    if (poll(files.data(), files.size(), kLook) <= 0) continue;
    if (files[0].revents != 0) {
      std::array<std::byte, 4096> buffer{};
      LF_ASSIGN_OR_RETURN(const size_t n, ReadSome(answers_, buffer, "what the helper says"));
      if (!answer_.Take(AsText(ByteView(buffer).first(n)))) return check::HelperFailed("the helper answered nonsense");
      answered_ = n == 0 || !answer_.verdict().empty();
      continue;
    }
    if (files[1].revents != 0) return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status LoadProcess::Write(ByteView text) {
  while (!text.empty()) {
    // Who stops reading has an answer.
    if (answered_) return Verdict();
    const ssize_t n = send(text_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) text = text.subspan(static_cast<size_t>(n));
    if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET)
      return ErrnoError(errno, "hand text to the helper");
    if (n < 0 && errno != EINTR) LF_RETURN_IF_ERROR(Wait(errno == EAGAIN));
  }
  return CheckGoingOn(options_, deadline_, "load");
}

absl::Status LoadProcess::Finish() {
  text_.Reset(-1);
  LF_RETURN_IF_ERROR(Wait(false));
  return Verdict();
}

absl::Status LoadProcess::Verdict() {
  const std::string word = answer_.verdict();
  const int status = word.empty() ? process_->Wait() : process_->End();
  if (word == "ok") {
    return text_.valid() ? check::HelperFailed("the helper ended before the text did") : absl::OkStatus();
  }
  const std::string message = "the SQL text could not be loaded: " + answer_.Text();
  if (word == "broken_keys") {
    return Error(Code::kFailedPrecondition, "FOREIGN_KEYS_BROKEN", answer_.Text(),
                 "name the tables that belong together; or override the check: the rows are then without their parents");
  }
  if (word == "no_part") return Error(Code::kFailedPrecondition, "LOAD_REFUSED", answer_.Text(), std::string(kNoPartHint));
  if (word == "damaged") return Error(Code::kDataLoss, "LOAD_DAMAGED", message);
  if (word == "refused") return Error(Code::kFailedPrecondition, "LOAD_REFUSED", message, "load it with the application's own SQLite");
  if (word == "failed") return Error(Code::kResourceExhausted, "LOAD_FAILED", message, "look at the free space, and at the size of rows");
  return check::HelperFailed(check::HelperProcess::HowItEnded(status));
}

}  // namespace litefleet::dump
