// Snapshots become files that people can open, in a directory of the controller: `[export]` of policies.
//
//   ROOT/DEVICE/DATABASE/20261122T140300Z-SNAPSHOT/    CSV, a file a table and view, or DATABASE.sql; and export.json, which says what it
//   is
//
// DEVICE is the device's name, or NAME~ and the first 8 characters of its id where another device had that name before and left exports.
//
// After a backup, and once a minute by itself, it is looked at which databases have a newest snapshot that was not exported, and whose last
// export is as long ago as the policy says; those that took long last time come last. After a failure the database waits (`again`, or four
// times what the try took), whatever is backed up meanwhile. What is there is what is known: nothing else is remembered. After the clock
// was set back, names of the future do not count as the last export, and are the first to be removed. One export at a time; each is an
// operation of kind EXPORT. SQLite reads the snapshot in the helper process (design law 12).
//
// | step | crash point behind it | then there is |
// |---|---|---|
// | the snapshot in the scratch place | `export.materialised` | a scratch file, removed at the next start |
// | `.NAME.partial`, files and directory synced | `export.written` | a directory that begins with a dot, removed by the next export there |
// | renamed to NAME, its parent synced | `export.renamed` | one more than is kept |
// | all but the newest are removed, by name | | |
//
// Names of devices and databases are names (IsName), those of tables are escaped (common/dump/csv_files.h): nothing leaves its directory.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything, which must outlive it.
// Errors of an operation: those of a reader; TABLE_NOT_FOUND, DUMP_REFUSED, DATABASE_DAMAGED, DUMP_FAILED, DUMP_TIMEOUT, DUMP_TOO_LARGE;
// NOT_ENOUGH_SPACE; EXPORT_INTERRUPTED (a restart of the controller, it is begun anew); CANCELLED, after which this snapshot is not
// exported any more until the next start.
#ifndef LITEFLEET_CONTROLLER_EXPORTS_EXPORTS_H_
#define LITEFLEET_CONTROLLER_EXPORTS_EXPORTS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/io/file.h"
#include "common/io/space_guard.h"
#include "controller/fleet/fleet.h"
#include "controller/restore/snapshot_reader.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::exports {

// What a policy says.
struct Rule {
  std::string policy;
  bool csv = false;  // else SQL
  std::chrono::milliseconds every{0};
  int keep = 1;
};

// The last export of a database did not work, and none has since.
struct Failure {
  std::string device;  // its name
  std::string database;
  SystemTime at;
  absl::Status status;
};

struct Candidate {
  v1::Database database;  // with its newest snapshot
  Rule rule;
};

struct ExportDeps {
  fleet::Fleet& fleet;
  restore::SnapshotReaderFactory& readers;
  const Clock& clock;
  // All databases that are exported; an error of `visit` ends it.
  std::function<absl::Status(const std::function<absl::Status(const Candidate&)>& visit)> all;
  // One database; nothing where no policy exports it.
  std::function<absl::StatusOr<std::optional<Candidate>>(const DeviceId& device, const std::string& database)> one;
};

struct ExportOptions {
  std::string root;
  std::string scratch;
  uint64_t reserve_bytes = 256 << 20;
  std::chrono::milliseconds look{60'000};
  std::chrono::milliseconds again{600'000};  // after one that failed; longer where that took long
  std::chrono::milliseconds slow{30'000};    // what took as long as this comes last the next time
  int nice = 10;
  std::string helper;
  // For tests.
  io::FreeBytesOf free_bytes = &io::FreeBytes;
  std::function<absl::Status(const std::string&)> sync_directory = &io::SyncDirectory;
};

class Exports {
 public:
  Exports(ExportDeps deps, ExportOptions options);
  ~Exports();
  Exports(const Exports&) = delete;
  Exports& operator=(const Exports&) = delete;

  // Ends what a former run of the controller left, and begins to work. Once, before the server listens.
  absl::Status Begin();
  // Idempotent.
  void Stop();
  // A backup was committed.
  void Committed(const DeviceId& device, const std::string& database);
  // Of the databases that policies export still, at most 200. Not of cancelled ones. A restart forgets them, and tries anew at once.
  std::vector<Failure> Failures() const;

 private:
  using Key = std::pair<std::string, std::string>;  // device and database
  void Work();
  void LookAtOne(const Key& key);
  // What took long last time, the longest last.
  void LookAtSlow(std::vector<Key> keys);
  void LookAt(const Candidate& candidate);
  // The directory of a database's exports: by names, but where another device of that name has left some.
  absl::StatusOr<std::string> PlaceOf(const v1::Database& database) const;
  absl::Status Export(const Candidate& candidate, const std::string& directory, v1::Operation& operation, const CancelToken& cancel);
  absl::Status Write(const Candidate& candidate, int fd, const std::string& directory, v1::Operation& operation, const CancelToken& cancel);
  // The directories that lead to an export.
  absl::Status SyncAbove(const std::string& made) const;
  void Repair(const Candidate& candidate, const std::string& directory, const std::string& made);
  // `made`: the name of the newest, which stays.
  absl::Status Keep(const std::string& directory, const std::string& made, int keep) const;
  void Note(const Candidate& candidate, const absl::Status& status, std::chrono::nanoseconds pause);
  bool HasFailed(const Key& key) const;
  // Of those that no policy exports any more nothing is wrong.
  void ForgetOthers(const std::set<Key>& exported);
  bool stopping() const;

  const ExportDeps deps_;
  const ExportOptions options_;

  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::set<Key> woken_ ABSL_GUARDED_BY(mu_);
  std::map<Key, Failure> failures_ ABSL_GUARDED_BY(mu_);
  // The worker's. After a failure a database is not tried before then, whatever snapshots it gets meanwhile.
  std::map<Key, SteadyTime> not_before_;
  std::map<Key, std::string> cancelled_;  // the snapshot whose export was cancelled last
  std::map<Key, std::chrono::nanoseconds> slow_;
  std::thread worker_;
};

// "20261122T140300Z-ULID", and back; nothing where it is none.
std::string ExportName(SystemTime at, const SnapshotId& snapshot);
struct ParsedName {
  SystemTime at;
  SnapshotId snapshot;
};
std::optional<ParsedName> ParseExportName(std::string_view name);

}  // namespace litefleet::exports

#endif  // LITEFLEET_CONTROLLER_EXPORTS_EXPORTS_H_
