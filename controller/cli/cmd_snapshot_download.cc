// litefleet snapshot download ID --output FILE [--format db|sql|csv|tar] [--table NAME]...
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/dump/csv_files.h"
#include "common/dump/dump_process.h"
#include "common/format/segment.h"
#include "common/io/named_file.h"
#include "common/io/space_guard.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/download.h"
#include "controller/cli/interrupt.h"
#include "controller/cli/receive.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

constexpr uint64_t kStaysFree = 64 << 20;

struct DownloadOptions {
  std::string snapshot;
  std::string output;
  std::string format;  // empty: as it is
  std::vector<std::string> tables;
  bool compatible = false;
  bool force = false;
};

// Standard output, or a file that gets its name at the end.
class Output {
 public:
  static absl::StatusOr<Output> Make(const DownloadOptions& options) {
    Output output;
    if (options.output == "-") return output;
    LF_ASSIGN_OR_RETURN(NewFile made, NewFile::Make(options.output, options.force));
    output.file_.emplace(std::move(made));
    return output;
  }
  absl::Status Write(ByteView data) {
    bytes_ += static_cast<int64_t>(data.size());
    return file_.has_value() ? file_->Write(data) : io::WriteAll(STDOUT_FILENO, data, "standard output");
  }
  absl::Status Finish() { return file_.has_value() ? file_->Finish() : absl::OkStatus(); }
  // Where a database is made in its place; it counts as written.
  const std::string& temporary() const { return file_->temporary(); }
  void Wrote(int64_t bytes) { bytes_ = bytes; }
  int64_t bytes() const { return bytes_; }

 private:
  std::optional<NewFile> file_;
  int64_t bytes_ = 0;
};

// Where files for a while are: beside the output, else where others are.
std::string ScratchFor(const DownloadOptions& options) {
  if (options.output != "-") return io::DirectoryOf(options.output);
  const char* const named = getenv("TMPDIR");
  return named != nullptr && *named != '\0' ? named : "/tmp";
}

absl::Status AsItIs(Session& session, const DownloadOptions& options, Output& output, Received& received) {
  const bool files = options.format == "tar";
  format::SegmentReader segments(files ? format::Content::kFiles : format::Content::kSql);
  const auto choose = [&](const v1::Snapshot& snapshot) -> absl::StatusOr<PageWriter::Write> {
    if (!files) LF_RETURN_IF_ERROR(CheckContent(snapshot));
    if (!IsText(snapshot) && !files) return PageWriter::Write([&](ByteView data) { return output.Write(data); });
    return PageWriter::Write([&](ByteView data) { return segments.Add(data, [&](ByteView text) { return output.Write(text); }); });
  };
  LF_RETURN_IF_ERROR(Receive(session, options.snapshot, choose, received));
  return IsText(received.snapshot) || files ? segments.Finish() : absl::OkStatus();
}

absl::Status TextAsDatabase(Session& session, const DownloadOptions& options, Output& output, Received& received) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(output.temporary(), O_RDWR));
  LF_RETURN_IF_ERROR(ReceiveDatabase(session, options.snapshot, fd.get(), ScratchFor(options), received));
  output.Wrote(static_cast<int64_t>(lseek(fd.get(), 0, SEEK_END)));
  return absl::OkStatus();
}

// Some tables alone, as a database.
absl::Status TablesAsDatabase(Session& session, const DownloadOptions& options, Output& output, Received& received) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd all, dump::TemporaryFile(ScratchFor(options)));
  LF_RETURN_IF_ERROR(ReceiveDatabase(session, options.snapshot, all.get(), ScratchFor(options), received));
  if (received.interrupted) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(output.temporary(), O_RDWR));
  const dump::HelperOptions helper = InterruptibleHelper(session);
  const int64_t bytes = received.snapshot.size_bytes();
  LF_ASSIGN_OR_RETURN(const auto text,
                      dump::DumpProcess::Sql(helper, {.fd = all.get(), .bytes = 0, .read = {}}, {.tables = options.tables}));
  LF_ASSIGN_OR_RETURN(const uint64_t room, io::FreeBytes(ScratchFor(options)));
  LF_ASSIGN_OR_RETURN(const auto load, dump::LoadProcess::Start(helper, fd.get(), ScratchFor(options), static_cast<int64_t>(room), bytes));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, text->Next());
    if (piece.empty()) break;
    LF_RETURN_IF_ERROR(load->Write(piece));
  }
  LF_RETURN_IF_ERROR(load->Finish());
  output.Wrote(static_cast<int64_t>(lseek(fd.get(), 0, SEEK_END)));
  return absl::OkStatus();
}

absl::Status DatabaseAsText(Session& session, const DownloadOptions& options, Output& output, Received& received) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, dump::TemporaryFile(ScratchFor(options)));
  LF_RETURN_IF_ERROR(ReceiveDatabase(session, options.snapshot, fd.get(), ScratchFor(options), received));
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<dump::DumpProcess> text,
                      dump::DumpProcess::Sql(InterruptibleHelper(session), {.fd = fd.get(), .bytes = 0, .read = {}},
                                             {.compatible = options.compatible, .tables = options.tables}));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, text->Next());
    if (piece.empty()) return absl::OkStatus();
    LF_RETURN_IF_ERROR(output.Write(piece));
  }
}

