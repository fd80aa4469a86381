// litefleet device list|show|label|rename|revoke|forget
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/database_size.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct ListOptions {
  std::string selector;
};
struct DeviceOptions {
  std::string device;
  std::string name;
  std::vector<std::string> labels;
  bool yes = false;
  bool delete_snapshots = false;
};

Cell StateCell(const v1::Device& device) {
  if (device.state() == v1::DEVICE_STATE_REVOKED) return {"revoked", Tone::kBad};
  return device.connected() ? Cell("connected", Tone::kGood) : Cell("offline", Tone::kDoubtful);
}

std::string SeenText(const v1::Device& device, SystemTime now) {
  if (device.connected()) return "now";
  return device.has_last_seen_at() ? AgeText(FromProtoTime(device.last_seen_at()), now) : "never";
}

CommandResult List(Session& session, const ListOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::Device> devices;
  v1::ListDevicesRequest all;
  all.set_selector(options.selector);
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListDevicesRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListDevicesResponse response, client->ListDevices(request));
    devices.insert(devices.end(), response.devices().begin(), response.devices().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Device& device : devices) items.Add(ToJson(device));
    session.PrintJsonList("device_list", std::move(items));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Device& device : devices) session.Print(device.name() + "\n");
    return kDone;
  }
  if (devices.empty()) {
    session.Note(options.selector.empty() ? "no devices; make a token with `litefleet token create` and enrol one"
                                          : "no device matches the selector");
    return kDone;
  }
  const SystemTime now = session.clock().Now();
  const bool wide = session.format() == OutputFormat::kWide;
  std::vector<Table::Column> columns = {{"NAME", false, true}, {"STATE"},           {"SEEN", true},
                                        {"VERSION"},           {"CLOCK OFF", true}, {"LABELS", false, true}};
  if (wide) columns.insert(columns.end(), {{"ID"}, {"PLATFORM"}, {"SQLITE"}, {"FREE", true}, {"CERTIFICATE UNTIL"}});
  Table table(columns);
  for (const v1::Device& device : devices) {
    std::vector<Cell> row = {device.name(),
                             StateCell(device),
                             SeenText(device, now),
                             device.version().empty() ? "-" : device.version(),
                             device.has_last_seen_at() ? DurationText(std::chrono::milliseconds(device.clock_offset_ms())) : "-",
                             device.labels().empty() ? "-" : LabelsText(device.labels())};
    if (wide) {
      row.insert(row.end(), {device.id(), device.platform().empty() ? "-" : device.platform(),
                             device.sqlite_version().empty() ? "-" : device.sqlite_version(),
                             device.has_last_seen_at() && device.free_bytes() >= 0 ? SizeText(device.free_bytes()) : "-",
                             device.has_certificate_expires_at() ? LocalTimeText(FromProtoTime(device.certificate_expires_at())) : "-"});
    }
    table.Add(std::move(row));
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

// Those of the device and of its databases.
std::vector<v1::Alarm> AlarmsOf(const v1::Device& device, const v1::GetStatusResponse& status) {
  std::vector<v1::Alarm> alarms;
  for (const v1::Alarm& alarm : status.alarms()) {
    if (alarm.subject() == device.name() || alarm.subject().starts_with(device.name() + "/")) alarms.push_back(alarm);
  }
  return alarms;
}

std::string PolicyText(const v1::Device& device) {
  if (device.policy().empty()) return device.policy_acknowledged() == 0 ? "none" : "none; the device still follows one";
  const std::string text = fmt::format("{}, version {}", device.policy(), device.policy_version());
  if (device.policy_acknowledged() == device.policy_version()) return text + ", followed";
  return text + (device.policy_acknowledged() == 0 ? ", the device has none yet"
                                                   : fmt::format(", the device still follows version {}", device.policy_acknowledged()));
}

// Where a limit is reached, that is said: uploads are refused then.
std::string UsageText(const v1::DeviceUsage& usage) {
  std::string text = fmt::format("{} held, {} snapshots", SizeText(usage.held_bytes()), usage.snapshots());
  if (usage.quota_bytes() > 0) text += fmt::format("; quota {}", SizeText(usage.quota_bytes()));
  if (usage.quota_snapshots() > 0) text += fmt::format("; quota {} snapshots", usage.quota_snapshots());
  const bool full = (usage.quota_bytes() > 0 && usage.held_bytes() >= usage.quota_bytes()) ||
                    (usage.quota_snapshots() > 0 && usage.snapshots() >= usage.quota_snapshots());
  return full ? text + "; full: uploads are refused" : text;
}

CommandResult Show(Session& session, const DeviceOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetDeviceRequest request;
  request.set_device(options.device);
  LF_ASSIGN_OR_RETURN(const v1::GetDeviceResponse response, client->GetDevice(request));
  LF_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus(v1::GetStatusRequest()));
  const v1::Device& device = response.device();
  const std::vector<v1::Alarm> alarms = AlarmsOf(device, status);
  if (session.json()) {
    Json databases = Json::Array();
    for (const v1::Database& database : response.databases()) databases.Add(ToJson(database));
    Json alarm_items = Json::Array();
    for (const v1::Alarm& alarm : alarms) alarm_items.Add(ToJson(alarm));
    Json result = ToJson(device);
    result.Set("databases", std::move(databases)).Set("alarms", std::move(alarm_items));
    Json problems = Json::Array();
    for (const std::string& problem : device.policy_problems()) problems.Add(problem);
    if (device.policy().empty()) {
      result.Set("policy", nullptr).Set("policy_version", nullptr);
    } else {
      result.Set("policy", device.policy()).Set("policy_version", device.policy_version());
    }
    result.Set("policy_acknowledged", device.policy_acknowledged()).Set("policy_problems", std::move(problems));
    session.PrintJson("device", std::move(result));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    session.Print(device.name() + "\n");
    return kDone;
  }
  const SystemTime now = session.clock().Now();
  Facts facts;
  facts.Add("name", device.name())
      .Add("id", device.id())
      .Add("state", StateCell(device).text)
      .Add("seen", SeenText(device, now))
      .AddIf("labels", LabelsText(device.labels()));
  if (device.has_enrolled_at()) facts.Add("enrolled", LocalTimeText(FromProtoTime(device.enrolled_at())));
  facts.AddIf("version", device.version()).AddIf("sqlite", device.sqlite_version()).AddIf("platform", device.platform());
  if (device.has_last_seen_at()) {
    facts.Add("clock off", DurationText(std::chrono::milliseconds(device.clock_offset_ms())));
    if (device.free_bytes() >= 0) facts.Add("free space", SizeText(device.free_bytes()));
  }
  if (device.has_uptime()) facts.Add("uptime", DurationText(Millis(device.uptime())));
  if (device.has_certificate_expires_at()) facts.Add("certificate until", LocalTimeText(FromProtoTime(device.certificate_expires_at())));
  facts.Add("policy", PolicyText(device));
  for (const std::string& problem : device.policy_problems()) facts.Add("", problem);
  if (device.has_usage()) facts.Add("in the store", UsageText(device.usage()));
  session.Print(facts.Text());
  if (!alarms.empty()) {
    Table shown({{"ALARM"}, {"WHERE", false, true}, {"WHAT", false, true}});
    for (const v1::Alarm& alarm : alarms) shown.Add({Cell(alarm.reason(), Tone::kBad), alarm.subject(), alarm.message()});
    session.Print("\n" + shown.Text(session.style()) + "\n");
  }
  if (response.databases().empty()) {
    session.Print("no databases reported yet\n");
    return kDone;
  }
  Table table({{"DATABASE"}, {"SIZE", true}, {"SNAPSHOTS", true}, {"NEWEST", true}, {"SCHEDULE"}, {"LAST ERROR", false, true}});
  for (const v1::Database& database : response.databases()) {
    table.Add({database.name(), database.health().present() ? SizeText(SizeOf(database)) : "missing", std::to_string(database.snapshots()),
               database.has_newest_snapshot() ? AgeText(FromProtoTime(database.newest_snapshot().taken_at()), now) : "never",
               database.health().schedule().empty() ? "on order" : database.health().schedule(),
               database.health().has_last_error() ? Cell(database.health().last_error().info().reason(), Tone::kBad) : Cell("-")});
  }
  session.Print("\n" + table.Text(session.style()));
  return kDone;
}

