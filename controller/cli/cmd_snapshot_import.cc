// `litefleet snapshot import FILE --to DEVICE/DATABASE`.
//
// The file is only read, byte by byte, and nothing of it is believed here. What the controller cannot see is looked at: whether an
// application has it open, what lies beside it, whether it changes meanwhile.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <span>

#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/sha256_stream.h"
#include "common/io/named_file.h"
#include "controller/cli/cmd_snapshot_import.h"
#include "controller/cli/command_support.h"
#include "controller/cli/import_client.h"
#include "controller/cli/interruptible_call.h"
#include "controller/cli/progress.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using Code = absl::StatusCode;

constexpr size_t kPiece = 256 << 10;
constexpr std::string_view kMagic("SQLite format 3\0", 16);
constexpr std::string_view kWayOut = "stop the application, or copy a consistent state: sqlite3 FILE \".backup COPY\", and import the copy";

struct ImportOptions : LongActionOptions {
  std::string file;
  std::string to;
};

struct FileFacts {
  dev_t device = 0;
  ino_t inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0;
  friend bool operator==(const FileFacts&, const FileFacts&) = default;
};

absl::StatusOr<FileFacts> LookAt(int fd, const std::string& path) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, "look at " + path);
  if (!S_ISREG(st.st_mode)) {
    return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{} is not a regular file", path),
                 "name a database file, or a file of SQL text");
  }
  return FileFacts{st.st_dev, st.st_ino, st.st_size, int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec};
}

absl::StatusOr<bool> IsDatabase(int fd, const std::string& path, int64_t bytes) {
  std::array<std::byte, kMagic.size()> head{};
  if (bytes < static_cast<int64_t>(head.size())) return false;
  LF_RETURN_IF_ERROR(io::PreadAll(fd, head, 0, path));
  return AsText(head) == kMagic;
}

// SQLite keeps what belongs to a database beside the file itself, not beside a link to it.
std::string WithoutLinks(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), &std::free);
  return real == nullptr ? path : std::string(real.get());
}

// A -wal with frames, or a journal that has not been rolled back: what they hold is not in the file, or the file is not whole without them.
absl::Status CheckBeside(const std::string& path) {
  for (const std::string_view suffix : {"-wal", "-journal"}) {
    const std::string beside = path + std::string(suffix);
    struct stat st {};
    if (stat(beside.c_str(), &st) != 0 || st.st_size == 0) continue;
    if (suffix == "-journal") {
      // One that PERSIST left has a header of zeros.
      char first = 1;
      const io::UniqueFd fd(open(beside.c_str(), O_RDONLY | O_CLOEXEC));
      if (fd.valid() && pread(fd.get(), &first, 1, 0) == 1 && first == 0) continue;
    }
    return Error(Code::kFailedPrecondition, "IMPORT_IN_USE",
                 fmt::format("{} lies beside it: {}", beside,
                             suffix == "-wal" ? "it holds commits that are not in the file" : "the file is in the middle of a transaction"),
                 kWayOut);
  }
  return absl::OkStatus();
}

// SQLite's locks, from byte 2^30 on.
absl::Status CheckLocks(int fd, const std::string& path) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0x40000000;
  lock.l_len = 512;
  if (fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "IMPORT_IN_USE", fmt::format("process {} has {} open", lock.l_pid, path), kWayOut);
}

absl::Status CheckQuiet(int fd, const std::string& path, bool database) {
  if (!database) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckLocks(fd, path));
  return CheckBeside(WithoutLinks(path));
}

absl::Status Changed(const std::string& path) {
  return Error(Code::kFailedPrecondition, "IMPORT_IN_USE", fmt::format("{} changed while it was read", path), kWayOut);
}

struct Sent {
  v1::Operation operation;
  bool interrupted = false;
};

