// One file on its way to the controller, as a state machine without gRPC: begin -> pieces -> end.
//
//   state       begin       piece       end          End (the stream is over)
//   kNew        kReceiving  error       error        kEnded, nothing was made
//   kReceiving  error       kReceiving  kHandedOver  kEnded, the operation has failed or was cancelled
//   kHandedOver error       error       error        kEnded, the operation goes on
// An error ends it as End does. The file has no name: whatever happens, nothing of it stays.
//
// Thread safety: Handle and End are called one at a time, from threads that may block (disk, catalog); idle_since and Cut from any thread.
// Ownership: its Imports outlives it. Memory: one message.
#ifndef LITEFLEET_CONTROLLER_IMPORTS_IMPORT_SESSION_H_
#define LITEFLEET_CONTROLLER_IMPORTS_IMPORT_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/format/sha256_stream.h"
#include "common/io/file.h"
#include "litefleet/v1/admin_import.pb.h"

namespace litefleet::imports {

class Imports;

// A file that has all come.
struct ImportJob {
  v1::Operation operation;
  v1::ImportBegin begin;
  uint64_t timeline = 1;
  io::UniqueFd file;
  std::string sha256;  // hexadecimal
  std::shared_ptr<CancelToken> cancel;
};

class ImportSession {
 public:
  // Neither may block; `close` ends the stream from outside, and comes at most once.
  struct Stream {
    std::function<void(const v1::ImportSnapshotResponse&)> send;
    std::function<void(const absl::Status&)> close;
  };
  ImportSession(Imports& imports, std::string ordered_by, Stream stream);
  // REQUIRES: End has returned.
  ~ImportSession();
  ImportSession(const ImportSession&) = delete;
  ImportSession& operator=(const ImportSession&) = delete;

  // After an error, which ends the stream, only End may follow. True: everything has come, and the stream ends well.
  absl::StatusOr<bool> Handle(const v1::ImportSnapshotRequest& request);
  void End();

  // Ends a stream that was cancelled, or in which nothing has come since `before`.
  void CutIfDue(SteadyTime before);

 private:
  enum class State { kNew, kReceiving, kHandedOver, kEnded };
  absl::StatusOr<bool> Dispatch(const v1::ImportSnapshotRequest& request);
  absl::Status Begin(const v1::ImportBegin& begin);
  absl::Status Piece(const std::string& piece);
  absl::Status HandOver(const v1::ImportEnd& end);
  void Report();

  // Constant after construction.
  Imports& imports_;
  const std::string ordered_by_;
  const Stream stream_;
  const std::shared_ptr<CancelToken> cancel_ = std::make_shared<CancelToken>();

  // Handle's and End's alone.
  State state_ = State::kNew;
  ImportJob job_;
  format::Sha256Stream hash_;
  int64_t received_ = 0;
  int64_t promised_ = 0;  // of scratch space, not yet written
  SteadyTime reported_{};
  absl::Status failed_;

  Mutex mu_;
  SteadyTime heard_ ABSL_GUARDED_BY(mu_);
  bool handling_ ABSL_GUARDED_BY(mu_) = false;
  bool cut_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::imports

#endif  // LITEFLEET_CONTROLLER_IMPORTS_IMPORT_SESSION_H_
