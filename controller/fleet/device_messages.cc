#include "controller/fleet/device_messages.h"

#include <set>

#include "common/base/status.h"
#include "controller/fleet/device_fleet.h"
#include "controller/fleet/transitions.h"
#include "fmt/format.h"

namespace litefleet::fleet {
namespace {

constexpr size_t kMaxWord = 256;

}  // namespace

absl::Status BadMessage(std::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_MESSAGE", what,
               "agent and controller do not understand each other: update the agent");
}

absl::Status CheckHello(const v1::Hello& hello, int max_operations) {
  if (hello.protocol_version() != kProtocolVersion) {
    return Error(absl::StatusCode::kFailedPrecondition, "PROTOCOL_VERSION",
                 fmt::format("the agent speaks protocol version {}, this controller {}", hello.protocol_version(), kProtocolVersion),
                 hello.protocol_version() > kProtocolVersion ? "update the controller" : "update the agent");
  }
  if (hello.active_operation_ids_size() > max_operations) {
    return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_OPERATIONS",
                 fmt::format("the device names {} operations, at most {} are taken", hello.active_operation_ids_size(), max_operations));
  }
  return absl::OkStatus();
}

v1::Hello CutHello(const v1::Hello& hello) {
  v1::Hello cut = hello;
  cut.clear_databases();
  cut.clear_active_operation_ids();
  cut.clear_features();
  for (int i = 0; i < std::min(hello.features_size(), 64); ++i) cut.add_features(CutText(hello.features(i), kMaxWord));
  cut.set_agent_version(CutText(hello.agent_version(), kMaxWord));
  cut.set_sqlite_version(CutText(hello.sqlite_version(), kMaxWord));
  cut.set_platform(CutText(hello.platform(), kMaxWord));
  cut.set_boot_id(CutText(hello.boot_id(), kMaxWord));
  return cut;
}

absl::StatusOr<std::vector<v1::DatabaseHealth>> CheckedDatabases(const google::protobuf::RepeatedPtrField<v1::DatabaseHealth>& databases,
                                                                 int most) {
  if (databases.size() > most) {
    return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_DATABASES",
                 fmt::format("the device reports {} databases, at most {} are taken", databases.size(), most),
                 "configure fewer databases on it");
  }
  std::vector<v1::DatabaseHealth> checked;
  std::set<std::string_view> names;
  for (const v1::DatabaseHealth& database : databases) {
    if (!IsName(database.name()) || !names.insert(database.name()).second) continue;
    v1::DatabaseHealth& cut = checked.emplace_back(database);
    cut.set_path(CutText(database.path(), kMaxText));
    cut.set_schedule(CutText(database.schedule(), kMaxWord));
    cut.set_size_bytes(std::max<int64_t>(database.size_bytes(), 0));
    cut.set_wal_bytes(std::max<int64_t>(database.wal_bytes(), 0));
    cut.set_free_bytes(std::max<int64_t>(database.free_bytes(), 0));
    if (!IsUlid(database.last_snapshot_id())) cut.clear_last_snapshot_id();
    if (database.has_last_error()) *cut.mutable_last_error() = CutError(database.last_error());
  }
  return checked;
}

v1::ControlResponse OrderMessage(const v1::Order& order) {
  v1::ControlResponse message;
  *message.mutable_order() = order;
  return message;
}

v1::ControlResponse CancelMessage(const std::string& operation) {
  v1::ControlResponse message;
  message.mutable_cancel()->set_operation_id(operation);
  return message;
}

v1::ControlResponse RecordedMessage(const std::string& operation) {
  v1::ControlResponse message;
  message.mutable_result_recorded()->set_operation_id(operation);
  return message;
}

}  // namespace litefleet::fleet
