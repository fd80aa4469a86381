#include "controller/rebuild_command.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/named_file.h"
#include "controller/backup/catalog_backups.h"
#include "controller/catalog/catalog_copy.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "controller/identity/enrollment.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr char kFirstOperator[] = "admin";
constexpr size_t kMinPassphrase = 8;

absl::Status CheckWish(const DataDirectory& data, const RebuildWish& wish) {
  if (io::Exists(data.catalog())) {
    return Error(absl::StatusCode::kAlreadyExists, "CATALOG_EXISTS", fmt::format("there is a catalog at {}", data.catalog()),
                 "a damaged one is to be moved away first, with its -wal and -shm; nothing was changed");
  }
  if (!io::Exists(data.store() + "/packs")) {
    return Error(absl::StatusCode::kNotFound, "STORE_NOT_FOUND", fmt::format("there are no packs in {}", data.store()),
                 "put the directory `store` of the lost controller there first");
  }
  if (!wish.keys.empty() && io::Exists(data.ca() + "/root.pem")) {
    return Error(absl::StatusCode::kAlreadyExists, "CA_EXISTS", fmt::format("there is a certificate authority in {}", data.ca()),
                 "leave --keys out to keep it, or move it away to use the exported one");
  }
  return absl::OkStatus();
}

// True: a new one was made.
absl::StatusOr<bool> PrepareAuthority(const DataDirectory& data, const RebuildWish& wish, const Clock& clock) {
  if (io::Exists(data.ca() + "/root.pem")) {
    LF_RETURN_IF_ERROR(identity::Authority::Open(data.ca()).status());
    return false;
  }
  // What a crash left has no root; nobody has used it.
  std::error_code error;
  std::filesystem::remove_all(data.ca(), error);
  if (error) return ErrnoError(error.value(), "remove " + data.ca());
  if (!wish.keys.empty()) {
    LF_RETURN_IF_ERROR(identity::Authority::Import(data.ca(), wish.keys, wish.passphrase));
    return false;
  }
  std::vector<std::string> hosts;
  for (const std::string& host : wish.hosts) {
    LF_ASSIGN_OR_RETURN(std::string name, identity::CheckHost(host));
    hosts.push_back(std::move(name));
  }
  LF_RETURN_IF_ERROR(identity::Authority::Create(data.ca(), hosts.empty() ? identity::DefaultHosts() : hosts, clock.Now()));
  return true;
}

// Whether the operator's file is one that the catalog knows as valid.
absl::StatusOr<bool> OperatorIsValid(const DataDirectory& data, const catalog::IdentityCatalog& identities) {
  if (!io::Exists(data.admin_pem())) return false;
  const auto identity = rpc::ReadIdentityFile(data.admin_pem());
  if (!identity.ok()) return false;
  const auto certificate = crypto::CertificateFromPem(identity->certificate_chain);
  if (!certificate.ok()) return false;
  LF_ASSIGN_OR_RETURN(const auto row, identities.FindCertificate(crypto::SerialOf(**certificate)));
  return row.has_value() && !row->revoked;
}

// True: admin.pem is a new one.
absl::StatusOr<bool> PrepareOperator(const DataDirectory& data, const std::string& catalog, const Clock& clock) {
  LF_ASSIGN_OR_RETURN(const auto db, catalog::CatalogDb::Open(catalog, false, catalog::Migrations()));
  catalog::IdentityCatalog identities(*db);
  LF_ASSIGN_OR_RETURN(const bool valid, OperatorIsValid(data, identities));
  if (valid) return false;
  const absl::Status revoked = identities.RevokeOperator(kFirstOperator, clock.Now());
  if (!revoked.ok() && !absl::IsNotFound(revoked)) return revoked;
  LF_ASSIGN_OR_RETURN(const auto authority, identity::Authority::Open(data.ca()));
  identity::Enrollment enrollment(*authority, identities, clock);
  LF_ASSIGN_OR_RETURN(const rpc::Identity admin, enrollment.CreateOperator(kFirstOperator, std::string(catalog::kAdminRole)));
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(data.admin_pem(), rpc::FormatIdentity(admin), 0600));
  return true;
}

// History is good to have and nothing depends on it: whatever is wrong with a backup is a note.
absl::Status TakeFromBackup(const DataDirectory& data, const std::string& catalog, const Clock& clock, RebuildOutcome& outcome) {
  const std::string copy = data.scratch() + "/catalog-unpacked.db";
  const auto take = [&]() -> absl::Status {
    LF_ASSIGN_OR_RETURN(const backup::UnpackedCatalog unpacked, backup::UnpackNewestCatalog(data.store(), copy, outcome.backup_notes));
    LF_ASSIGN_OR_RETURN(outcome.history, catalog::TakeHistory(catalog, copy, clock.Now()));
    outcome.backup_made_at = unpacked.made_at;
    return absl::OkStatus();
  };
  if (const absl::Status taken = take(); !taken.ok()) {
    outcome.backup_notes.push_back(MessageOf(taken));
  }
  return catalog::RemoveCatalogFiles(copy);
}

