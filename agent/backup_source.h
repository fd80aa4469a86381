// A database's pages, read by the method that is asked for, as often as an upload needs them.
//
// Online every opening pins a state of its own. Of the method file, and of a dump that is read from a copy, the copy that the first opening
// takes is kept: what follows, after a cut link for instance, reads the same state again, and nothing is locked or written twice. Not for
// dumps of the database itself. Thread safety: none.
#ifndef LITEFLEET_AGENT_BACKUP_SOURCE_H_
#define LITEFLEET_AGENT_BACKUP_SOURCE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/file_source.h"
#include "agent/capture/online_source.h"
#include "agent/capture/page_source.h"
#include "agent/config/config.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet {

// What the order says, else what the configuration says; continuous capture aside a database is read online.
v1::Method MethodOf(const v1::BackupOrder& order, const config::DatabaseConfig& database);
v1::Method MethodOf(const config::DatabaseConfig& database);

class BackupSource {
 public:
  // `method`: METHOD_ONLINE or METHOD_FILE for Open.
  BackupSource(v1::Method method, capture::FileOptions options) : method_(method), options_(std::move(options)) {}

  v1::Method method() const { return method_; }
  absl::StatusOr<std::unique_ptr<capture::PageSource>> Open();
  // The text of a copy (capture::FileCopy::OpenDump), whatever the method.
  absl::StatusOr<std::unique_ptr<capture::TextSource>> OpenDumpOfCopy(const dump::DumpOptions& what, const dump::HelperOptions& helper);
  // COPY_GROWTH where there is a copy that may not stay.
  absl::Status CheckCopy() const { return copy_ == nullptr ? absl::OkStatus() : copy_->CheckReserve(); }
  // Lets a copy go: its blocks are free once every source of it is closed.
  void DropCopy() { copy_.reset(); }
  // Of a copy, for the operation's steps; empty without one.
  std::string Describe() const { return copy_ == nullptr ? "" : copy_->Describe(); }

 private:
  const v1::Method method_;
  const capture::FileOptions options_;
  std::shared_ptr<const capture::FileCopy> copy_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_BACKUP_SOURCE_H_