CommandResult PrintDevice(Session& session, const v1::Device& device, const std::string& text) {
  PrintThing(session, "device", ToJson(device), device.name(), text);
  return kDone;
}

CommandResult Label(Session& session, const DeviceOptions& options) {
  v1::UpdateDeviceRequest request;
  request.set_device(options.device);
  for (const std::string& label : options.labels) {
    if (label.size() > 1 && label.ends_with('-') && label.find('=') == std::string::npos) {
      request.add_remove_labels(label.substr(0, label.size() - 1));
      continue;
    }
    LF_ASSIGN_OR_RETURN(const auto parts, SplitLabel(label));
    (*request.mutable_set_labels())[parts.first] = parts.second;
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::UpdateDeviceResponse response, client->UpdateDevice(request));
  const std::string labels = LabelsText(response.device().labels());
  return PrintDevice(session, response.device(),
                     fmt::format("device {} has {}", response.device().name(), labels.empty() ? "no labels" : labels));
}

CommandResult Rename(Session& session, const DeviceOptions& options) {
  v1::UpdateDeviceRequest request;
  request.set_device(options.device);
  request.set_name(options.name);
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::UpdateDeviceResponse response, client->UpdateDevice(request));
  return PrintDevice(session, response.device(),
                     fmt::format("device {} is now named {}", response.device().id(), response.device().name()));
}

