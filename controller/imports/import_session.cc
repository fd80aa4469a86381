#include "controller/imports/import_session.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "controller/imports/imports.h"
#include "fmt/format.h"

namespace litefleet::imports {
namespace {

using Code = absl::StatusCode;

constexpr size_t kMaxPiece = 256 << 10;
constexpr size_t kMaxName = 255;
constexpr std::chrono::milliseconds kTellEvery{300};

absl::Status Invalid(std::string_view reason, const std::string& message) { return Error(Code::kInvalidArgument, reason, message); }

absl::Status OutOfOrder() { return Invalid("IMPORT_OUT_OF_ORDER", "an import is one begin, then the pieces of the file, then one end"); }

}  // namespace

ImportSession::ImportSession(Imports& imports, std::string ordered_by, Stream stream)
    : imports_(imports), ordered_by_(std::move(ordered_by)), stream_(std::move(stream)), heard_(imports.deps().clock.Steady()) {}

ImportSession::~ImportSession() = default;

absl::StatusOr<bool> ImportSession::Handle(const v1::ImportSnapshotRequest& request) {
  {
    MutexLock lock(mu_);
    handling_ = true;
  }
  absl::StatusOr<bool> handled = Error(Code::kCancelled, "CANCELLED", "the import was cancelled");
  if (!cancel_->cancelled()) handled = Dispatch(request);
  if (!handled.ok()) failed_ = handled.status();
  MutexLock lock(mu_);
  handling_ = false;
  heard_ = imports_.deps().clock.Steady();
  return handled;
}

absl::StatusOr<bool> ImportSession::Dispatch(const v1::ImportSnapshotRequest& request) {
  switch (request.message_case()) {
    case v1::ImportSnapshotRequest::kBegin:
      LF_RETURN_IF_ERROR(state_ == State::kNew ? Begin(request.begin()) : OutOfOrder());
      return false;
    case v1::ImportSnapshotRequest::kPiece:
      LF_RETURN_IF_ERROR(state_ == State::kReceiving ? Piece(request.piece()) : OutOfOrder());
      return false;
    case v1::ImportSnapshotRequest::kEnd:
      LF_RETURN_IF_ERROR(state_ == State::kReceiving ? HandOver(request.end()) : OutOfOrder());
      return true;
    case v1::ImportSnapshotRequest::MESSAGE_NOT_SET:
      break;
  }
  return OutOfOrder();
}

absl::Status ImportSession::Begin(const v1::ImportBegin& begin) {
  const ImportOptions& options = imports_.options();
  if (begin.bytes() <= 0) return Invalid("BEGIN_INVALID", fmt::format("a file of {} bytes is no database and no SQL text", begin.bytes()));
  if (begin.file_name().size() > kMaxName || begin.file_name().find('/') != std::string::npos)
    return Invalid("BEGIN_INVALID", fmt::format("the file's name is at most {} bytes, and no path", kMaxName));
  if (begin.bytes() > options.max_bytes) {
    return Error(Code::kFailedPrecondition, "IMPORT_TOO_LARGE",
                 fmt::format("the file has {} bytes, and {} are the most", begin.bytes(), options.max_bytes));
  }
  LF_RETURN_IF_ERROR(imports_.Promise(begin.bytes()));
  promised_ = begin.bytes();
  LF_ASSIGN_OR_RETURN(const v1::Database database, imports_.deps().resolve(begin.database()));
  LF_ASSIGN_OR_RETURN(job_.file, dump::TemporaryFile(options.scratch));
  LF_ASSIGN_OR_RETURN(job_.operation,
                      imports_.deps().fleet.StartLocal(v1::OPERATION_KIND_IMPORT, DeviceId(database.device_id()), database.name(),
                                                       SnapshotId(), "", ordered_by_, [cancel = cancel_] { cancel->Cancel(); }));
  job_.operation.set_device_name(database.device_name());
  job_.begin = begin;
  job_.timeline = std::max<uint64_t>(database.timeline(), 1);
  job_.cancel = cancel_;
  state_ = State::kReceiving;
  job_.operation.set_state(v1::OPERATION_STATE_RUNNING);
  job_.operation.mutable_progress()->set_total_bytes(begin.bytes());
  job_.operation.mutable_progress()->set_phase("receiving");
  LF_RETURN_IF_ERROR(imports_.deps().fleet.UpdateLocal(job_.operation));
  v1::ImportSnapshotResponse response;
  *response.mutable_operation() = job_.operation;
  stream_.send(response);
  return absl::OkStatus();
}

absl::Status ImportSession::Piece(const std::string& piece) {
  if (piece.empty() || piece.size() > kMaxPiece) return Invalid("BEGIN_INVALID", fmt::format("a piece of {} bytes", piece.size()));
  if (received_ + static_cast<int64_t>(piece.size()) > job_.begin.bytes())
    return Invalid("IMPORT_DAMAGED_ON_THE_WAY", fmt::format("more came than the {} bytes of the file", job_.begin.bytes()));
  LF_RETURN_IF_ERROR(io::PwriteAll(job_.file.get(), AsBytes(piece), static_cast<uint64_t>(received_), "the file in the scratch place"));
  promised_ -= static_cast<int64_t>(piece.size());
  imports_.GiveBack(static_cast<int64_t>(piece.size()));
  hash_.Add(AsBytes(piece));
  received_ += static_cast<int64_t>(piece.size());
  Report();
  return absl::OkStatus();
}

void ImportSession::Report() {
  const SteadyTime now = imports_.deps().clock.Steady();
  if (now - reported_ < kTellEvery) return;
  reported_ = now;
  job_.operation.mutable_progress()->set_done_bytes(received_ / 2);
  job_.operation.mutable_progress()->set_wire_bytes(received_);
  static_cast<void>(imports_.deps().fleet.UpdateLocal(job_.operation));
}

absl::Status ImportSession::HandOver(const v1::ImportEnd& end) {
  const auto digest = hash_.Finish();
  if (received_ != job_.begin.bytes() || end.sha256() != AsText(digest)) {
    return Error(Code::kDataLoss, "IMPORT_DAMAGED_ON_THE_WAY", "what came is not the file that was announced",
                 "import it again; if that happens twice, look at the machines and the network between them");
  }
  job_.sha256 = ToHex(digest);
  job_.operation.mutable_progress()->set_done_bytes(received_ / 2);
  job_.operation.mutable_progress()->set_wire_bytes(received_);
  job_.operation.mutable_progress()->set_phase("waiting");
  static_cast<void>(imports_.deps().fleet.UpdateLocal(job_.operation));
  state_ = State::kHandedOver;
  imports_.Enqueue(std::move(job_));
  v1::ImportSnapshotResponse response;
  response.mutable_received()->set_bytes(received_);
  stream_.send(response);
  return absl::OkStatus();
}

void ImportSession::End() {
  if (state_ == State::kEnded) return;
  if (state_ == State::kReceiving) {
    absl::Status why = failed_;
    if (cancel_->cancelled()) why = Error(Code::kCancelled, "CANCELLED", "the import was cancelled");
    if (why.ok()) {
      why = Error(Code::kAborted, "IMPORT_CUT", fmt::format("the connection ended after {} of {} bytes", received_, job_.begin.bytes()),
                  "import the file again");
    }
    imports_.EndOperation(job_.operation, why);
    job_.file.Reset(-1);
  }
  imports_.GiveBack(std::exchange(promised_, 0));
  state_ = State::kEnded;
  imports_.Ended(this);
}

void ImportSession::CutIfDue(SteadyTime before) {
  const bool cancelled = cancel_->cancelled();
  {
    MutexLock lock(mu_);
    if (handling_ || cut_ || (!cancelled && heard_ >= before)) return;
    cut_ = true;
  }
  stream_.close(cancelled ? Error(Code::kCancelled, "CANCELLED", "the import was cancelled")
                          : Error(Code::kDeadlineExceeded, "IMPORT_STALLED", "nothing came for a while", "import the file again"));
}

}  // namespace litefleet::imports
