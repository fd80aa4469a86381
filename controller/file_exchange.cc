#include "controller/file_exchange.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr int kPage = 500;

bool Names(const retention::ExportRule& rule, const std::string& database) {
  return rule.databases.empty() || std::find(rule.databases.begin(), rule.databases.end(), database) != rule.databases.end();
}

exports::Candidate CandidateOf(v1::Database database, const v1::Device& device, const retention::ExportRule& rule,
                               const std::string& policy) {
  database.set_device_id(device.id());
  database.set_device_name(device.name());
  return {.database = std::move(database), .rule = {.policy = policy, .csv = rule.csv, .every = rule.every, .keep = rule.keep}};
}

}  // namespace

absl::StatusOr<v1::Database> FileExchange::ImportTarget(const std::string& reference) const {
  LF_ASSIGN_OR_RETURN(const auto names, rpc::SplitDatabaseReference(reference, "database"));
  LF_ASSIGN_OR_RETURN(const v1::Device device, parts_.identities.ResolveDevice(names.first));
  if (device.state() == v1::DEVICE_STATE_REVOKED) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_REVOKED", fmt::format("{} is revoked", device.name()),
                 "import for an active device");
  }
  auto database = parts_.snapshots.GetDatabase(DeviceId(device.id()), names.second);
  if (!database.ok()) return rpc::ByName(database.status(), device);
  database->set_device_id(device.id());
  database->set_device_name(device.name());
  return database;
}

absl::StatusOr<FileExchange::Rules> FileExchange::ReadRules() const {
  Rules rules;
  const uint64_t changes = parts_.policies.changes();  // before they are read: what changes meanwhile is looked at again
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::PolicyRow> rows, parts_.policies.List());
  for (const catalog::PolicyRow& row : rows) {
    LF_ASSIGN_OR_RETURN(std::optional<retention::ExportRule> rule, retention::ExportRuleOf(row.text));
    if (rule.has_value()) rules.exports.emplace(row.name, *std::move(rule));
  }
  if (rules.exports.empty()) {
    nothing_exported_at_ = changes;
    return rules;
  }
  LF_ASSIGN_OR_RETURN(rules.policies, parts_.retention.Policies());
  return rules;
}

// Where several policies claim a device, that is told with the policies, and nothing is exported.
const std::pair<const std::string, retention::ExportRule>* FileExchange::RuleOf(const Rules& rules, const v1::Device& device) {
  const auto chosen = retention::Choose(rules.policies, retention::ToLabels(device.labels()));
  if (!chosen.ok() || *chosen == nullptr) return nullptr;
  const auto found = rules.exports.find((*chosen)->name);
  return found == rules.exports.end() ? nullptr : &*found;
}

absl::StatusOr<std::optional<exports::Candidate>> FileExchange::ExportOf(const DeviceId& device, const std::string& database) const {
  LF_ASSIGN_OR_RETURN(const Rules rules, ReadRules());
  if (rules.exports.empty()) return std::nullopt;
  LF_ASSIGN_OR_RETURN(const v1::Device found, parts_.identities.ResolveDevice(device.value()));
  const auto* const rule = RuleOf(rules, found);
  if (rule == nullptr || !Names(rule->second, database)) return std::nullopt;
  LF_ASSIGN_OR_RETURN(v1::Database known, parts_.snapshots.GetDatabase(device, database));
  return CandidateOf(std::move(known), found, rule->second, rule->first);
}

absl::Status FileExchange::ForEachExport(const std::function<absl::Status(const exports::Candidate&)>& visit) const {
  LF_ASSIGN_OR_RETURN(const Rules rules, ReadRules());
  if (rules.exports.empty()) return absl::OkStatus();
  std::string devices_token;
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Device> devices, parts_.identities.ListDevices("", kPage, devices_token));
    devices_token = devices.next_token;
    for (const v1::Device& device : devices.items) {
      const auto* const rule = RuleOf(rules, device);
      if (rule == nullptr) continue;
      std::string token;
      do {
        LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Database> databases,
                            parts_.snapshots.ListDatabases(DeviceId(device.id()), std::nullopt, kPage, token));
        token = databases.next_token;
        for (const v1::Database& database : databases.items) {
          if (Names(rule->second, database.name())) LF_RETURN_IF_ERROR(visit(CandidateOf(database, device, rule->second, rule->first)));
        }
      } while (!token.empty());
    }
  } while (!devices_token.empty());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileExchange>> FileExchange::Begin(const Parts& parts, const DataDirectory& data,
                                                                  const config::ControllerConfig& config) {
  std::unique_ptr<FileExchange> exchange(new FileExchange(parts));
  FileExchange* const self = exchange.get();
  imports::ImportOptions import_options;
  import_options.scratch = data.scratch();
  import_options.reserve_bytes = static_cast<uint64_t>(config.store_reserve);
  exchange->imports_ =
      std::make_unique<imports::Imports>(imports::ImportDeps{.fleet = parts.fleet,
                                                             .ingest = parts.ingest,
                                                             .clock = parts.clock,
                                                             .resolve = [self](const std::string& to) { return self->ImportTarget(to); },
                                                             .on_imported = parts.imported},
                                         std::move(import_options));
  exports::ExportOptions export_options;
  export_options.root = config.export_directory.empty() ? data.path + "/exports" : config.export_directory;
  export_options.scratch = data.scratch();
  // An export that grows ends before uploads are refused.
  export_options.reserve_bytes = static_cast<uint64_t>(config.store_reserve + config.store_reserve / 4);
  exchange->exports_ = std::make_unique<exports::Exports>(
      exports::ExportDeps{.fleet = parts.fleet,
                          .readers = parts.readers,
                          .clock = parts.clock,
                          .all = [self](const auto& visit) { return self->ForEachExport(visit); },
                          .one = [self](const DeviceId& device, const std::string& name) { return self->ExportOf(device, name); }},
      std::move(export_options));
  LF_RETURN_IF_ERROR(exchange->imports_->Begin());
  LF_RETURN_IF_ERROR(exchange->exports_->Begin());
  return exchange;
}

std::vector<v1::Alarm> FileExchange::Alarms() const {
  std::vector<v1::Alarm> alarms;
  for (const exports::Failure& failure : exports_->Failures()) {
    v1::Alarm& alarm = alarms.emplace_back();
    alarm.set_reason("EXPORT_FAILED");
    alarm.set_subject(fmt::format("{}/{}", failure.device, failure.database));
    alarm.set_message(fmt::format("no file was written of its newest state: {} ({})", MessageOf(failure.status), ReasonOf(failure.status)));
  }
  return alarms;
}

void FileExchange::Stop() {
  imports_->Stop();
  exports_->Stop();
}

}  // namespace litefleet
