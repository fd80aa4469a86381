// litefleet snapshot download ID --output FILE
#include <unistd.h>

#include <atomic>
#include <optional>

#include "common/base/bytes.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/download.h"
#include "controller/cli/page_writer.h"
#include "controller/cli/progress.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct DownloadOptions {
  std::string snapshot;
  std::string output;
  bool force = false;
};

CommandResult Download(Session& session, const DownloadOptions& options) {
  const bool to_stdout = options.output == "-";
  if (to_stdout && session.stdout_is_terminal()) {
    return Error(absl::StatusCode::kInvalidArgument, "TERMINAL_OUTPUT", "a database is not written to a terminal",
                 "name a file, or redirect standard output");
  }
  if (to_stdout && session.json()) {
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", "--output - and -o json both want standard output",
                 "name a file, or leave -o json out");
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::optional<NewFile> file;
  if (!to_stdout) {
    LF_ASSIGN_OR_RETURN(NewFile made, NewFile::Make(options.output, options.force));
    file.emplace(std::move(made));
  }
  Mutex mu;
  AdminClient::Cancellable* running = nullptr;  // guarded by mu
  std::atomic<bool> interrupted = false;
  Interrupts::Guard guard(session.interrupts(), [&] {
    interrupted = true;
    MutexLock lock(mu);
    if (running != nullptr) running->Cancel();
  });

  v1::Snapshot snapshot;
  std::optional<PageWriter> writer;
  RateMeter meter;
  SteadyTime drawn{};
  const SteadyTime begin = session.clock().Steady();
  absl::Status status = client->Download(
      options.snapshot,
      [&](AdminClient::Cancellable* call) {
        MutexLock lock(mu);
        running = call;
        if (call != nullptr && interrupted) call->Cancel();
      },
      [&](const v1::Snapshot& header) -> absl::Status {
        snapshot = header;
        LF_ASSIGN_OR_RETURN(RootVerifier verifier, RootVerifier::Make(header.page_size(), header.page_count(), header.root_digest()));
        writer.emplace(std::move(verifier),
                       [&](ByteView data) { return to_stdout ? io::WriteAll(STDOUT_FILENO, data, "standard output") : file->Write(data); });
        return absl::OkStatus();
      },
      [&](v1::DownloadPages pages) -> absl::Status {
        LF_RETURN_IF_ERROR(writer->Add(std::move(pages)));
        const SteadyTime now = session.clock().Steady();
        meter.Add(now, writer->bytes());
        if (now - drawn > std::chrono::milliseconds(200)) {
          drawn = now;
          session.ShowProgress(
              ProgressLine("download of " + DatabaseName(snapshot) + ":", writer->bytes(), snapshot.size_bytes(), meter.Rate()));
        }
        return absl::OkStatus();
      });
  if (status.ok()) {
    status = writer.has_value() ? writer->Finish() : Error(absl::StatusCode::kDataLoss, "TRUNCATED", "the controller sent nothing");
  }
  const int64_t done = writer.has_value() ? writer->bytes() : 0;
  session.ClearProgress();
  if (interrupted) {
    session.Warn(to_stdout ? "interrupted: what was written is not complete" : "interrupted: nothing was kept");
    return kInterrupted;
  }
  if (!status.ok()) {
    if (to_stdout && done > 0) session.Warn("what was written to standard output is not a good snapshot: throw it away");
    return Annotate(status, fmt::format("download snapshot {}", options.snapshot));
  }
  if (to_stdout) return kDone;
  LF_RETURN_IF_ERROR(file->Finish());
  if (session.json()) {
    Json result = Json::Object();
    result.Set("snapshot", snapshot.id())
        .Set("device", snapshot.device_name())
        .Set("database", snapshot.database())
        .Set("output", options.output)
        .Set("size_bytes", done)
        .Set("root_digest", ToHex(AsBytes(snapshot.root_digest())))
        .Set("verified", true);
    session.PrintJson("download", std::move(result));
  } else if (session.format() == OutputFormat::kName) {
    session.Print(options.output + "\n");
  } else if (!session.quiet()) {
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(session.clock().Steady() - begin);
    session.Print(Printable(fmt::format("{}: snapshot {} of {}, {} in {}, root digest verified", options.output, snapshot.id(),
                                        DatabaseName(snapshot), SizeText(done), DurationText(took))) +
                  "\n");
  }
  return kDone;
}

}  // namespace

void AddSnapshotDownload(CLI::App& snapshot, Session& session) {
  auto options = std::make_shared<DownloadOptions>();
  CLI::App* download = snapshot.add_subcommand("download", "Write a snapshot to a file, as the SQLite database that it is");
  download->add_option("ID", options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  download->add_option("--output", options->output, "The file to make (mode 0600), or - for standard output")
      ->required()
      ->type_name("FILE");
  download->add_flag("--force", options->force, "Overwrite FILE");
  download->footer(
      "Every byte is checked against the root digest that the device computed. FILE gets its name only\n"
      "when all of it is right and synced; else nothing is left behind, and the exit code is 8.\n"
      "With --output - the data leaves before its end could be checked: use it only if the exit code is 0.\n\n"
      "Examples:\n  litefleet snapshot download 01J9ZK --output orders.db\n  litefleet snapshot download 01J9ZK --output - | zstd > "
      "orders.db.zst");
  OnCall(download, session, options, &Download);
}

}  // namespace litefleet::cli
