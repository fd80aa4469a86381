#include "controller/data_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/io/named_file.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "controller/identity/enrollment.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr char kFirstOperator[] = "admin";

absl::StatusOr<bool> IsEmpty(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return ErrnoError(errno, "open " + path);
  bool empty = true;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name = entry->d_name;
    // What mkfs leaves at the top of a file system of its own; and the lock, the first thing that `init` makes.
    if (name != "." && name != ".." && name != "lost+found" && name != "lock") empty = false;
  }
  closedir(directory);
  return empty;
}

absl::Status CheckVacant(const DataDirectory& data) {
  if (io::Exists(data.unfinished())) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool empty, IsEmpty(data.path));
  if (empty) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "DATA_NOT_EMPTY", fmt::format("{} is not empty", data.path),
               "choose an empty directory; nothing was changed");
}

// Nobody can have used any of it: `serve` refuses a directory with the mark.
absl::Status ClearUnfinished(const DataDirectory& data) {
  const std::string catalog = data.catalog(), admin = data.admin_pem();
  for (const std::string& path : {data.ca(), data.store(), data.scratch(), catalog, catalog + "-wal", catalog + "-shm",
                                  catalog + "-journal", admin, admin + ".tmp"}) {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) return ErrnoError(error.value(), "remove " + path);
  }
  return io::SyncDirectory(data.path);
}

// The catalog for one change, beside a server if there is one. Where there is none, none starts meanwhile, and nothing is written behind
// what the last one may have lost.
struct OpenCatalog {
  std::optional<io::ProcessLock> lock;  // goes last, and before the server is told
  std::unique_ptr<catalog::CatalogDb> db;
};

absl::StatusOr<OpenCatalog> OpenForAChange(const DataDirectory& data) {
  OpenCatalog open;
  signal(SIGHUP, SIG_IGN);  // another such command may take this one for the server, by the lock
  if (auto lock = io::ProcessLock::Acquire(data.lock()); lock.ok()) {
    open.lock = *std::move(lock);
  } else if (ReasonOf(lock.status()) != "ALREADY_RUNNING") {
    return lock.status();
  }
  LF_ASSIGN_OR_RETURN(open.db, catalog::CatalogDb::Open(data.catalog(), false, catalog::Migrations(), open.lock.has_value()));
  return open;
}

absl::StatusOr<rpc::Identity> NewOperator(const DataDirectory& data, catalog::CatalogDb& db, const std::string& name,
                                          const std::string& role, const Clock& clock) {
  LF_ASSIGN_OR_RETURN(const auto authority, identity::Authority::Open(data.ca()));
  catalog::IdentityCatalog identities(db);
  identity::Enrollment enrollment(*authority, identities, clock);
  return enrollment.CreateOperator(name, role);
}

void TellServer(const DataDirectory& data) {
  if (const int pid = data.ServingPid(); pid > 0) kill(pid, SIGHUP);
}

}  // namespace

absl::Status DataDirectory::CheckInitialized() const {
  // What may not be looked into is not missing.
  struct stat st {};
  if ((stat(path.c_str(), &st) != 0 && errno == EACCES) ||
      (S_ISDIR(st.st_mode) && faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0)) {
    return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION",
                 fmt::format("the data directory {} may not be looked into by this user ({})", path, geteuid()),
                 "run it as root or as the user that the controller runs as");
  }
  if (!io::Exists(path)) {
    return Error(absl::StatusCode::kNotFound, "DATA_NOT_FOUND", fmt::format("there is no data directory {}", path),
                 fmt::format("run `litefleet-controller init --data {}` first", path));
  }
  if (io::Exists(unfinished())) {
    return Error(absl::StatusCode::kFailedPrecondition, "INIT_UNFINISHED",
                 fmt::format("`litefleet-controller init` was cut off before it had made all of {}", path),
                 fmt::format("run `litefleet-controller init --data {}` again: it begins anew; there is nothing to lose yet", path));
  }
  if (io::Exists(catalog()) && io::Exists(ca() + "/root.pem")) return absl::OkStatus();
  return Error(absl::StatusCode::kNotFound, "DATA_NOT_FOUND", fmt::format("{} holds no catalog and CA of litefleet", path),
               "run `litefleet-controller init` on an empty directory, or put what is missing back from a backup");
}

absl::Status DataDirectory::CheckFileSystem(bool allow_network) const {
  const std::string type = io::NetworkFileSystemName(path);
  if (type.empty() || allow_network) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "NETWORK_FILE_SYSTEM",
               fmt::format("{} is on {}, where locks and fsync cannot be relied on", path, type),
               "use a local disk, or set allow_network_file_system = true (init: --allow-network-file-system) at your own risk");
}

