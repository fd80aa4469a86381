// The controller's data directory: every path in it, its lock, and how it is made.
//
//   lock          held by `serve`, names its pid     catalog.db   devices, snapshots, operations
//   store/        packs                              ca/          keys and certificates (0700)
//   scratch/      copies under check; emptied        admin.pem    the first operator: key, certificate, CA (0600)
//   admin.sock    operators of this host (0600)  init-unfinished   only while `init` has not finished
//
// Thread safety: a value. Errors: kFailedPrecondition DATA_NOT_EMPTY, ALREADY_RUNNING, NETWORK_FILE_SYSTEM; kNotFound DATA_NOT_FOUND.
#ifndef LITEFLEET_CONTROLLER_DATA_DIRECTORY_H_
#define LITEFLEET_CONTROLLER_DATA_DIRECTORY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/io/file.h"
#include "common/rpc/identity_file.h"

namespace litefleet {

struct DataDirectory {
  std::string path;

  std::string lock() const { return path + "/lock"; }
  std::string catalog() const { return path + "/catalog.db"; }
  std::string store() const { return path + "/store"; }
  std::string ca() const { return path + "/ca"; }
  std::string scratch() const { return path + "/scratch"; }
  std::string admin_pem() const { return path + "/admin.pem"; }
  std::string unfinished() const { return path + "/init-unfinished"; }

  // Whether `init` has finished here. kNotFound DATA_NOT_FOUND, kFailedPrecondition INIT_UNFINISHED.
  absl::Status CheckInitialized() const;
  absl::Status CheckFileSystem(bool allow_network) const;
  // The pid of the process that serves it; 0: none.
  int ServingPid() const;
};

// Makes all of it. `hosts` empty: DefaultHosts. `path` must be missing or empty, or what a crashed `init` left: then it begins anew.
absl::Status InitDataDirectory(const DataDirectory& data, const std::vector<std::string>& hosts, bool allow_network, const Clock& clock);
// The certificate is good at once: a controller that runs is told to look. kAlreadyExists OPERATOR_EXISTS, FILE_EXISTS.
absl::Status CreateOperator(const DataDirectory& data, const std::string& name, const std::string& role, const std::string& output,
                            const Clock& clock);
// At once, as above. kNotFound OPERATOR_NOT_FOUND.
absl::Status RevokeOperator(const DataDirectory& data, const std::string& name, const Clock& clock);
absl::Status ChangeHost(const DataDirectory& data, const std::string& host, bool add);

}  // namespace litefleet

#endif  // LITEFLEET_CONTROLLER_DATA_DIRECTORY_H_
