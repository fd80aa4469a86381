// Whether the device lets an order change a database: `push_restore` of agent.toml.
//
//   never          not at all: a snapshot may be downloaded and restored on the device
//   local-confirm  once somebody on the device has confirmed it (`litefleet-agent confirm`); it waits until then, or until it expires
//   signed         with a signature by a key that the device trusts and the controller does not hold
//   allow          as ordered
//
// The controller is not believed: the last two rules defend against one that was taken over. So they hold only where agent.toml itself, and
// the file of the trusted keys, can be written by root and the agent's user alone. What is signed names device, database, root digest,
// mode, what the snapshot is (content, journal mode, part, known damage), whether the checks are overridden, expiry by the device's clock,
// and a counter; the device keeps the highest counter that each database has taken, durably and before anything else is done. The operation
// that took it may look again, after a restart, until it has ended (Forget): no order is carried out twice. A device without a clock is
// defended by the counter alone.
//
// Confirmations are files STATE/confirmations/OPERATION of root or the agent's user, and hold for the order whose SHA-256 they have: the
// controller gives the ids, and may send another order by the id of one that was confirmed. Thread safety: all members may be called from
// any thread; one order of a device at a time is looked at. Ownership: borrows the state directory and the clock.
//
// Errors (reason, code):
//   PUSH_RESTORE_REFUSED  kPermissionDenied    never; or signed, and the order is an undo, which nobody can sign
//   CONFIG_NOT_TRUSTED, KEY_FILE_UNSAFE        kFailedPrecondition    others could have written them
//   ORDER_NOT_SIGNED, SIGNATURE_INVALID, COUNTER_TOO_LOW   kPermissionDenied
//   ORDER_EXPIRED         kDeadlineExceeded    by what was signed, or nobody confirmed it in time
#ifndef LITEFLEET_AGENT_RULES_ORDER_RULES_H_
#define LITEFLEET_AGENT_RULES_ORDER_RULES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::rules {

// It changes what an application has, or what is kept of it: a restore, an undo, and that what an undo needs is removed.
bool NeedsLeave(const v1::Order& order);

struct RuleFacts {
  std::string rule;         // never | local-confirm | signed | allow
  std::string config_path;  // agent.toml
  std::string order_keys;   // file of trusted public keys
  std::string device_id;
};

class OrderRules {
 public:
  OrderRules(const state::StateDirectory& state, const Clock& clock) : state_(state), clock_(clock) {}

  // Whether it still waits for a confirmation. Looks at one small file.
  bool Waits(const RuleFacts& facts, const v1::Order& order) const;
  // OK: it may be carried out. May be repeated for the same operation. REQUIRES: NeedsLeave(order).
  absl::Status Check(const RuleFacts& facts, const v1::Order& order);
  // What a plan says about it; empty: nothing.
  static std::vector<std::string> Describe(const RuleFacts& facts);

  // Whoever may write agent.toml sets the rule: CONFIG_NOT_TRUSTED where that is anybody but root and the agent's user. For whoever warns
  // of it whatever the rule is; Check refuses where the rule is one that defends.
  static absl::Status CheckConfigFile(const std::string& config_path);

  // The operation has ended, and the same order counts for nothing from now on. Before its result is forgotten: on an error it could be
  // carried out once more.
  absl::Status Forget(const std::string& operation_id);

 private:
  absl::Status CheckSigned(const RuleFacts& facts, const v1::Order& order);
  absl::Status CheckCounter(const v1::Order& order, const storage::v1::SignedRestoreOrder& signed_order);
  absl::Status ForgetCounter(const std::string& operation_id);

  const state::StateDirectory& state_;
  const Clock& clock_;
  Mutex mu_;  // of the file of counters
};

}  // namespace litefleet::rules

#endif  // LITEFLEET_AGENT_RULES_ORDER_RULES_H_