CommandResult Revoke(Session& session, const DeviceOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetDeviceRequest get;
  get.set_device(options.device);
  LF_ASSIGN_OR_RETURN(const v1::GetDeviceResponse found, client->GetDevice(get));
  LF_RETURN_IF_ERROR(session.Confirm(
      options.yes,
      fmt::format("Revoke device {}? It is cut off at once and backs nothing up until it is enrolled anew.", found.device().name())));
  v1::RevokeDeviceRequest request;
  request.set_device(found.device().id());
  LF_ASSIGN_OR_RETURN(const v1::RevokeDeviceResponse response, client->RevokeDevice(request));
  return PrintDevice(session, response.device(), fmt::format("device {} is revoked", response.device().name()));
}

CommandResult Forget(Session& session, const DeviceOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetDeviceRequest get;
  get.set_device(options.device);
  LF_ASSIGN_OR_RETURN(const v1::GetDeviceResponse found, client->GetDevice(get));
  if (options.delete_snapshots) {
    int64_t snapshots = 0;
    for (const v1::Database& database : found.databases()) snapshots += database.snapshots();
    LF_RETURN_IF_ERROR(session.Confirm(
        options.yes,
        fmt::format("Forget device {} and delete its {} snapshots? They cannot be brought back.", found.device().name(), snapshots)));
  } else {
    LF_RETURN_IF_ERROR(
        session.Confirm(options.yes, fmt::format("Forget device {}? Its name, labels and history go.", found.device().name())));
  }
  v1::ForgetDeviceRequest request;
  request.set_device(found.device().id());
  request.set_delete_snapshots(options.delete_snapshots);
  LF_ASSIGN_OR_RETURN(const v1::ForgetDeviceResponse response, client->ForgetDevice(request));
  return PrintDevice(session, found.device(),
                     options.delete_snapshots
                         ? fmt::format("device {} is forgotten, with {} snapshots", found.device().name(), response.snapshots_deleted())
                         : fmt::format("device {} is forgotten", found.device().name()));
}

}  // namespace

void AddDevice(CLI::App& app, Session& session) {
  CLI::App* device = AddNoun(app, "device", "List, show, label, rename, revoke and forget devices");
  device->footer("A DEVICE is a name or the beginning of an id.");

  auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = device->add_subcommand("list", "List devices by name");
  list->add_option("-l,--selector", list_options->selector, "Only devices with all these labels")->type_name("KEY=VALUE,...");
  OnCall(list, session, list_options, &List);

  const auto verb = [&](const std::string& name, const std::string& description) {
    auto options = std::make_shared<DeviceOptions>();
    CLI::App* command = device->add_subcommand(name, description);
    command->add_option("DEVICE", options->device, "Name or beginning of the id")->required();
    return std::pair(command, options);
  };
  const auto [show, show_options] = verb("show", "Show one device and its databases");
  OnCall(show, session, show_options, &Show);

  const auto [label, label_options] = verb("label", "Set labels (KEY=VALUE) and remove labels (KEY-)");
  label->add_option("LABELS", label_options->labels, "KEY=VALUE to set, KEY- to remove")->required();
  label->footer("Example:\n  litefleet device label kiosk-7 site=oslo tier-");
  OnCall(label, session, label_options, &Label);

  const auto [rename, rename_options] = verb("rename", "Give a device another name");
  rename->add_option("NAME", rename_options->name, "The new name")->required();
  OnCall(rename, session, rename_options, &Rename);

  const auto [revoke, revoke_options] = verb("revoke", "Make a device's certificates void and cut it off at once");
  revoke->add_flag("-y,--yes", revoke_options->yes, "Do not ask");
  OnCall(revoke, session, revoke_options, &Revoke);

  const auto [forget, forget_options] = verb("forget", "Remove a revoked device from the catalog");
  forget->add_flag("-y,--yes", forget_options->yes, "Do not ask");
  forget->add_flag("--delete-snapshots", forget_options->delete_snapshots,
                   "Delete all of its snapshots as well; they cannot be brought back");
  OnCall(forget, session, forget_options, &Forget);
}

}  // namespace litefleet::cli
