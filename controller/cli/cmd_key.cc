// litefleet key create --output FILE | public FILE
#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/named_file.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct KeyOptions {
  std::string file;
};

CommandResult PrintPublic(Session& session, EVP_PKEY& key) {
  LF_ASSIGN_OR_RETURN(const std::string pem, crypto::PublicKeyToPem(key));
  if (session.json()) {
    Json item = Json::Object();
    item.Set("public_key", pem);
    session.PrintJson("order_key", std::move(item));
  } else {
    session.Print(pem);
  }
  return kDone;
}

CommandResult Create(Session& session, const KeyOptions& options) {
  if (io::Exists(options.file)) {
    return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} is there already", options.file),
                 "a key that is overwritten is lost: choose another name");
  }
  LF_RETURN_IF_ERROR(io::CheckNamedOutput(options.file, "--output"));
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::GenerateOrderKey());
  LF_ASSIGN_OR_RETURN(const std::string pem, crypto::KeyToPem(*key));
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(options.file, pem, 0600));
  return PrintPublic(session, *key);
}

CommandResult Public(Session& session, const KeyOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::string pem,
                      io::ReadNamedFile(options.file, {"FILE", "name the private key that `litefleet key create` has written"}, 64 << 10));
  const absl::StatusOr<crypto::Key> key = crypto::OrderKeyFromPem(pem);
  if (!key.ok()) return Annotate(key.status(), options.file);
  return PrintPublic(session, **key);
}

}  // namespace

void AddKey(CLI::App& app, Session& session) {
  CLI::App* key = AddNoun(app, "key", "Keys that sign restores, for devices that take signed orders alone");
  auto create_options = std::make_shared<KeyOptions>();
  CLI::App* create = key->add_subcommand("create", "Make a key, and print its public half for the devices");
  create->add_option("--output", create_options->file, "File for the private half, which only you should have")
      ->required()
      ->type_name("FILE");
  create->footer(
      "Append what is printed to the device's file of trusted keys (/etc/litefleet/order-keys), which root alone may write. The controller "
      "never\n"
      "sees the private half.\n\n"
      "Examples:\n  litefleet key create --output ~/.litefleet-order-key >> order-keys\n"
      "  litefleet restore kiosk-7/orders --sign ~/.litefleet-order-key");
  OnCall(create, session, create_options, &Create);
  auto public_options = std::make_shared<KeyOptions>();
  CLI::App* show = key->add_subcommand("public", "Print the public half of a key");
  show->add_option("FILE", public_options->file, "File with the private half")->required();
  OnCall(show, session, public_options, &Public);
}

}  // namespace litefleet::cli