absl::Status Send(Session& session, const ImportOptions& options, Sent& out) {
  const absl::StatusOr<io::UniqueFd> opened = io::Open(options.file, O_RDONLY | O_NONBLOCK);  // a pipe is refused, not waited for
  if (!opened.ok()) {
    return io::NamedFileError(opened.status(), options.file, {"FILE", "name a database file, or a file of SQL text, on this machine"});
  }
  const io::UniqueFd& fd = *opened;
  LF_ASSIGN_OR_RETURN(const FileFacts before, LookAt(fd.get(), options.file));
  if (before.bytes == 0) {
    return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{} is empty", options.file),
                 "name a database file, or a file of SQL text");
  }
  LF_ASSIGN_OR_RETURN(const bool database, IsDatabase(fd.get(), options.file, before.bytes));
  LF_RETURN_IF_ERROR(CheckQuiet(fd.get(), options.file, database));
  LF_ASSIGN_OR_RETURN(const rpc::Address address, session.ServerAddress());

  v1::ImportBegin begin;
  begin.set_database(options.to);
  const size_t slash = options.file.rfind('/');
  begin.set_file_name(options.file.substr(slash == std::string::npos ? 0 : slash + 1));
  begin.set_bytes(before.bytes);
  *begin.mutable_modified_at() = MillisTimestamp(before.modified_ns / 1'000'000);

  InterruptibleCall interruptible(session.interrupts());
  format::Sha256Stream hash;
  RateMeter meter;
  SteadyTime drawn{};
  int64_t sent = 0;
  ImportCalls calls;
  calls.cancel = [&](AdminClient::Cancellable* call) { interruptible.Set(call); };
  calls.on_operation = [&](const v1::Operation& operation) { out.operation = operation; };
  calls.next = [&](std::string& piece) -> absl::Status {
    piece.resize(static_cast<size_t>(std::min<int64_t>(kPiece, before.bytes - sent)));
    const absl::Status read =
        io::PreadAll(fd.get(), std::as_writable_bytes(std::span(piece.data(), piece.size())), static_cast<uint64_t>(sent), options.file);
    if (absl::IsOutOfRange(read)) return Changed(options.file);
    LF_RETURN_IF_ERROR(read);
    hash.Add(AsBytes(piece));
    sent += static_cast<int64_t>(piece.size());
    if (piece.empty()) {
      LF_ASSIGN_OR_RETURN(const FileFacts at_end, LookAt(fd.get(), options.file));
      if (at_end != before) return Changed(options.file);
      LF_RETURN_IF_ERROR(CheckQuiet(fd.get(), options.file, database));
    }
    const SteadyTime now = session.clock().Steady();
    meter.Add(now, sent);
    if (now - drawn > std::chrono::milliseconds(200)) {
      drawn = now;
      session.ShowProgress(ProgressLine("import into " + options.to + ": sending", sent, before.bytes, meter.Rate()));
    }
    return absl::OkStatus();
  };
  calls.sha256 = [&] { return std::string(AsText(hash.Finish())); };
  const absl::Status status = SendImport(address, session.IdentityFile(), begin, calls);
  session.ClearProgress();
  out.interrupted = interruptible.interrupted();
  return status;
}

CommandResult Import(Session& session, const ImportOptions& options) {
  Sent sent;
  const absl::Status status = Send(session, options, sent);
  if (sent.interrupted && !status.ok()) {
    session.Warn("interrupted: nothing was imported");
    return kInterrupted;
  }
  if (!status.ok()) return Annotate(status, fmt::format("import {}", options.file));
  return FinishOperation(session, sent.operation, options, [&](const v1::Operation& ended) -> CommandResult {
    LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
    v1::GetSnapshotRequest get;
    get.set_snapshot(ended.snapshot_id());
    LF_ASSIGN_OR_RETURN(const v1::GetSnapshotResponse found, client->GetSnapshot(get));
    const v1::Snapshot& snapshot = found.snapshot();
    if (snapshot.source_check() == v1::CHECK_STATE_DAMAGED)
      session.Warn("SQLite finds damage in the file, which was imported as it is: " + snapshot.source_check_message());
    if (session.json()) {
      session.PrintJson("operation", ToJson(ended));
    } else if (session.format() == OutputFormat::kName) {
      session.Print(snapshot.id() + "\n");
    } else if (!session.quiet()) {
      session.Print(Printable(fmt::format("{}: snapshot {} of {}, {}", options.file, snapshot.id(), DatabaseName(snapshot),
                                          SizeText(snapshot.size_bytes()))) +
                    "\n");
    }
    return kDone;
  });
}

}  // namespace

void AddSnapshotImport(CLI::App& snapshot, Session& session) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* import = snapshot.add_subcommand("import", "Make a snapshot of a database file or of SQL text that you have");
  import->add_option("FILE", options->file, "A database that no application has open, or SQL text as `sqlite3 .dump` writes it")
      ->required();
  import->add_option("--to", options->to, "The known database that it is for")->required()->type_name("DEVICE/DATABASE");
  AddLongActionOptions(import, *options, false);
  import->footer(
      "SQL text is loaded, and SQLite's checks run, in a process without rights on the controller. The snapshot can be downloaded,\n"
      "drilled and restored as any other, by its id: it never counts as the newest state of the database, `restore --at` does not\n"
      "find it, and retention leaves it alone until you delete it.\n\n"
      "Examples:\n  litefleet snapshot import orders.db --to kiosk-7/orders\n  litefleet snapshot import orders.sql --to kiosk-7/orders");
  OnCall(import, session, options, &Import);
}

}  // namespace litefleet::cli