int DataDirectory::ServingPid() const {
  const auto fd = io::Open(lock(), O_RDWR);
  if (!fd.ok()) return 0;
  if (flock(fd->get(), LOCK_SH | LOCK_NB) == 0) return 0;
  const auto text = io::ReadFile(lock(), 64);
  int pid = 0;
  if (!text.ok() || std::from_chars(text->data(), text->data() + text->size(), pid).ec != std::errc()) return 0;
  return pid;
}

absl::Status InitDataDirectory(const DataDirectory& data, const std::vector<std::string>& hosts, bool allow_network, const Clock& clock) {
  std::vector<std::string> checked;
  for (const std::string& host : hosts) {
    LF_ASSIGN_OR_RETURN(std::string name, identity::CheckHost(host));
    checked.push_back(std::move(name));
  }
  if (checked.empty()) checked = identity::DefaultHosts();
  LF_RETURN_IF_ERROR(io::MakeDirectory(data.path, 0700));
  LF_RETURN_IF_ERROR(CheckVacant(data));
  LF_RETURN_IF_ERROR(data.CheckFileSystem(allow_network));
  LF_RETURN_IF_ERROR(identity::CheckClock(clock.Now()));
  LF_ASSIGN_OR_RETURN(const io::ProcessLock lock, io::ProcessLock::Acquire(data.lock()));
  LF_RETURN_IF_ERROR(CheckVacant(data));  // another one may have finished before the lock was ours
  LF_CRASH_POINT("init.after_lock");
  LF_RETURN_IF_ERROR(io::Open(data.unfinished(), O_WRONLY | O_CREAT).status());
  LF_RETURN_IF_ERROR(ClearUnfinished(data));
  LF_CRASH_POINT("init.after_mark");
  LF_RETURN_IF_ERROR(io::MakeDirectory(data.store(), 0700));
  LF_RETURN_IF_ERROR(io::MakeDirectory(data.scratch(), 0700));
  LF_RETURN_IF_ERROR(identity::Authority::Create(data.ca(), checked, clock.Now()));
  LF_CRASH_POINT("init.after_ca");
  LF_ASSIGN_OR_RETURN(auto db, catalog::CatalogDb::Open(data.catalog(), true, catalog::Migrations()));
  LF_ASSIGN_OR_RETURN(const rpc::Identity admin, NewOperator(data, *db, kFirstOperator, "admin", clock));
  db.reset();
  LF_CRASH_POINT("init.after_catalog");
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(data.admin_pem(), rpc::FormatIdentity(admin), 0600));
  LF_CRASH_POINT("init.after_operator");
  return io::RemoveFile(data.unfinished());
}

absl::Status CreateOperator(const DataDirectory& data, const std::string& name, const std::string& role, const std::string& output,
                            const Clock& clock) {
  LF_RETURN_IF_ERROR(data.CheckInitialized());
  if (io::Exists(output)) {
    return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} exists already", output), "name another file");
  }
  LF_RETURN_IF_ERROR(io::CheckNamedOutput(output, "--output"));
  // Fails before the certificate exists where the file could not be written.
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(output, "", 0600));
  const auto create = [&]() -> absl::StatusOr<rpc::Identity> {
    LF_ASSIGN_OR_RETURN(const OpenCatalog open, OpenForAChange(data));
    return NewOperator(data, *open.db, name, role, clock);
  };
  const auto identity = create();
  if (!identity.ok()) {
    io::RemoveFile(output).IgnoreError();
    return identity.status();
  }
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(output, rpc::FormatIdentity(*identity), 0600));
  TellServer(data);
  return absl::OkStatus();
}

absl::Status RevokeOperator(const DataDirectory& data, const std::string& name, const Clock& clock) {
  LF_RETURN_IF_ERROR(data.CheckInitialized());
  {
    LF_ASSIGN_OR_RETURN(const OpenCatalog open, OpenForAChange(data));
    LF_RETURN_IF_ERROR(catalog::IdentityCatalog(*open.db).RevokeOperator(name, clock.Now()));
  }
  TellServer(data);
  return absl::OkStatus();
}

absl::Status ChangeHost(const DataDirectory& data, const std::string& host, bool add) {
  LF_RETURN_IF_ERROR(data.CheckInitialized());
  LF_ASSIGN_OR_RETURN(const auto authority, identity::Authority::Open(data.ca()));
  LF_RETURN_IF_ERROR(add ? authority->AddHost(host) : authority->RemoveHost(host));
  TellServer(data);
  return absl::OkStatus();
}

}  // namespace litefleet
