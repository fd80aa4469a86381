// The agent's state directory: every path in it is made here, and what is kept in orders/, results/ and databases/ is read and
// written here.
//
//   lock                 held by the running agent, names its pid
//   identity/            key, certificate, CA (identity.h)
//   orders/ID            operations taken on, without result       storage.v1.AgentOperation
//   confirmations/ID     that somebody here has confirmed one       SHA-256 of the order, hexadecimal
//   results/ID           ended, not yet recorded by the controller  storage.v1.AgentResult
//   databases/NAME.state what is remembered of a database           storage.v1.AgentDatabase
//   ledgers/NAME.ledger  what the controller has of a database      agent/ledger/FORMAT.md
//   capture.state        what continuous capture is at              storage.v1.AgentCaptures
//   release/NAME         asked for by `litefleet-agent release`     seconds, then "released"
//   gaps/ID              times without promised states              storage.v1.AgentGap (gap_book.h)
//   connection.state     when a controller last answered            storage.v1.AgentConnection
//   policy.state         what the controller sent last of policies  storage.v1.AgentPolicy
//   restore/             owned by agent/restore
//   spool/ID             chunks of a running backup; emptied at start
//   spooled/NAME/        snapshots that wait for the controller     agent/spool/FORMAT.md
//
// A file is written beside its name, synced, renamed, and its directory synced: after a crash it is old or new, never a part. A result
// is written before its order is removed; where both exist the result counts. A file that cannot be read as what it should be, be it
// that its bytes make no sense or that the disk does not give them back, is renamed to NAME.damaged and reported once, and the agent goes
// on.
//
// Thread safety: all members may be called from any thread; two writers of one file are the caller's affair. Calls block on the disk.
#ifndef LITEFLEET_AGENT_STATE_STATE_DIRECTORY_H_
#define LITEFLEET_AGENT_STATE_STATE_DIRECTORY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/io/file.h"
#include "litefleet/storage/v1/agent_state.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::state {

class StateDirectory {
 public:
  // Makes what is missing with mode 0700. Does not lock: the agent may be at work in it.
  static absl::StatusOr<StateDirectory> Open(const std::string& path);

  // Removes temporary files that a crash left: only who has the lock knows that nobody is writing them.
  // Errors: kFailedPrecondition ALREADY_RUNNING, naming the pid.
  absl::StatusOr<io::ProcessLock> Lock() const;

  const std::string& path() const { return path_; }
  std::string identity_path() const { return path_ + "/identity"; }
  std::string spooled_path() const { return path_ + "/spooled"; }
  std::string gaps_path() const { return path_ + "/gaps"; }
  std::string restore_path() const { return path_ + "/restore"; }
  // REQUIRES: IsUlid(operation_id).
  std::string SpoolFile(const std::string& operation_id) const { return path_ + "/spool/" + operation_id; }
  // REQUIRES: IsName(database).
  std::string LedgerFile(const std::string& database) const { return path_ + "/ledgers/" + database + ".ledger"; }
  // REQUIRES: IsName(database).
  std::string ReleaseFile(const std::string& database) const { return path_ + "/release/" + database; }
  // How a release begins that an agent has taken; the end follows, in milliseconds since 1970.
  static constexpr std::string_view kReleased = "released ";
  // Removes what an earlier process left there, requests to release databases that nobody has taken, and confirmations of what is no
  // operation any more.
  absl::Status ClearSpool() const;

  // Not synced.
  absl::Status WriteCaptures(const std::string& serialized) const;
  // Nothing where no agent has written one.
  std::optional<storage::v1::AgentCaptures> ReadCaptures() const;

  // What was taken on, by id, which is by age. `damaged` gets a sentence for each file that was moved aside.
  absl::StatusOr<std::vector<storage::v1::AgentOperation>> ReadOperations(std::vector<std::string>& damaged) const;
  // REQUIRES: IsUlid(operation.operation_id()).
  absl::Status WriteOperation(const storage::v1::AgentOperation& operation) const;
  absl::Status RemoveOperation(const std::string& operation_id) const;
  // Whether it is taken on and has no result yet.
  bool HasOperation(const std::string& operation_id) const;

  absl::StatusOr<std::vector<v1::OperationResult>> ReadResults(std::vector<std::string>& damaged) const;
  // REQUIRES: IsUlid(result.operation_id()).
  absl::Status WriteResult(const v1::OperationResult& result) const;
  absl::Status RemoveResult(const std::string& operation_id) const;

  // A database that nothing is known of is on timeline 1. REQUIRES: IsName(name). Errors: kDataLoss STATE_DAMAGED.
  absl::StatusOr<storage::v1::AgentDatabase> ReadDatabase(const std::string& name) const;
  absl::Status WriteDatabase(const storage::v1::AgentDatabase& database) const;

  // That somebody on the device has confirmed this order: the file holds the SHA-256 of its bytes, so that another order of the same id is
  // not confirmed with it. A file of another user counts for nothing. REQUIRES: IsUlid(order.operation_id()).
  bool IsConfirmed(const v1::Order& order) const;
  absl::Status WriteConfirmation(const v1::Order& order) const;
  absl::Status RemoveConfirmation(const std::string& operation_id) const;

  // Of signed orders; empty where none was taken. Errors: kDataLoss STATE_DAMAGED: it is not begun anew, or old orders would count again.
  absl::StatusOr<storage::v1::AgentOrderCounter> ReadOrderCounter() const;
  absl::Status WriteOrderCounter(const storage::v1::AgentOrderCounter& counter) const;

  // Nothing where no controller has answered yet, or nobody knows.
  std::optional<storage::v1::AgentConnection> ReadConnection() const;
  absl::Status WriteConnection(const storage::v1::AgentConnection& connection) const;

  // Nothing where none was sent yet. Errors: kDataLoss STATE_DAMAGED, after which the file is aside.
  absl::StatusOr<std::optional<v1::DevicePolicy>> ReadPolicy() const;
  absl::Status WritePolicy(const v1::DevicePolicy& policy, SystemTime now) const;

 private:
  explicit StateDirectory(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace litefleet::state

#endif  // LITEFLEET_AGENT_STATE_STATE_DIRECTORY_H_
