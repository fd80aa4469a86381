// The things of the admin API as JSON and as words: the stable names that scripts see. More members may be added, none may go.
//
// Pure functions. Enums are lower-case words, unset is null, times are RFC 3339 in UTC, digests hexadecimal, sizes bytes.
#ifndef LITEFLEET_CONTROLLER_CLI_THINGS_H_
#define LITEFLEET_CONTROLLER_CLI_THINGS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controller/cli/json.h"
#include "controller/cli/table.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

std::string Word(v1::Method value);
std::string Word(v1::JournalMode value);
std::string Word(v1::CheckState value);
std::string Word(v1::SnapshotState value);
std::string Word(v1::OperationKind value);
std::string Word(v1::OperationState value);
std::string Word(v1::DeviceState value);
std::string Word(v1::RestoreMode value);
std::string Word(v1::FindingLevel value);

Tone ToneOf(v1::CheckState state);
Tone ToneOf(v1::OperationState state);

bool HasEnded(const v1::Operation& operation);
// A device carries it out, and may be offline.
bool RunsOnDevice(v1::OperationKind kind);
// Of a restore or an undo that was cancelled while its device is away, which may have changed the database by then: what is waited for, and
// until when. Else empty.
std::string WaitsForDevice(const v1::Operation& operation);
// "backup of DEVICE/DATABASE", "prune of the store".
std::string SubjectOf(const v1::Operation& operation);
// "DEVICE/DATABASE"; empty where the operation has no device.
std::string DatabaseName(const v1::Operation& operation);
std::string DatabaseName(const v1::Snapshot& snapshot);
std::string DatabaseName(const v1::Database& database);
std::string DatabaseName(const v1::Gap& gap);
// "until 2026-11-22 14:03:05+01:00", "until it is unpinned". REQUIRES: it is pinned.
std::string PinText(const v1::Snapshot& snapshot);

Json ToJson(const v1::Token& token);
Json ToJson(const v1::Device& device);
Json ToJson(const v1::Database& database);
Json ToJson(const v1::DatabaseHealth& health);
Json ToJson(const v1::Snapshot& snapshot);
Json ToJson(const v1::Operation& operation);
Json ToJson(const v1::RestorePlan& plan);
Json ToJson(const v1::ErrorDetail& error);
Json ToJson(const v1::Finding& finding);
Json ToJson(const v1::Alarm& alarm);
Json ToJson(const v1::Gap& gap);
// Null where the time lies in no gap.
Json GapAroundJson(bool set, const v1::GapAround& gap);
Json ToJson(const v1::GetStatusResponse& status);
Json ToJson(const v1::GetStoreStatsResponse& stats);
Json ToJson(const v1::CatalogBackups& backups);
// Null: no limit.
Json QuotaJson(int64_t quota);
Json ToJson(const v1::PruneReport& report);
Json ToJson(const v1::ScrubReport& report);
// `[export]` of a policy; nothing: it exports nothing. The defaults are those of controller/retention/export_rule.h.
struct ExportOfPolicy {
  std::string format = "csv";
  std::chrono::milliseconds every = std::chrono::hours(24);
  int64_t keep = 7;
  std::vector<std::string> databases;  // empty: all
};
std::optional<ExportOfPolicy> ExportOf(const v1::Policy& policy);
Json ToJson(const v1::Policy& policy);
// Null unless `set`.
Json TimeJson(bool set, const google::protobuf::Timestamp& time);
Json LabelsJson(const google::protobuf::Map<std::string, std::string>& labels);

std::string LabelsText(const google::protobuf::Map<std::string, std::string>& labels);
std::chrono::milliseconds Millis(const google::protobuf::Duration& duration);
google::protobuf::Duration Seconds(std::chrono::seconds duration);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_THINGS_H_