absl::StatusOr<std::string> AskAtTerminal(const char* prompt) {
  const io::UniqueFd terminal(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal.valid()) {
    return Error(absl::StatusCode::kInvalidArgument, "PASSPHRASE_MISSING", "there is no terminal to ask for the passphrase at",
                 "put it into a file and name that with --passphrase-file");
  }
  termios before{};
  const bool echo = tcgetattr(terminal.get(), &before) == 0;
  termios quiet = before;
  quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  if (echo) tcsetattr(terminal.get(), TCSAFLUSH, &quiet);
  static_cast<void>(!write(terminal.get(), prompt, strlen(prompt)));
  std::string line;
  char c = 0;
  while (read(terminal.get(), &c, 1) == 1 && c != '\n') line += c;
  if (echo) tcsetattr(terminal.get(), TCSAFLUSH, &before);
  static_cast<void>(!write(terminal.get(), "\n", 1));
  return line;
}

}  // namespace

absl::StatusOr<RebuildOutcome> RebuildDataDirectory(const DataDirectory& data, const RebuildWish& wish, const Clock& clock) {
  // Nothing is made in a directory that is none of ours. Beside a controller that serves its catalog is no reason to move that away.
  if (!io::Exists(data.lock())) LF_RETURN_IF_ERROR(CheckWish(data, wish));
  LF_ASSIGN_OR_RETURN(const io::ProcessLock lock, io::ProcessLock::Acquire(data.lock()));
  LF_RETURN_IF_ERROR(CheckWish(data, wish));
  LF_RETURN_IF_ERROR(io::MakeDirectory(data.scratch(), 0700));
  RebuildOutcome outcome;
  LF_ASSIGN_OR_RETURN(outcome.new_authority, PrepareAuthority(data, wish, clock));
  LF_CRASH_POINT("rebuild.after_ca");

  store::FileStoreOptions options;
  options.directory = data.store();
  LF_ASSIGN_OR_RETURN(const auto store, store::FileStore::Open(options, clock));
  const std::string unfinished = data.catalog() + ".rebuild";
  LF_ASSIGN_OR_RETURN(const auto catalog, catalog::RebuildCatalog::Create(unfinished));
  const rebuild::RebuildOptions rebuild_options{.keep_certificates = !outcome.new_authority, .progress = wish.progress};
  LF_ASSIGN_OR_RETURN(outcome.report, rebuild::Rebuild(*store, *catalog, clock, rebuild_options));
  LF_RETURN_IF_ERROR(catalog->Close());
  LF_CRASH_POINT("rebuild.after_catalog");
  LF_RETURN_IF_ERROR(TakeFromBackup(data, unfinished, clock, outcome));
  LF_CRASH_POINT("rebuild.after_history");
  LF_ASSIGN_OR_RETURN(outcome.new_operator, PrepareOperator(data, unfinished, clock));
  LF_CRASH_POINT("rebuild.before_rename");
  LF_RETURN_IF_ERROR(io::RenameFile(unfinished, data.catalog()));
  LF_RETURN_IF_ERROR(io::RemoveFile(data.unfinished()));
  return outcome;
}

absl::Status ExportKeys(const DataDirectory& data, const std::string& passphrase, const std::string& output) {
  if (io::Exists(output)) {
    return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} exists already", output), "name another file");
  }
  LF_RETURN_IF_ERROR(io::CheckNamedOutput(output, "--output"));
  LF_ASSIGN_OR_RETURN(const auto authority, identity::Authority::Open(data.ca()));
  LF_ASSIGN_OR_RETURN(const std::string text, authority->Export(passphrase));
  return io::WriteFileAtomic(output, text, 0600);
}

absl::StatusOr<std::string> ReadPassphrase(const std::string& file, bool twice) {
  std::string passphrase;
  if (file.empty()) {
    LF_ASSIGN_OR_RETURN(passphrase, AskAtTerminal("Passphrase of the keys: "));
    if (twice) {
      LF_ASSIGN_OR_RETURN(const std::string again, AskAtTerminal("The same again: "));
      if (again != passphrase)
        return Error(absl::StatusCode::kInvalidArgument, "PASSPHRASES_DIFFER", "the two passphrases differ", "try again");
    }
  } else {
    LF_ASSIGN_OR_RETURN(
        const std::string text,
        io::ReadNamedFile(file,
                          {"--passphrase-file", "write the passphrase into its first line, or leave it out to be asked at the terminal"},
                          64 * 1024));
    passphrase = text.substr(0, text.find('\n'));
  }
  if (passphrase.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "PASSPHRASE_MISSING", "the passphrase is empty",
                 "write one, or put it into the first line of a file and name that with --passphrase-file");
  }
  if (twice && passphrase.size() < kMinPassphrase) {
    return Error(absl::StatusCode::kInvalidArgument, "PASSPHRASE_TOO_SHORT",
                 fmt::format("the passphrase has fewer than {} characters", kMinPassphrase), "use a longer one: it guards the whole fleet");
  }
  return passphrase;
}

}  // namespace litefleet
