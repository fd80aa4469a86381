#include "agent/status_command.h"

#include <sys/stat.h>

#include <string>
#include <vector>

#include "agent/json_text.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "fmt/ostream.h"

namespace litefleet {
namespace {

struct DatabaseLine {
  config::DatabaseConfig config;
  bool present = false;
  int64_t size = 0;
  storage::v1::AgentDatabase kept;
  std::string error;
  std::string reason;
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

DatabaseLine Look(const state::StateDirectory& state, const config::DatabaseConfig& config) {
  DatabaseLine line;
  line.config = config;
  struct stat st {};
  line.present = stat(config.path.c_str(), &st) == 0;
  line.size = line.present ? static_cast<int64_t>(st.st_size) : 0;
  if (auto kept = state.ReadDatabase(config.name); kept.ok()) line.kept = *std::move(kept);
  v1::ErrorDetail error;
  if (!line.kept.last_error().empty() && error.ParseFromString(line.kept.last_error())) {
    line.error = error.message();
    line.reason = error.info().reason();
  }
  return line;
}

}  // namespace

int PrintStatus(const config::AgentConfig& config, bool json, std::ostream& out) {
  if (!io::Exists(config.state)) {
    fmt::print(stderr, "litefleet-agent: there is no state directory {}\n  enrol this device first: litefleet-agent enroll\n",
               config.state);
    return 4;
  }
  const absl::StatusOr<state::StateDirectory> state = state::StateDirectory::Open(config.state);
  if (!state.ok()) {
    fmt::print(stderr, "litefleet-agent: {}\n", MessageOf(state.status()));
    return absl::IsPermissionDenied(state.status()) ? 5 : 1;
  }
  const RealClock clock;
  const SystemTime now = clock.Now();
  const bool running = absl::IsFailedPrecondition(state->Lock().status());
  const absl::StatusOr<state::DeviceIdentity> identity = state::LoadIdentity(config.state);
  const std::optional<storage::v1::AgentConnection> connection = state->ReadConnection();
  std::vector<std::string> damaged;
  const auto operations = state->ReadOperations(damaged);
  const auto results = state->ReadResults(damaged);
  const size_t active = operations.ok() ? operations->size() : 0;
  const size_t unreported = results.ok() ? results->size() : 0;
  std::string expires;
  if (identity.ok()) {
    if (const auto expiry = state::ExpiryOf(*identity); expiry.ok()) expires = FormatRfc3339(*expiry);
  }
  std::vector<DatabaseLine> lines;
  for (const config::DatabaseConfig& database : config.databases) lines.push_back(Look(*state, database));

  if (json) {
    std::string items;
    for (const DatabaseLine& line : lines) {
      items += fmt::format(
          "{}{{\"name\":{},\"path\":{},\"present\":{},\"size_bytes\":{},\"timeline\":{},\"schedule\":{},\"last_run_at\":{},"
          "\"last_success_at\":{},\"last_snapshot\":{},\"last_error\":{}}}",
          items.empty() ? "" : ",", JsonText(line.config.name), JsonText(line.config.path), line.present, line.size, line.kept.timeline(),
          JsonTextOrNull(line.config.schedule_text), TimeOrNull(line.kept.last_run_at_ms()), TimeOrNull(line.kept.last_success_at_ms()),
          JsonTextOrNull(line.kept.last_snapshot_id()),
          line.reason.empty() ? "null" : fmt::format("{{\"reason\":{},\"message\":{}}}", JsonText(line.reason), JsonText(line.error)));
    }
    fmt::print(
        out,
        "{{\"schema\":1,\"kind\":\"agent_status\",\"device\":{},\"name\":{},\"controller\":{},\"running\":{},\"certificate_expires_at\":{},"
        "\"last_connected_at\":{},\"clock_offset_ms\":{},\"active_operations\":{},\"unreported_results\":{},\"databases\":[{}]}}\n",
        identity.ok() ? JsonText(identity->device.value()) : "null", identity.ok() ? JsonText(identity->name) : "null",
        JsonText(config.controller.Text()), running, JsonTextOrNull(expires), TimeOrNull(connection ? connection->welcomed_at_ms() : 0),
        connection ? fmt::format("{}", connection->clock_offset_ms()) : "null", active, unreported, items);
    return 0;
  }
  fmt::print(out, "device       {}\n", identity.ok() ? fmt::format("{} ({})", identity->name, identity->device.value()) : "not enrolled");
  fmt::print(out, "agent        {}\n", running ? "running" : "not running");
  fmt::print(out, "controller   {}, last connected {}\n", config.controller.Text(),
             Ago(connection ? connection->welcomed_at_ms() : 0, now));
  if (!expires.empty()) fmt::print(out, "certificate  until {}\n", expires);
  fmt::print(out, "operations   {} under way, {} not reported yet\n", active, unreported);
  for (const DatabaseLine& line : lines) {
    fmt::print(out, "database     {}: last run {}, last success {}{}{}\n", line.config.name, Ago(line.kept.last_run_at_ms(), now),
               Ago(line.kept.last_success_at_ms(), now), line.present ? "" : ", the file is missing",
               line.reason.empty() ? "" : fmt::format("\n             failed: {} ({})", line.error, line.reason));
  }
  return 0;
}

}  // namespace litefleet
