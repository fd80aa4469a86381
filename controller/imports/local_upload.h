// A database file of the controller's own becomes a snapshot by the way that every backup takes: offers, chunks, commit (ingest).
//
// Not for live databases: the file must not change. Thread safety: a function; blocks. Memory: one extent, and what the upload session has.
// Errors: those of an upload session; kCancelled CANCELLED; kDeadlineExceeded STORE_STALLED where nothing became durable for two minutes.
#ifndef LITEFLEET_CONTROLLER_IMPORTS_LOCAL_UPLOAD_H_
#define LITEFLEET_CONTROLLER_IMPORTS_LOCAL_UPLOAD_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "controller/ingest/ingest.h"

namespace litefleet::imports {

struct LocalUpload {
  DeviceId device;
  std::string provenance;
  v1::UploadBegin begin;    // without page count and content
  v1::UploadCommit commit;  // without root and page count
  int fd = -1;
  std::string name;  // of the file, for errors
  uint32_t page_count = 0;
};

// `cancelled` is asked before each extent; `progress` gets the bytes dealt with.
absl::StatusOr<SnapshotId> StoreDatabase(ingest::Ingest& ingest, const LocalUpload& upload, const std::function<bool()>& cancelled,
                                         const std::function<void(int64_t)>& progress);

}  // namespace litefleet::imports

#endif  // LITEFLEET_CONTROLLER_IMPORTS_LOCAL_UPLOAD_H_
