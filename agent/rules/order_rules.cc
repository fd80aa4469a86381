#include "agent/rules/order_rules.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "common/base/crash_point.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/named_file.h"
#include "common/io/trusted_path.h"
#include "fmt/format.h"

namespace litefleet::rules {
namespace {

using Code = absl::StatusCode;

constexpr size_t kMaxKeyFile = 64 << 10;

const std::string& DatabaseOf(const v1::Order& order) {
  if (order.has_drop_undo()) return order.drop_undo().database();
  return order.has_undo() ? order.undo().database() : order.restore().database();
}

absl::Status CheckTrusted(const std::string& path, std::string_view reason, std::string_view what) {
  const absl::Status trusted = io::CheckTrustedPath(path, geteuid());
  if (trusted.ok()) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, reason, fmt::format("{} cannot be relied on: {}", what, MessageOf(trusted)), HintOf(trusted));
}

constexpr std::string_view kWhereKeysComeFrom = "put the public keys of your operators into it: litefleet key create prints one";

absl::Status Denied(std::string_view reason, std::string_view message, std::string_view hint) {
  return Error(Code::kPermissionDenied, reason, message, hint);
}

absl::StatusOr<std::vector<crypto::Key>> TrustedKeys(const std::string& path) {
  constexpr std::string_view kNamed = "`[restore] order_keys` of agent.toml on the device";
  // What is wrong with it stands in the device's way, and is not the order's fault.
  const auto unusable = [](const absl::Status& why) {
    return Error(Code::kFailedPrecondition, "KEY_FILE_UNSAFE", MessageOf(why), HintOf(why));
  };
  constexpr io::NamedBy kKeys{kNamed, kWhereKeysComeFrom};
  const absl::Status trusted = io::CheckTrustedPath(path, geteuid());
  if (absl::IsNotFound(trusted)) return unusable(io::NamedFileError(trusted, path, kKeys));
  LF_RETURN_IF_ERROR(CheckTrusted(path, "KEY_FILE_UNSAFE", kNamed));
  const absl::StatusOr<std::string> text = io::ReadNamedFile(path, kKeys, kMaxKeyFile);
  if (!text.ok()) return unusable(text.status());
  auto keys = crypto::OrderKeysFromPem(*text);
  if (keys.ok()) return keys;
  return Error(Code::kFailedPrecondition, "KEY_FILE_UNSAFE", fmt::format("{}: {}: {}", kNamed, path, MessageOf(keys.status())),
               kWhereKeysComeFrom);
}

// An older agent, which knows one counter alone, has taken an order since: it counts for all databases.
void TakeUpOlder(storage::v1::AgentOrderCounter& kept) {
  uint64_t known = kept.floor();
  for (const storage::v1::AgentDatabaseOrder& each : kept.databases()) known = std::max(known, each.counter());
  if (kept.counter() > known) kept.set_floor(kept.counter());
}

storage::v1::AgentDatabaseOrder& LastOf(storage::v1::AgentOrderCounter& kept, const std::string& database) {
  for (storage::v1::AgentDatabaseOrder& each : *kept.mutable_databases()) {
    if (each.database() == database) return each;
  }
  storage::v1::AgentDatabaseOrder& added = *kept.add_databases();
  added.set_database(database);
  return added;
}

}  // namespace

bool NeedsLeave(const v1::Order& order) { return order.has_restore() || order.has_undo() || order.has_drop_undo(); }

bool OrderRules::Waits(const RuleFacts& facts, const v1::Order& order) const {
  if (facts.rule != "local-confirm" || !NeedsLeave(order)) return false;
  if (order.has_expires_at() && clock_.Now() >= FromProtoTime(order.expires_at())) return false;
  return !state_.IsConfirmed(order);
}

absl::Status OrderRules::CheckConfigFile(const std::string& config_path) {
  std::error_code error;
  return CheckTrusted(std::filesystem::absolute(config_path, error), "CONFIG_NOT_TRUSTED", "push_restore in agent.toml");
}

absl::Status OrderRules::Check(const RuleFacts& facts, const v1::Order& order) {
  if (facts.rule == "allow") return absl::OkStatus();
  if (facts.rule == "local-confirm") {
    LF_RETURN_IF_ERROR(CheckConfigFile(facts.config_path));
    if (state_.IsConfirmed(order)) return absl::OkStatus();
    return Error(Code::kDeadlineExceeded, "ORDER_EXPIRED",
                 fmt::format("nobody on the device has confirmed that {} may be changed, until the order expired", DatabaseOf(order)),
                 "order it again, and confirm it there: litefleet-agent confirm OPERATION");
  }
  if (facts.rule == "signed") {
    LF_RETURN_IF_ERROR(CheckConfigFile(facts.config_path));
    if (order.has_restore()) return CheckSigned(facts, order);
    return Denied("PUSH_RESTORE_REFUSED", fmt::format("\"{}\" takes signed orders alone, and an undo is none", DatabaseOf(order)),
                  "undo it on the device: litefleet-agent undo; or restore a snapshot of before, with --sign");
  }
  return Denied(
      "PUSH_RESTORE_REFUSED", fmt::format("the device does not let \"{}\" be restored from afar", DatabaseOf(order)),
      "download the snapshot and restore it there: litefleet-agent restore-local; or set push_restore in agent.toml on the device");
}

