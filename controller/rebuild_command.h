// `litefleet-controller rebuild` and `export-keys`: the data directory after its catalog, its CA, or both were lost.
//
// Thread safety: functions; each takes the lock of the data directory. Errors: kAlreadyExists CATALOG_EXISTS, FILE_EXISTS; kNotFound
// STORE_NOT_FOUND; kPermissionDenied PASSPHRASE_WRONG; those of Rebuild and Authority.
#ifndef LITEFLEET_CONTROLLER_REBUILD_COMMAND_H_
#define LITEFLEET_CONTROLLER_REBUILD_COMMAND_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/catalog/catalog_history.h"
#include "controller/data_directory.h"
#include "controller/rebuild/rebuild.h"

namespace litefleet {

struct RebuildWish {
  std::string keys;                // text of an exported file; empty: the CA in the directory, or a new one
  std::string passphrase;          // of `keys`
  std::vector<std::string> hosts;  // of a new CA; empty: DefaultHosts
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct RebuildOutcome {
  rebuild::RebuildReport report;
  bool new_authority = false;
  bool new_operator = false;  // admin.pem was written
  // From a backup of the lost catalog: what the packs do not hold. Unset: there was none that could be used.
  std::optional<SystemTime> backup_made_at;
  catalog::TakenHistory history;
  std::vector<std::string> backup_notes;  // backups that could not be used, and why
};

// The catalog is there, whole, when this returns OK; a crash leaves none, and the next run begins anew.
absl::StatusOr<RebuildOutcome> RebuildDataDirectory(const DataDirectory& data, const RebuildWish& wish, const Clock& clock);

// Beside a controller that runs as well. `output` must not exist.
absl::Status ExportKeys(const DataDirectory& data, const std::string& passphrase, const std::string& output);

// From the first line of `file`, or from the terminal without echo, twice where `twice`. kInvalidArgument PASSPHRASE_MISSING,
// PASSPHRASE_TOO_SHORT (under 8 characters, where `twice`), PASSPHRASES_DIFFER.
absl::StatusOr<std::string> ReadPassphrase(const std::string& file, bool twice);

}  // namespace litefleet

#endif  // LITEFLEET_CONTROLLER_REBUILD_COMMAND_H_
