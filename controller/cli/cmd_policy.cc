// litefleet policy apply|list|show|delete|simulate
#include <unistd.h>

#include <optional>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/named_file.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct PolicyOptions {
  std::string name;
  std::string file;
};

std::string KeepsText(const v1::Policy& policy) {
  if (policy.keep_last() == 0 && policy.tiers().empty()) return "everything";
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (policy.keep_last() > 0) add(fmt::format("newest {}", policy.keep_last()));
  for (const v1::RetentionTier& tier : policy.tiers()) {
    const auto every = Millis(tier.every());
    add(fmt::format("{} for {}", every.count() == 0 ? "all" : "one in " + DurationText(every), DurationText(Millis(tier.keep_for()))));
  }
  add(fmt::format("at least {}", policy.floor()));
  return text;
}

absl::StatusOr<std::string> ReadPolicy(const std::string& file) {
  return io::ReadNamedFile(file, {"FILE", "name a file with the policy as TOML; `litefleet policy apply --help` shows one"});
}

// "CSV, one in 1d, newest 7 of orders"; empty: nothing is exported.
std::string ExportsText(const v1::Policy& policy) {
  const std::optional<ExportOfPolicy> rule = ExportOf(policy);
  if (!rule.has_value()) return {};
  std::string text = rule->format + ", " + (rule->every.count() == 0 ? "after every backup" : "one in " + DurationText(rule->every));
  text += fmt::format(", newest {}", rule->keep);
  if (!rule->databases.empty()) text += fmt::format(" of {}", fmt::join(rule->databases, ", "));
  return text;
}

CommandResult PrintPolicy(Session& session, const v1::Policy& policy, const std::string& remark) {
  Facts facts;
  facts.Add("name", policy.name())
      .Add("selector", policy.selector().empty() ? "every device" : policy.selector())
      .Add("keeps", KeepsText(policy))
      .AddIf("exports", ExportsText(policy))
      .Add("databases", std::to_string(policy.databases()))
      .Add("devices",
           fmt::format("{}, of which {} have said that they follow this version", policy.devices(), policy.devices_acknowledged()))
      .Add("version", std::to_string(policy.version()))
      .Add("applied", LocalTimeText(FromProtoTime(policy.applied_at())));
  PrintThing(session, "policy", ToJson(policy), policy.name(), remark.empty() ? facts.Text() + "\n" + policy.text() : Printable(remark));
  return kDone;
}

CommandResult Apply(Session& session, const PolicyOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadPolicy(options.file));
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::ApplyPolicyRequest request;
  request.set_text(text);
  LF_ASSIGN_OR_RETURN(const v1::ApplyPolicyResponse response, client->ApplyPolicy(request));
  const v1::Policy& policy = response.policy();
  return PrintPolicy(session, policy,
                     fmt::format("policy {} rules {} databases now; `litefleet policy simulate {}` shows what that does", policy.name(),
                                 policy.databases(), policy.name()));
}

