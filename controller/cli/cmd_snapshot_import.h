// `litefleet snapshot import`, as the others of commands.h.
#ifndef LITEFLEET_CONTROLLER_CLI_CMD_SNAPSHOT_IMPORT_H_
#define LITEFLEET_CONTROLLER_CLI_CMD_SNAPSHOT_IMPORT_H_

#include "controller/cli/session.h"

namespace CLI {
class App;
}

namespace litefleet::cli {

void AddSnapshotImport(CLI::App& snapshot, Session& session);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_CMD_SNAPSHOT_IMPORT_H_
