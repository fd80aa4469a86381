#include "agent/status_command.h"

#include <sys/stat.h>

#include <cctype>
#include <optional>
#include <string>
#include <vector>

#include "agent/config/policy.h"
#include "agent/control/operation_queue.h"
#include "agent/control/run_conditions.h"
#include "agent/json_text.h"
#include "agent/rules/order_rules.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "fmt/ostream.h"

namespace litefleet {
namespace {

std::string CaptureWord(v1::CaptureState state) {
  constexpr size_t kPrefix = sizeof("CAPTURE_STATE_") - 1;
  std::string word = v1::CaptureState_Name(state);
  if (word.size() < kPrefix) return "unknown";  // of a later version
  word.erase(0, kPrefix);
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word;
}

struct DatabaseLine {
  config::DatabaseConfig config;
  bool present = false;
  int64_t size = 0;
  storage::v1::AgentDatabase kept;
  std::string error;
  std::string reason;
  std::optional<v1::CaptureHealth> capture;
  spool::SnapshotSpool::Usage spooled;
  std::string waits_for;  // what a run of the schedule would wait for now
};

std::string TimeOrNull(int64_t millis) { return millis == 0 ? "null" : JsonText(FormatRfc3339(FromUnixMillis(millis))); }

std::string Ago(int64_t millis, SystemTime now) {
  if (millis == 0) return "never";
  const int64_t passed = (ToUnixMillis(now) - millis) / 1000;
  if (passed < 0) return FormatRfc3339(FromUnixMillis(millis));
  if (passed < 120) return fmt::format("{}s ago", passed);
  if (passed < 7200) return fmt::format("{}m ago", passed / 60);
  if (passed < 172800) return fmt::format("{}h ago", passed / 3600);
  return fmt::format("{}d ago", passed / 86400);
}

std::string CaptureJson(const v1::CaptureHealth& capture) {
  const int64_t lag = capture.lag().seconds() * 1000 + capture.lag().nanos() / 1'000'000;
  return fmt::format("{{\"state\":{},\"last_sync_at\":{},\"lag_ms\":{},\"doubts\":{},\"chain_checked_at\":{},\"message\":{}}}",
                     JsonText(CaptureWord(capture.state())), TimeOrNull(TimestampMillis(capture.last_sync_at())),
                     capture.has_lag() ? fmt::format("{}", lag) : "null", capture.doubts(),
                     TimeOrNull(TimestampMillis(capture.chain_checked_at())), JsonTextOrNull(capture.message()));
}

// What came from the controller, for a terminal.
std::string Plain(std::string_view text, size_t limit = 64) {
  std::string plain;
  for (const char c : text.substr(0, limit)) plain += c >= 0x20 && c < 0x7f ? c : '?';
  return plain;
}

DatabaseLine Look(const state::StateDirectory& state, const config::DatabaseConfig& config, SystemTime now) {
  DatabaseLine line;
  line.config = config;
  line.waits_for = control::WaitsFor(config.when, config.path, now);
  struct stat st {};
  line.present = stat(config.path.c_str(), &st) == 0;
  line.size = line.present ? static_cast<int64_t>(st.st_size) : 0;
  if (auto kept = state.ReadDatabase(config.name); kept.ok()) line.kept = *std::move(kept);
  line.spooled = spool::SnapshotSpool::LookAt(state.spooled_path(), config.name);
  v1::ErrorDetail error;
  if (!line.kept.last_error().empty() && error.ParseFromString(line.kept.last_error())) {
    line.error = error.message();
    line.reason = error.info().reason();
  }
  return line;
}

}  // namespace

int PrintStatus(const config::AgentConfig& own, bool json, std::ostream& out) {
  if (!io::Exists(own.state)) {
    fmt::print(stderr, "litefleet-agent: there is no state directory {}\n  enrol this device first: litefleet-agent enroll\n", own.state);
    return 4;
  }
  const absl::StatusOr<state::StateDirectory> state = state::StateDirectory::Open(own.state);
  if (!state.ok()) {
    fmt::print(stderr, "litefleet-agent: {}\n", MessageOf(state.status()));
    return absl::IsPermissionDenied(state.status()) ? 5 : 1;
  }
  const absl::StatusOr<std::optional<v1::DevicePolicy>> kept_policy = state->ReadPolicy();
  if (!kept_policy.ok()) fmt::print(stderr, "litefleet-agent: {}\n", MessageOf(kept_policy.status()));
  const v1::DevicePolicy policy = kept_policy.ok() ? kept_policy->value_or(v1::DevicePolicy()) : v1::DevicePolicy();
  const config::RuledConfig ruled = config::ApplyPolicy(own, policy);
  const config::AgentConfig& config = ruled.config;
  const RealClock clock;
  const SystemTime now = clock.Now();
  const bool running = absl::IsFailedPrecondition(state->Lock().status());
  const absl::StatusOr<state::DeviceIdentity> identity = state::LoadIdentity(config.state);
  const std::optional<storage::v1::AgentConnection> connection = state->ReadConnection();
  const bool welcomed = connection && connection->welcomed_at_ms() != 0;
  // As long as the agent runs it is of now.
  const std::string no_connection = running && connection ? connection->last_error() : "";
  std::vector<std::string> damaged;
  const auto operations = state->ReadOperations(damaged);
  const auto results = state->ReadResults(damaged);
  const size_t active = operations.ok() ? operations->size() : 0;
  std::vector<std::string> waiting;
  if (operations.ok()) {
    for (const storage::v1::AgentOperation& operation : *operations) {
      v1::Order order;
      if (!order.ParseFromString(operation.order()) || !rules::NeedsLeave(order)) continue;
      const config::DatabaseConfig* const database = config.Find(control::DatabaseOf(order));
      if (database != nullptr && database->push_restore == "local-confirm" && !state->IsConfirmed(order))
        waiting.push_back(operation.operation_id());
    }
  }
  const size_t unreported = results.ok() ? results->size() : 0;
  std::string expires;
  if (identity.ok()) {
    if (const auto expiry = state::ExpiryOf(*identity); expiry.ok()) expires = FormatRfc3339(*expiry);
  }
  std::vector<DatabaseLine> lines;
  for (const config::DatabaseConfig& database : config.databases) lines.push_back(Look(*state, database, now));
  // What an agent that has ended wrote last is no news.
  if (const auto captures = running ? state->ReadCaptures() : std::nullopt; captures.has_value()) {
    for (const storage::v1::AgentCapture& capture : captures->captures()) {
      for (DatabaseLine& line : lines) {
        v1::CaptureHealth health;
        if (line.config.name == capture.database() && health.ParseFromString(capture.health())) line.capture = health;
      }
    }
  }

  if (json) {
    std::string ids;
    for (const std::string& id : waiting) ids += (ids.empty() ? "" : ",") + JsonText(id);
    std::string items;
    for (const DatabaseLine& line : lines) {
      items += fmt::format(
          "{}{{\"name\":{},\"path\":{},\"present\":{},\"size_bytes\":{},\"timeline\":{},\"schedule\":{},\"last_run_at\":{},"
          "\"waits_for\":{},\"last_success_at\":{},\"last_snapshot\":{},\"spooled_snapshots\":{},\"spooled_bytes\":{},\"last_error\":{},"
          "\"capture\":{}}}",
          items.empty() ? "" : ",", JsonText(line.config.name), JsonText(line.config.path), line.present, line.size, line.kept.timeline(),
          JsonTextOrNull(line.config.schedule.text()), TimeOrNull(line.kept.last_run_at_ms()), JsonTextOrNull(line.waits_for),
          TimeOrNull(line.kept.last_success_at_ms()), JsonTextOrNull(line.kept.last_snapshot_id()), line.spooled.snapshots,
          line.spooled.bytes,
          line.reason.empty() ? "null" : fmt::format("{{\"reason\":{},\"message\":{}}}", JsonText(line.reason), JsonText(line.error)),
          line.capture.has_value() ? CaptureJson(*line.capture) : "null");
    }
    std::string problems;
    for (const std::string& problem : ruled.problems) problems += (problems.empty() ? "" : ",") + JsonText(problem);
    fmt::print(
        out,
        "{{\"schema\":1,\"kind\":\"agent_status\",\"device\":{},\"name\":{},\"controller\":{},\"running\":{},\"certificate_expires_at\":{},"
        "\"last_connected_at\":{},\"connection_error\":{},\"clock_offset_ms\":{},\"active_operations\":{},\"unreported_results\":{},\"to_"
        "confirm\":[{}],\"policy\":"
        "{},\"policy_"
        "version\":{},\"policy_problems\":[{}],\"databases\":[{}]}}\n",
        identity.ok() ? JsonText(identity->device.value()) : "null", identity.ok() ? JsonText(identity->name) : "null",
        JsonText(config.controller.Text()), running, JsonTextOrNull(expires), TimeOrNull(connection ? connection->welcomed_at_ms() : 0),
        JsonTextOrNull(no_connection), welcomed ? fmt::format("{}", connection->clock_offset_ms()) : "null", active, unreported, ids,
        JsonTextOrNull(policy.name()), policy.version(), problems, items);
    return 0;
  }
  fmt::print(out, "device       {}\n", identity.ok() ? fmt::format("{} ({})", identity->name, identity->device.value()) : "not enrolled");
  fmt::print(out, "agent        {}\n", running ? "running" : "not running");
  fmt::print(out, "controller   {}, last connected {}\n", config.controller.Text(),
             Ago(connection ? connection->welcomed_at_ms() : 0, now));
  if (!no_connection.empty()) fmt::print(out, "             no connection: {}\n", Plain(no_connection, 1000));
  if (!expires.empty()) fmt::print(out, "certificate  until {}\n", expires);
  if (policy.version() != 0) fmt::print(out, "policy       {}, version {}\n", Plain(policy.name()), policy.version());
  for (const std::string& problem : ruled.problems) fmt::print(out, "             not followed: {}\n", problem);
  fmt::print(out, "operations   {} under way, {} not reported yet\n", active, unreported);
  for (const std::string& id : waiting) fmt::print(out, "to confirm   {}: litefleet-agent confirm {}\n", id, id);
  for (const DatabaseLine& line : lines) {
    const std::string spooled = line.spooled.snapshots == 0 ? ""
                                                            : fmt::format(", {} snapshots ({} KiB) wait for the controller",
                                                                          line.spooled.snapshots, line.spooled.bytes >> 10);
    fmt::print(out, "database     {}: {}, last run {}, last success {}{}{}{}\n", line.config.name,
               line.config.schedule.text().empty() ? "on order only" : "schedule " + line.config.schedule.text(),
               Ago(line.kept.last_run_at_ms(), now), Ago(line.kept.last_success_at_ms(), now), spooled,
               line.present ? "" : ", the file is missing",
               line.reason.empty() ? "" : fmt::format("\n             failed: {} ({})", line.error, line.reason));
    if (!line.waits_for.empty()) fmt::print(out, "             a scheduled run would wait: {}\n", line.waits_for);
    if (line.capture.has_value()) {
      fmt::print(out, "             capture {}{}{}{}\n", CaptureWord(line.capture->state()),
                 line.capture->has_last_sync_at() ? ", last sync " + Ago(TimestampMillis(line.capture->last_sync_at()), now) : "",
                 line.capture->doubts() > 0 ? fmt::format(", {} times in doubt", line.capture->doubts()) : "",
                 line.capture->message().empty() ? "" : ": " + line.capture->message());
    }
  }
  return 0;
}

}  // namespace litefleet