CommandResult List(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::Policy> policies;
  LF_RETURN_IF_ERROR(AllPages(v1::ListPoliciesRequest(), [&](const v1::ListPoliciesRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListPoliciesResponse response, client->ListPolicies(request));
    policies.insert(policies.end(), response.policies().begin(), response.policies().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Policy& policy : policies) items.Add(ToJson(policy));
    session.PrintJsonList("policy_list", std::move(items));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Policy& policy : policies) session.Print(policy.name() + "\n");
    return kDone;
  }
  if (policies.empty()) {
    session.Note("no policies: every snapshot is kept; apply one with `litefleet policy apply FILE`");
    return kDone;
  }
  Table table({{"NAME", false, true}, {"SELECTOR", false, true}, {"DATABASES", true}, {"KEEPS", false, true}, {"EXPORTS", false, true}});
  for (const v1::Policy& policy : policies) {
    table.Add({policy.name(), policy.selector().empty() ? "-" : policy.selector(), std::to_string(policy.databases()), KeepsText(policy),
               ExportOf(policy).has_value() ? ExportsText(policy) : "-"});
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

CommandResult Show(Session& session, const PolicyOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetPolicyRequest request;
  request.set_policy(options.name);
  LF_ASSIGN_OR_RETURN(const v1::GetPolicyResponse response, client->GetPolicy(request));
  return PrintPolicy(session, response.policy(), "");
}

CommandResult Delete(Session& session, const PolicyOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetPolicyRequest get;
  get.set_policy(options.name);
  LF_ASSIGN_OR_RETURN(const v1::GetPolicyResponse found, client->GetPolicy(get));
  v1::DeletePolicyRequest request;
  request.set_policy(options.name);
  LF_RETURN_IF_ERROR(client->DeletePolicy(request).status());
  return PrintPolicy(session, found.policy(), fmt::format("policy {} is deleted; what no other policy rules is kept", options.name));
}

CommandResult Simulate(Session& session, const PolicyOptions& options) {
  v1::ListPolicyVerdictsRequest all;
  if (options.name.empty() == options.file.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "USAGE", "`litefleet policy simulate` takes a NAME or --file", "see --help");
  }
  all.set_policy(options.name);
  if (!options.file.empty()) {
    LF_ASSIGN_OR_RETURN(const std::string text, ReadPolicy(options.file));
    all.set_text(text);
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::PolicyVerdict> verdicts;
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListPolicyVerdictsRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListPolicyVerdictsResponse response, client->ListPolicyVerdicts(request));
    verdicts.insert(verdicts.end(), response.verdicts().begin(), response.verdicts().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::PolicyVerdict& verdict : verdicts) {
      Json reasons = Json::Array();
      for (const std::string& reason : verdict.reasons()) reasons.Add(reason);
      Json item = Json::Object();
      item.Set("snapshot", ToJson(verdict.snapshot())).Set("keep", verdict.keep()).Set("reasons", std::move(reasons));
      items.Add(std::move(item));
    }
    session.PrintJsonList("policy_verdict_list", std::move(items));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::PolicyVerdict& verdict : verdicts) {
      if (!verdict.keep()) session.Print(verdict.snapshot().id() + "\n");
    }
    return kDone;
  }
  if (verdicts.empty()) {
    session.Note("no snapshot would be ruled by this policy");
    return kDone;
  }
  Table table({{"ID"}, {"DATABASE", false, true}, {"EFFECTIVE"}, {"VERDICT"}, {"WHY", false, true}});
  size_t kept = 0;
  for (const v1::PolicyVerdict& verdict : verdicts) {
    kept += verdict.keep() ? 1 : 0;
    std::string why;
    for (const std::string& reason : verdict.reasons()) why += (why.empty() ? "" : ", ") + reason;
    table.Add({verdict.snapshot().id(), DatabaseName(verdict.snapshot()), LocalTimeText(FromProtoTime(verdict.snapshot().effective_at())),
               verdict.keep() ? Cell("keep", Tone::kGood) : Cell("drop", Tone::kDoubtful), why});
  }
  session.Print(table.Text(session.style()) + fmt::format("{} kept, {} dropped\n", kept, verdicts.size() - kept));
  return kDone;
}

}  // namespace

void AddPolicy(CLI::App& app, Session& session) {
  CLI::App* policy = AddNoun(app, "policy", "Which snapshots are kept and how devices back up, by labels of devices");

  auto apply_options = std::make_shared<PolicyOptions>();
  CLI::App* apply = policy->add_subcommand("apply", "Make or replace a policy");
  apply->add_option("FILE", apply_options->file, "TOML: name, selector, [retention], [quota], [backup], [limits], [export]")->required();
  apply->footer(
      "Example:\n  name = \"shops\"\n  selector = \"site=oslo\"\n  [retention]\n  keep_last = 10\n  floor = 3\n"
      "  tiers = [{every = \"all\", for = \"24h\"}, {every = \"1h\", for = \"7d\"}, {every = \"1d\", for = \"90d\"}]\n"
      "  [backup]\n  schedule = \"6h\"\n  [[backup.database]]\n  name = \"orders\"\n  schedule = \"15m\"\n"
      "  [limits]\n  upload = \"2MiB\"\n  download = \"4MiB\"\n"
      "  [export]\n  format = \"csv\"\n  every = \"1d\"\n  keep = 7\n  databases = [\"orders\"]\n"
      "What a device's own agent.toml says counts before [backup] and [limits].\n"
      "[export] writes files (csv or sql) of each new state below `[export] directory` of controller.toml.");
  OnCall(apply, session, apply_options, &Apply);

  OnCall(policy->add_subcommand("list", "List policies by name"), session, &List);

  const auto verb = [&](const std::string& name, const std::string& description, CommandResult (*run)(Session&, const PolicyOptions&)) {
    auto options = std::make_shared<PolicyOptions>();
    CLI::App* command = policy->add_subcommand(name, description);
    command->add_option("NAME", options->name, "Name of the policy")->required(name != "simulate");
    if (name == "simulate") command->add_option("--file", options->file, "A policy that is not applied")->type_name("FILE");
    OnCall(command, session, options, run);
  };
  verb("show", "Show one policy", &Show);
  verb("delete", "Delete a policy: what it ruled is kept", &Delete);
  verb("simulate", "Say for every snapshot whether it would be kept now, and why", &Simulate);
}

}  // namespace litefleet::cli