absl::Status OrderRules::CheckSigned(const RuleFacts& facts, const v1::Order& order) {
  const v1::RestoreOrder& restore = order.restore();
  if (!restore.has_signature()) {
    return Denied("ORDER_NOT_SIGNED", fmt::format("\"{}\" takes signed orders alone", restore.database()),
                  "restore with --sign KEYFILE, by a key that the device trusts");
  }
  LF_ASSIGN_OR_RETURN(const std::vector<crypto::Key> keys, TrustedKeys(facts.order_keys));
  const std::string& payload = restore.signature().payload();
  storage::v1::SignedRestoreOrder signed_order;
  if (!crypto::OrderIsSignedBy(keys, payload, restore.signature().signature()) || !signed_order.ParseFromString(payload)) {
    return Denied("SIGNATURE_INVALID", "no key that the device trusts has signed the order",
                  fmt::format("is the operator's public key in {} on the device?", facts.order_keys));
  }
  const auto differs = [&](std::string_view what) {
    return Denied("SIGNATURE_INVALID", fmt::format("what was signed is about another {} than the order", what),
                  "somebody has changed the order on its way, or signed for another device: look at who controls the controller");
  };
  if (signed_order.device_id() != facts.device_id) return differs("device");
  if (signed_order.database() != restore.database()) return differs("database");
  if (signed_order.root_digest() != restore.root_digest()) return differs("state of the database (root digest)");
  // What is signed is a whole state.
  if (restore.tables_size() > 0) return differs("choice of tables");
  if (signed_order.format() < crypto::kOrderFormat) {
    return Denied("SIGNATURE_INVALID", "the signature is an older program's, which leaves it to the controller how the state is restored",
                  "sign with a litefleet that is as new as the agent");
  }
  if (signed_order.mode() != restore.mode()) return differs("mode");
  if (signed_order.content() != restore.content()) return differs("content");
  if (signed_order.journal_mode() != restore.journal_mode()) return differs("journal mode");
  if (signed_order.part() != restore.part()) return differs("part of a database");
  if (signed_order.check_override() != restore.check_override()) return differs("choice whether the checks count");
  if (restore.check_state() == v1::CHECK_STATE_DAMAGED && !signed_order.damaged()) return differs("verdict of the checks");
  return CheckCounter(order, signed_order);
}

absl::Status OrderRules::CheckCounter(const v1::Order& order, const storage::v1::SignedRestoreOrder& signed_order) {
  const std::string& operation = order.operation_id();
  if (operation.empty()) return absl::InvalidArgumentError("an order without an id");
  MutexLock lock(mu_);
  LF_ASSIGN_OR_RETURN(storage::v1::AgentOrderCounter kept, state_.ReadOrderCounter());
  TakeUpOlder(kept);
  storage::v1::AgentDatabaseOrder& last = LastOf(kept, signed_order.database());
  // It was taken before a restart.
  if (last.operation_id() == operation && last.counter() == signed_order.counter()) return absl::OkStatus();
  if (clock_.Now() >= FromUnixMillis(signed_order.expires_at_ms())) {
    return Error(Code::kDeadlineExceeded, "ORDER_EXPIRED",
                 fmt::format("the signed order was good until {}, and it is {} on the device",
                             FormatRfc3339(FromUnixMillis(signed_order.expires_at_ms())), FormatRfc3339(clock_.Now())),
                 "sign a new one; look at the device's clock if it is wrong");
  }
  const uint64_t taken = std::max(last.counter(), kept.floor());
  if (signed_order.counter() <= taken) {
    return Denied(
        "COUNTER_TOO_LOW",
        fmt::format("the order has the counter {}, and \"{}\" has taken {} already: it was sent before, or signed before that one",
                    signed_order.counter(), signed_order.database(), taken),
        fmt::format("sign a new one; where clocks of operators differ, with --sign-counter {}", taken + 1));
  }
  last.set_counter(signed_order.counter());
  last.set_operation_id(operation);
  kept.set_counter(std::max(kept.counter(), signed_order.counter()));
  kept.clear_operation_id();
  LF_RETURN_IF_ERROR(state_.WriteOrderCounter(kept));
  LF_CRASH_POINT("rules.counter_durable");
  return absl::OkStatus();
}

std::vector<std::string> OrderRules::Describe(const RuleFacts& facts) {
  if (facts.rule == "local-confirm") return {"wait until somebody on the device has confirmed it: litefleet-agent confirm OPERATION"};
  if (facts.rule == "signed") return {"check the signature of an operator whose key the device trusts (restore --sign)"};
  return {};
}

absl::Status OrderRules::Forget(const std::string& operation_id) {
  absl::Status forgotten = ForgetCounter(operation_id);
  forgotten.Update(state_.RemoveConfirmation(operation_id));
  return forgotten;
}

absl::Status OrderRules::ForgetCounter(const std::string& operation_id) {
  MutexLock lock(mu_);
  absl::StatusOr<storage::v1::AgentOrderCounter> kept = state_.ReadOrderCounter();
  // Such a file stops all signed orders, this one too.
  if (absl::IsDataLoss(kept.status()) || absl::IsFailedPrecondition(kept.status())) return absl::OkStatus();
  LF_RETURN_IF_ERROR(kept.status());
  TakeUpOlder(*kept);
  bool found = false;
  for (storage::v1::AgentDatabaseOrder& last : *kept->mutable_databases()) {
    if (last.operation_id() != operation_id) continue;
    last.clear_operation_id();
    found = true;
  }
  return found && !operation_id.empty() ? state_.WriteOrderCounter(*kept) : absl::OkStatus();
}

}  // namespace litefleet::rules
