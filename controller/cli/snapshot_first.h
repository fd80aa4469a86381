// A snapshot of what a restore is going to replace: taken just before it, and pinned for a time, so that no policy drops it until then.
//
// The device keeps the state of before a restore too, as a file, but on its own disk, for a day and until the next restore. This one is at
// the controller, and any restore puts it back. What is committed between the snapshot and the restore is in the device's file alone.
// Thread safety: none. `session` and `client` outlive it.
#ifndef LITEFLEET_CONTROLLER_CLI_SNAPSHOT_FIRST_H_
#define LITEFLEET_CONTROLLER_CLI_SNAPSHOT_FIRST_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "controller/cli/admin_client.h"
#include "controller/cli/json.h"
#include "controller/cli/session.h"
#include "controller/cli/waves.h"

namespace litefleet::cli {

class SnapshotFirst {
 public:
  // `pin_for`: as `litefleet snapshot pin --for`.
  SnapshotFirst(Session& session, AdminClient& client, std::chrono::seconds expire, std::chrono::seconds pin_for)
      : session_(session), client_(client), expire_(expire), pin_for_(pin_for), began_(session.clock().Now()) {}

  // `item` puts `restored`, a snapshot's id, into `target` ("DEVICE/DATABASE"), and begins only after a snapshot of that.
  void AddTo(WaveItem& item, const std::string& target, const std::string& restored);

  // What FinishOperations puts into a restore's document: before_snapshot, before_pinned_until.
  void AddTo(const v1::Operation& restore, Json& item) const;
  // How to go back, and how to drop it; of all of them.
  void TellHowToGoBack() const;

 private:
  absl::StatusOr<v1::Operation> Begin(const std::string& target, const std::string& request_id);
  // Pins it. SNAPSHOT_OF_PART where the device backs up a part of the database alone. Where an operator has dropped it since: the restore
  // that it was for.
  absl::StatusOr<std::optional<v1::Operation>> Keep(const std::string& target, const std::string& restored, const v1::Operation& backup);
  // Nobody can be asked for a request id: what the same operator ordered of the same state into the same database, after this backup.
  absl::StatusOr<std::optional<v1::Operation>> RestoreBehind(const v1::Operation& backup, const std::string& restored);

  Session& session_;
  AdminClient& client_;
  const std::chrono::seconds expire_;
  const std::chrono::seconds pin_for_;
  const SystemTime began_;
  std::map<std::string, v1::Snapshot> snapshots_;  // by target
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_SNAPSHOT_FIRST_H_
