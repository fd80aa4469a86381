#include "controller/fleet/device_messages.h"

#include <algorithm>
#include <functional>
#include <set>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/fleet/device_fleet.h"
#include "controller/fleet/transitions.h"
#include "fmt/format.h"

namespace litefleet::fleet {
namespace {

constexpr size_t kMaxWord = 256;
constexpr int kMaxSentences = 16;
constexpr size_t kMaxReason = 64;

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
  uint32_t spooled = 0;
  for (const v1::DatabaseHealth& database : hello.databases()) spooled |= database.spooled_snapshots();
  if (spooled != 0) cut.add_databases()->set_spooled_snapshots(spooled);
  cut.clear_active_operation_ids();
  cut.clear_features();
  for (int i = 0; i < std::min(hello.features_size(), 64); ++i) cut.add_features(CutText(hello.features(i), kMaxWord));
  cut.set_agent_version(CutText(hello.agent_version(), kMaxWord));
  cut.set_sqlite_version(CutText(hello.sqlite_version(), kMaxWord));
  cut.set_platform(CutText(hello.platform(), kMaxWord));
  cut.set_boot_id(CutText(hello.boot_id(), kMaxWord));
  cut.set_instance_id(CutText(hello.instance_id(), kMaxWord));
  CutSentences(*cut.mutable_policy_problems());
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
    cut.set_waits_for(CutText(database.waits_for(), kMaxWord));
    cut.set_size_bytes(std::max<int64_t>(database.size_bytes(), 0));
    cut.set_wal_bytes(std::max<int64_t>(database.wal_bytes(), 0));
    cut.set_free_bytes(std::max<int64_t>(database.free_bytes(), 0));
    if (!IsUlid(database.last_snapshot_id())) cut.clear_last_snapshot_id();
    if (database.has_last_error()) *cut.mutable_last_error() = CutError(database.last_error());
  }
  return checked;
}

size_t ConfiguredAs(std::span<const v1::DatabaseHealth> databases) {
  std::string all;
  for (const v1::DatabaseHealth& database : databases)
    all += fmt::format("{}\n{}\n{}\n{}\n", database.name(), database.path(), static_cast<int>(database.method()), database.schedule());
  return std::hash<std::string>()(all);
}

void CutSentences(google::protobuf::RepeatedPtrField<std::string>& sentences) {
  if (sentences.size() > kMaxSentences) sentences.DeleteSubrange(kMaxSentences, sentences.size() - kMaxSentences);
  for (std::string& sentence : sentences) sentence = CutText(sentence, kMaxWord);
}

std::string PolicyAnswer(int64_t version, const google::protobuf::RepeatedPtrField<std::string>& problems) {
  std::string answer = std::to_string(version);
  for (int i = 0; i < std::min(problems.size(), kMaxSentences); ++i) answer += "\n" + CutText(problems[i], kMaxWord);
  return answer;
}

absl::StatusOr<v1::CoverageGap> CheckedGap(const v1::CoverageGap& gap, SystemTime now) {
  const auto is_word = [](const std::string& text) {
    return !text.empty() && text.size() <= kMaxReason &&
           text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
  };
  if (!IsUlid(gap.id()) || !IsName(gap.database()) || !gap.has_from() || !is_word(gap.reason()))
    return BadMessage("a gap without id, database, begin or reason");
  const int64_t newest = ToUnixMillis(now + std::chrono::hours(24));
  v1::CoverageGap checked = gap;
  const int64_t from_ms = std::clamp<int64_t>(TimestampMillis(gap.from()), 0, newest);
  *checked.mutable_from() = MillisTimestamp(from_ms);
  // 0 would be one that has not ended.
  if (gap.has_until())
    *checked.mutable_until() = MillisTimestamp(std::clamp<int64_t>(TimestampMillis(gap.until()), std::max<int64_t>(from_ms, 1), newest));
  checked.set_message(CutText(gap.message(), kMaxText));
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

v1::ControlResponse GapRecordedMessage(const std::string& gap) {
  v1::ControlResponse message;
  message.mutable_gap_recorded()->set_gap_id(gap);
  return message;
}

}  // namespace litefleet::fleet
