// The commands: each puts its words and options into the parser and, when it was called, itself into session.action.
//
// One file a command: cmd_<noun>.cc. Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_COMMANDS_H_
#define LITEFLEET_CONTROLLER_CLI_COMMANDS_H_

#include "controller/cli/session.h"

namespace CLI {
class App;
}

namespace litefleet::cli {

void AddStatus(CLI::App& app, Session& session);
void AddToken(CLI::App& app, Session& session);
void AddDevice(CLI::App& app, Session& session);
void AddDatabase(CLI::App& app, Session& session);
void AddBackup(CLI::App& app, Session& session);
void AddSnapshot(CLI::App& app, Session& session);
void AddSnapshotDownload(CLI::App& snapshot, Session& session);
void AddSnapshotOpen(CLI::App& snapshot, Session& session);
void AddSnapshotKeep(CLI::App& snapshot, Session& session);
void AddPolicy(CLI::App& app, Session& session);
void AddStore(CLI::App& app, Session& session);
void AddRestore(CLI::App& app, Session& session);
void AddUndo(CLI::App& app, Session& session);
void AddKey(CLI::App& app, Session& session);
void AddOperation(CLI::App& app, Session& session);
void AddDoctor(CLI::App& app, Session& session);
void AddVersion(CLI::App& app, Session& session);
// `app` has all other commands already.
void AddCompletion(CLI::App& app, Session& session);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_COMMANDS_H_
