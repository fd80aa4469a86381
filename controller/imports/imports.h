// Files of operators become snapshots: received, checked in the helper process (where SQL text is loaded), stored by ingest as any backup.
//
// One file is checked and stored at a time; at most Options::most are on their way or wait, so scratch space is bounded by what each was
// let in with. An import is an operation of kind IMPORT from its begin on. A restart of the controller ends it: the file has no name, and
// goes.
//
// | what is left when the controller is killed | at the next start |
// |---|---|
// | while it is received, loaded or checked    | the operation has failed (IMPORT_INTERRUPTED) |
// | while it is stored                         | the same; what was stored is what an upload leaves that nobody continues |
// | after the commit                           | the same, and the snapshot is there: it names the operation |
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything; streams have ended before it goes.
// Errors of the operation: foreign_file.h; IMPORT_NOT_A_DATABASE (SQLite's words), LOAD_REFUSED, LOAD_DAMAGED, LOAD_FAILED, LOAD_TIMEOUT,
// CHECK_HELPER_FAILED, CHECK_TIMEOUT; those of an upload; IMPORT_CUT; CANCELLED.
#ifndef LITEFLEET_CONTROLLER_IMPORTS_IMPORTS_H_
#define LITEFLEET_CONTROLLER_IMPORTS_IMPORTS_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/check/checker.h"
#include "controller/fleet/fleet.h"
#include "controller/imports/foreign_file.h"
#include "controller/imports/import_session.h"
#include "controller/ingest/ingest.h"

namespace litefleet::imports {

struct ImportDeps {
  fleet::Fleet& fleet;
  ingest::Ingest& ingest;
  const Clock& clock;
  // The known database of a reference, by the device's name or id; the device may not be revoked.
  std::function<absl::StatusOr<v1::Database>(const std::string& reference)> resolve;
  // After an import: the stored copy is to be checked too. May be empty.
  std::function<void(const SnapshotId&)> on_imported;
};

struct ImportOptions {
  std::string scratch;                 // DATA/scratch
  uint64_t reserve_bytes = 256 << 20;  // of free space that no import takes
  int64_t max_bytes = int64_t{16} << 40;
  size_t most = 4;
  std::chrono::milliseconds idle{60'000};  // between two messages
  std::chrono::milliseconds look{250};
  int nice = 10;
  check::Checker::Options check;
};

class Imports {
 public:
  Imports(ImportDeps deps, ImportOptions options);
  ~Imports();
  Imports(const Imports&) = delete;
  Imports& operator=(const Imports&) = delete;

  // Ends what a former run of the controller left. Once, before the server listens.
  absl::Status Begin();

  // Errors: kResourceExhausted TOO_MANY_IMPORTS.
  absl::StatusOr<std::shared_ptr<ImportSession>> NewSession(const std::string& ordered_by, ImportSession::Stream stream);

  // Ends the one that is checked or stored; what waits is told at the next start. Idempotent.
  void Stop();

  // ---- for ImportSession
  const ImportDeps& deps() const { return deps_; }
  const ImportOptions& options() const { return options_; }
  void Enqueue(ImportJob job);
  void Ended(ImportSession* session);
  // Scratch space that may be used: free, without the reserve and what other files that are on their way will take.
  absl::StatusOr<uint64_t> Room() const;
  // Takes so much of it, until it is given back: as it is written, and when the stream has ended.
  absl::Status Promise(int64_t bytes);
  void GiveBack(int64_t bytes);
  void EndOperation(v1::Operation& operation, const absl::Status& status) const;

 private:
  void Work();
  void Watch();
  // What was cancelled while it waited for its turn.
  void EndCancelledOnes();
  void Run(ImportJob job);
  absl::StatusOr<SnapshotId> Import(ImportJob& job);
  // SQL text becomes a database of its own, which takes its place in the job.
  absl::StatusOr<ForeignFile> LoadSql(ImportJob& job, const ForeignFile& text);
  void Report(ImportJob& job, std::string_view phase, int64_t done);
  bool stopping() const;

  const ImportDeps deps_;
  const ImportOptions options_;
  const check::Checker checker_;

  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool running_ ABSL_GUARDED_BY(mu_) = false;
  int64_t promised_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<ImportJob> waiting_ ABSL_GUARDED_BY(mu_);
  std::set<std::shared_ptr<ImportSession>> sessions_ ABSL_GUARDED_BY(mu_);
  SteadyTime reported_{};  // the worker's
  std::thread worker_;
  std::thread watcher_;
};

}  // namespace litefleet::imports

#endif  // LITEFLEET_CONTROLLER_IMPORTS_IMPORTS_H_
