#include "controller/cli/receive.h"

#include <unistd.h>

#include <memory>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/segment.h"
#include "common/io/file.h"
#include "controller/cli/interruptible_call.h"
#include "controller/cli/progress.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {

absl::Status Receive(Session& session, const std::string& reference, const ChooseSink& choose, Received& out) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  InterruptibleCall interruptible(session.interrupts());
  std::optional<PageWriter> writer;
  RateMeter meter;
  SteadyTime drawn{};
  absl::Status status = client->Download(
      reference, [&](AdminClient::Cancellable* call) { interruptible.Set(call); },
      [&](const v1::Snapshot& header) -> absl::Status {
        out.snapshot = header;
        LF_ASSIGN_OR_RETURN(RootVerifier verifier, RootVerifier::Make(header.page_size(), header.page_count(), header.root_digest()));
        LF_ASSIGN_OR_RETURN(PageWriter::Write write, choose(header));
        writer.emplace(std::move(verifier), std::move(write));
        return absl::OkStatus();
      },
      [&](v1::DownloadPages pages) -> absl::Status {
        LF_RETURN_IF_ERROR(writer->Add(std::move(pages)));
        const SteadyTime now = session.clock().Steady();
        meter.Add(now, writer->bytes());
        if (now - drawn > std::chrono::milliseconds(200)) {
          drawn = now;
          session.ShowProgress(
              ProgressLine("download of " + DatabaseName(out.snapshot) + ":", writer->bytes(), out.snapshot.size_bytes(), meter.Rate()));
        }
        return absl::OkStatus();
      });
  if (status.ok()) {
    status = writer.has_value() ? writer->Finish() : Error(absl::StatusCode::kDataLoss, "TRUNCATED", "the controller sent nothing");
  }
  out.bytes = writer.has_value() ? writer->bytes() : 0;
  out.interrupted = interruptible.interrupted();
  session.ClearProgress();
  return status;
}

bool IsText(const v1::Snapshot& snapshot) { return snapshot.content() == v1::SNAPSHOT_CONTENT_SQL; }
bool IsFiles(const v1::Snapshot& snapshot) { return snapshot.content() == v1::SNAPSHOT_CONTENT_FILES; }

absl::Status CheckContent(const v1::Snapshot& snapshot) {
  if (snapshot.content() <= v1::SNAPSHOT_CONTENT_SQL) return absl::OkStatus();
  if (IsFiles(snapshot)) {
    return Error(absl::StatusCode::kInvalidArgument, "CONTENT_DIFFERS",
                 fmt::format("snapshot {} is of files, not of a database", snapshot.id()),
                 fmt::format("download it as the archive that it is: litefleet snapshot download {} --output FILE.tar", snapshot.id()));
  }
  return Error(absl::StatusCode::kUnimplemented, "CONTENT_UNKNOWN",
               fmt::format("snapshot {} is neither a database nor SQL text nor files", snapshot.id()), "install the newer litefleet");
}

dump::HelperOptions InterruptibleHelper(Session& session) {
  dump::HelperOptions helper;
  helper.cancelled = [&session] { return session.interrupts().raised(); };
  return helper;
}

absl::Status ReceiveDatabase(Session& session, const std::string& reference, int fd, const std::string& scratch, Received& out) {
  std::unique_ptr<dump::LoadProcess> load;
  format::SegmentReader segments(format::Content::kSql);
  uint64_t at = 0;
  const auto choose = [&](const v1::Snapshot& snapshot) -> absl::StatusOr<PageWriter::Write> {
    LF_RETURN_IF_ERROR(CheckContent(snapshot));
    if (!IsText(snapshot)) {
      return PageWriter::Write([&, fd](ByteView data) {
        const uint64_t from = at;
        at += data.size();
        return io::PwriteAll(fd, data, from, "the database");
      });
    }
    LF_ASSIGN_OR_RETURN(const uint64_t room, io::FreeBytes(scratch));
    LF_ASSIGN_OR_RETURN(
        load, dump::LoadProcess::Start(InterruptibleHelper(session), fd, scratch, static_cast<int64_t>(room), snapshot.size_bytes()));
    return PageWriter::Write([&](ByteView data) { return segments.Add(data, [&](ByteView text) { return load->Write(text); }); });
  };
  LF_RETURN_IF_ERROR(Receive(session, reference, choose, out));
  if (load == nullptr) return absl::OkStatus();
  LF_RETURN_IF_ERROR(segments.Finish());
  return load->Finish();
}

}  // namespace litefleet::cli
