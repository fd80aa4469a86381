// litefleet token create|list|revoke
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct CreateOptions {
  int uses = 1;
  std::string ttl = "1h";
  std::vector<std::string> labels;
  std::string for_device;
};
struct TokenOptions {
  std::string id;
};

CommandResult Create(Session& session, const CreateOptions& options) {
  v1::CreateTokenRequest request;
  if (options.uses < 1)
    return Error(absl::StatusCode::kInvalidArgument, "USES_OUT_OF_RANGE", fmt::format("--uses {} makes no sense", options.uses),
                 "give 1 or more");
  request.set_uses(options.uses);
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds ttl, ParseDuration(options.ttl));
  *request.mutable_ttl() = Seconds(ttl);
  for (const std::string& label : options.labels) {
    LF_ASSIGN_OR_RETURN(const auto parts, SplitLabel(label));
    (*request.mutable_labels())[parts.first] = parts.second;
  }
  request.set_for_device(options.for_device);
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::CreateTokenResponse response, client->CreateToken(request));
  if (session.json()) {
    Json token = Json::Object();
    token.Set("id", response.token().id())
        .Set("token", response.secret())
        .Set("expires_at", TimeJson(response.token().has_expires_at(), response.token().expires_at()));
    session.PrintJson("token", std::move(token));
    return kDone;
  }
  session.Print(response.secret() + "\n");
  if (session.stdout_is_terminal()) {
    session.Note(fmt::format("token {} is good until {}; give it to `litefleet-agent enroll`, it is not shown again", response.token().id(),
                             LocalTimeText(FromProtoTime(response.token().expires_at()))));
  }
  return kDone;
}

CommandResult List(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::Token> tokens;
  LF_RETURN_IF_ERROR(AllPages(v1::ListTokensRequest(), [&](const v1::ListTokensRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListTokensResponse response, client->ListTokens(request));
    tokens.insert(tokens.end(), response.tokens().begin(), response.tokens().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Token& token : tokens) items.Add(ToJson(token));
    session.PrintJsonList("token_list", std::move(items));
    return kDone;
  }
  Table table({{"ID"}, {"STATE"}, {"USES LEFT", true}, {"EXPIRES"}, {"FOR DEVICE", false, true}, {"LABELS", false, true}});
  const SystemTime now = session.clock().Now();
  for (const v1::Token& token : tokens) {
    if (session.format() == OutputFormat::kName) {
      session.Print(token.id() + "\n");
      continue;
    }
    const bool expired = FromProtoTime(token.expires_at()) <= now;
    const Cell state = token.revoked()          ? Cell("revoked", Tone::kFaint)
                       : token.uses_left() <= 0 ? Cell("used", Tone::kFaint)
                       : expired                ? Cell("expired", Tone::kFaint)
                                                : Cell("valid", Tone::kGood);
    table.Add({token.id(), state, fmt::format("{} of {}", token.uses_left(), token.uses_total()),
               LocalTimeText(FromProtoTime(token.expires_at())), token.for_device_id().empty() ? "-" : token.for_device_id(),
               token.labels().empty() ? "-" : LabelsText(token.labels())});
  }
  if (session.format() == OutputFormat::kName) return kDone;
  if (table.empty()) {
    session.Note("no tokens; make one with `litefleet token create`");
    return kDone;
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

CommandResult Revoke(Session& session, const TokenOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::RevokeTokenRequest request;
  request.set_token(options.id);
  LF_ASSIGN_OR_RETURN(const v1::RevokeTokenResponse response, client->RevokeToken(request));
  PrintThing(session, "token", ToJson(response.token()), response.token().id(), fmt::format("token {} is revoked", response.token().id()));
  return kDone;
}

}  // namespace

void AddToken(CLI::App& app, Session& session) {
  CLI::App* token = AddNoun(app, "token", "Make, list and revoke the tokens that devices enrol with");

  auto create_options = std::make_shared<CreateOptions>();
  CLI::App* create = token->add_subcommand("create", "Make a token and print it, alone, on standard output");
  create->add_option("--uses", create_options->uses, "How many devices may enrol with it")->type_name("N")->default_str("1");
  create->add_option("--ttl", create_options->ttl, "How long it is good")->type_name("DURATION")->default_str("1h");
  create->add_option("--label", create_options->labels, "Put on the devices that enrol with it; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
  create
      ->add_option("--for-device", create_options->for_device,
                   "Enrol this device anew: it keeps its id and history, its old certificate ends")
      ->type_name("DEVICE");
  create->footer(
      "Examples:\n  litefleet token create > token.txt\n  litefleet token create --uses 50 --ttl 7d --label site=oslo\n  litefleet token "
      "create --for-device kiosk-7");
  OnCall(create, session, create_options, &Create);

  CLI::App* list = token->add_subcommand("list", "List tokens, newest first, without their secrets");
  OnCall(list, session, &List);

  auto revoke_options = std::make_shared<TokenOptions>();
  CLI::App* revoke = token->add_subcommand("revoke", "Make a token void at once");
  revoke->add_option("ID", revoke_options->id, "Id of the token, or the beginning of it")->required();
  OnCall(revoke, session, revoke_options, &Revoke);
}

}  // namespace litefleet::cli