absl::Status DirectoryExists(const DownloadOptions& options) {
  return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} exists already", options.output), "name another directory");
}

// A directory that gets its name when all files are in it. Ctrl-C leaves nothing.
absl::Status DatabaseAsCsv(Session& session, const DownloadOptions& options, Received& received, dump::CsvFiles& files) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, dump::TemporaryFile(ScratchFor(options)));
  LF_RETURN_IF_ERROR(ReceiveDatabase(session, options.snapshot, fd.get(), ScratchFor(options), received));
  if (received.interrupted) return absl::OkStatus();
  const std::string part = fmt::format("{}.{}.part", options.output, getpid());
  const auto convert = [&]() -> absl::Status {
    // Text may be many times its database, and a view anything.
    io::SpaceGuard space(io::DirectoryOf(options.output), kStaysFree, "free space there, or choose tables with --table");
    const dump::CsvOptions csv{.only = options.tables, .wrote = [&](uint64_t bytes) { return space.Wrote(bytes); }};
    LF_ASSIGN_OR_RETURN(files, dump::WriteCsvFiles(InterruptibleHelper(session), fd.get(), part, csv));
    LF_RETURN_IF_ERROR(io::SyncDirectory(part));
    if (session.interrupts().raised()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the download was interrupted");
    // It came into being meanwhile.
    if (io::Exists(options.output)) return DirectoryExists(options);
    if (rename(part.c_str(), options.output.c_str()) != 0) return ErrnoError(errno, fmt::format("rename {} to {}", part, options.output));
    return absl::OkStatus();
  };
  if (const absl::Status status = convert(); !status.ok()) {
    std::error_code ignored;
    std::filesystem::remove_all(part, ignored);
    received.interrupted = session.interrupts().raised();
    return status;
  }
  for (const auto& [name, why] : files.left_out) session.Warn(Printable(fmt::format("left out {}: {}", name, why)));
  return io::SyncDirectory(io::DirectoryOf(options.output));
}

// What the snapshot is, as the format that it has as it is: asked before anything is received, since it decides where that goes.
absl::StatusOr<std::string> AskFormat(Session& session, const DownloadOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetSnapshotRequest request;
  request.set_snapshot(options.snapshot);
  LF_ASSIGN_OR_RETURN(const v1::GetSnapshotResponse response, client->GetSnapshot(request));
  const v1::Snapshot& snapshot = response.snapshot();
  if (IsFiles(snapshot) && options.tables.empty() && (options.format.empty() || options.format == "tar")) return std::string("tar");
  LF_RETURN_IF_ERROR(CheckContent(snapshot));
  if (options.format == "tar") {
    return Error(absl::StatusCode::kInvalidArgument, "CONTENT_DIFFERS", fmt::format("snapshot {} is not of files", snapshot.id()),
                 "leave --format out, or use db, sql or csv");
  }
  return std::string(IsText(snapshot) ? "sql" : "db");
}

void Say(Session& session, const DownloadOptions& options, const Received& received, int64_t bytes, size_t files,
         std::chrono::milliseconds took) {
  const v1::Snapshot& snapshot = received.snapshot;
  if (session.json()) {
    Json result = Json::Object();
    result.Set("snapshot", snapshot.id())
        .Set("device", snapshot.device_name())
        .Set("database", snapshot.database())
        .Set("output", options.output)
        .Set("format", options.format)
        .Set("size_bytes", bytes)
        .Set("root_digest", ToHex(AsBytes(snapshot.root_digest())))
        .Set("verified", true);
    session.PrintJson("download", std::move(result));
  } else if (session.format() == OutputFormat::kName) {
    session.Print(options.output + "\n");
  } else if (!session.quiet()) {
    const std::string what = options.format == "csv" ? fmt::format("{} files", files) : SizeText(bytes);
    session.Print(Printable(fmt::format("{}: snapshot {} of {}, {} in {}, root digest verified", options.output, snapshot.id(),
                                        DatabaseName(snapshot), what, DurationText(took))) +
                  "\n");
  }
}

absl::Status CheckOptions(const Session& session, const DownloadOptions& options) {
  const bool to_stdout = options.output == "-";
  if (to_stdout && session.stdout_is_terminal() && options.format != "sql") {
    return Error(absl::StatusCode::kInvalidArgument, "TERMINAL_OUTPUT", "a snapshot is not written to a terminal",
                 "name a file, or redirect standard output");
  }
  if (to_stdout && session.json()) {
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "--output - and -o json both want standard output",
                 "name a file, or leave -o json out");
  }
  if (to_stdout && options.format == "csv")
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "CSV files go into a directory", "name one with --output");
  for (const std::string& table : options.tables) LF_RETURN_IF_ERROR(CheckTableName(table));
  if (options.force && options.format == "csv") {
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "--force overwrites a file, and CSV files go into a directory",
                 "name a directory that is not there");
  }
  if (!to_stdout) LF_RETURN_IF_ERROR(io::CheckNamedOutput(options.output, "--output"));
  // Before anything is fetched.
  if (options.format == "csv" && io::Exists(options.output)) return DirectoryExists(options);
  if (options.compatible && options.format != "sql")
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "--compatible is about SQL text", "add --format sql");
  return absl::OkStatus();
}

