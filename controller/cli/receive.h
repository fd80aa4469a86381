// Receives a snapshot and proves it: what commands that want its content share.
//
// Thread safety: none. Errors: those of the call, of PageWriter and RootVerifier, of the sink.
#ifndef LITEFLEET_CONTROLLER_CLI_RECEIVE_H_
#define LITEFLEET_CONTROLLER_CLI_RECEIVE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dump/dump_process.h"
#include "controller/cli/page_writer.h"
#include "controller/cli/session.h"

namespace litefleet::cli {

struct Received {
  v1::Snapshot snapshot;
  int64_t bytes = 0;  // that were given to the sink
  bool interrupted = false;
};

// Where the pages go, chosen when the snapshot's description has come. Writes are on a thread of their own, in order.
using ChooseSink = std::function<absl::StatusOr<PageWriter::Write>(const v1::Snapshot&)>;

// Every byte has passed the sink and the root digest is right when this is OK. With a progress line; Ctrl-C ends it with `interrupted`.
absl::Status Receive(Session& session, const std::string& reference, const ChooseSink& choose, Received& out);

// The snapshot as a database behind `fd` (empty, to read and write): as it is, or loaded from SQL text, with temporary files in `scratch`.
absl::Status ReceiveDatabase(Session& session, const std::string& reference, int fd, const std::string& scratch, Received& out);
// Ctrl-C ends a helper with these, where a guard keeps it from ending the process.
dump::HelperOptions InterruptibleHelper(Session& session);

// Ends with an error where the pages are neither a database nor SQL text.
absl::Status CheckContent(const v1::Snapshot& snapshot);
bool IsText(const v1::Snapshot& snapshot);
// An archive of files.
bool IsFiles(const v1::Snapshot& snapshot);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_RECEIVE_H_
