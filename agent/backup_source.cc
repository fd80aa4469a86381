#include "agent/backup_source.h"

#include "common/base/status.h"

namespace litefleet {

v1::Method MethodOf(const config::DatabaseConfig& database) {
  return database.method == "dump" ? v1::METHOD_DUMP : database.method == "file" || database.files ? v1::METHOD_FILE : v1::METHOD_ONLINE;
}

v1::Method MethodOf(const v1::BackupOrder& order, const config::DatabaseConfig& database) {
  return order.method() != v1::METHOD_UNSPECIFIED ? order.method() : MethodOf(database);
}

absl::StatusOr<std::unique_ptr<capture::PageSource>> BackupSource::Open() {
  if (method_ != v1::METHOD_FILE) return capture::OpenOnlineSource(options_.database);
  if (copy_ == nullptr) {
    LF_ASSIGN_OR_RETURN(copy_, capture::FileCopy::Take(options_));
  }
  return copy_->Open();
}

absl::StatusOr<std::unique_ptr<capture::TextSource>> BackupSource::OpenDumpOfCopy(const dump::DumpOptions& what,
                                                                                  const dump::HelperOptions& helper) {
  if (copy_ == nullptr) {
    LF_ASSIGN_OR_RETURN(copy_, capture::FileCopy::Take(options_));
  }
  return copy_->OpenDump(what, helper);
}

}  // namespace litefleet
