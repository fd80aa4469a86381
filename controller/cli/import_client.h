// ImportService as the command sees it: one file, sent in pieces. gRPC stays behind this.
//
// Thread safety: none, but that Cancellable::Cancel may come from any thread. Without a deadline: who sends cancels it.
// Errors: those of the service; kUnavailable CONTROLLER_UNREACHABLE.
#ifndef LITEFLEET_CONTROLLER_CLI_IMPORT_CLIENT_H_
#define LITEFLEET_CONTROLLER_CLI_IMPORT_CLIENT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/rpc/address.h"
#include "controller/cli/admin_client.h"
#include "litefleet/v1/admin_import.pb.h"

namespace litefleet::cli {

struct ImportCalls {
  // Gets, before the first call, what ends the import from elsewhere; null when there is nothing to end any more.
  std::function<void(AdminClient::Cancellable*)> cancel;
  // Once, before the first piece.
  std::function<void(const v1::Operation&)> on_operation;
  // Fills the next piece; an empty one is the end, after which the digest of all is asked for. An error ends the import with it.
  std::function<absl::Status(std::string& piece)> next;
  std::function<std::string()> sha256;
};

// OK: all of the file is at the controller.
absl::Status SendImport(const rpc::Address& address, const std::string& identity_file, const v1::ImportBegin& begin,
                        const ImportCalls& calls);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_IMPORT_CLIENT_H_