CommandResult Download(Session& session, const DownloadOptions& given) {
  LF_RETURN_IF_ERROR(CheckOptions(session, given));
  DownloadOptions options = given;
  LF_ASSIGN_OR_RETURN(const std::string own_format, AskFormat(session, options));
  const bool is_text = own_format == "sql";
  if (options.format.empty()) options.format = own_format;
  const bool to_stdout = options.output == "-";
  const SteadyTime begin = session.clock().Steady();
  Received received;
  absl::Status status;
  dump::CsvFiles files;
  // From here on there may be something to clean up; standard output ends with the process.
  std::optional<Interrupts::Guard> guard;
  if (!to_stdout) guard.emplace(session.interrupts(), [] {});
  std::optional<Output> output;
  if (options.format == "csv") {
    while (options.output.size() > 1 && options.output.ends_with('/')) options.output.pop_back();
    status = DatabaseAsCsv(session, options, received, files);
  } else {
    if (to_stdout && options.format == "db" && (is_text || !options.tables.empty())) {
      return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "a database that is made of SQL text is not written to a pipe",
                   "name a file");
    }
    LF_ASSIGN_OR_RETURN(Output made, Output::Make(options));
    output.emplace(std::move(made));
    if (!options.tables.empty()) {
      status = options.format == "db" ? TablesAsDatabase(session, options, *output, received)
                                      : DatabaseAsText(session, options, *output, received);
    } else if (options.format == own_format) {
      status = AsItIs(session, options, *output, received);
    } else {
      status = is_text ? TextAsDatabase(session, options, *output, received) : DatabaseAsText(session, options, *output, received);
    }
  }
  // Without its name yet.
  if (output.has_value() && session.interrupts().raised()) received.interrupted = true;
  if (received.interrupted) {
    session.Warn(to_stdout ? "interrupted: what was written is not complete" : "interrupted: nothing was kept");
    return kInterrupted;
  }
  if (!status.ok()) {
    if (to_stdout && output->bytes() > 0) session.Warn("what was written to standard output is not a good snapshot: throw it away");
    return Annotate(status, fmt::format("download snapshot {}", options.snapshot));
  }
  if (output.has_value()) LF_RETURN_IF_ERROR(output->Finish());
  if (to_stdout) return kDone;
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(session.clock().Steady() - begin);
  Say(session, options, received, output.has_value() ? output->bytes() : received.bytes, files.names.size(), took);
  return kDone;
}

}  // namespace

void AddSnapshotDownload(CLI::App& snapshot, Session& session) {
  auto options = std::make_shared<DownloadOptions>();
  CLI::App* download = snapshot.add_subcommand("download", "Write a snapshot to a file: as it is, as a database, as SQL or CSV");
  download->add_option("ID", options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  download->add_option("--output", options->output, "The file to make (mode 0600), or - for standard output; for csv a new directory")
      ->required()
      ->type_name("FILE");
  download
      ->add_option("--format", options->format,
                   "db, sql, csv or tar; without it the snapshot as it is: a database, the SQL text of a dump, an archive of files")
      ->check(CLI::IsMember({"db", "sql", "csv", "tar"}))
      ->type_name("FORMAT");
  download->add_option("--table", options->tables, "Only this table, with its indexes, triggers and AUTOINCREMENT counter; repeatable")
      ->expected(1)
      ->take_all()
      ->type_name("NAME");
  download->add_flag("--compatible", options->compatible,
                     "SQL of a database: the text of the sqlite3 CLI 3.40.1, also where it loses something");
  download->add_flag("--force", options->force, "Overwrite FILE; not with csv, whose directory is always a new one");
  download->footer(
      "Every byte is checked against the root digest that the device computed. FILE gets its name only\n"
      "when all of it is right and synced; else nothing is left behind, and the exit code is 8.\n"
      "With --output - the data leaves before its end could be checked: use it only if the exit code is 0.\n"
      "Where the snapshot is turned into another format, SQLite reads it in a process without rights.\n\n"
      "Examples:\n  litefleet snapshot download 01J9ZK --output orders.db\n  litefleet snapshot download 01J9ZK --output - | zstd > "
      "orders.db.zst\n  litefleet snapshot download 01J9ZK --output orders --format csv\n"
      "  litefleet snapshot download 01J9ZK --output - | tar -tvf -     plain files");
  OnCall(download, session, options, &Download);
}

}  // namespace litefleet::cli
