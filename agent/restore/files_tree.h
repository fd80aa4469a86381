// The files of an archive on their way below a root: kept in a directory of their own, then each renamed to its place.
//
// The archive is a stranger's. Nothing of it is done that the device's rules do not mean (Check), and nothing below the root is reached but
// by beneath.h. Thread safety: none. Memory: what the archive says of its files, which the rules bound.
//
// Errors: kDataLoss ARCHIVE_INVALID (what no archive of ours says), kPermissionDenied FILES_NOT_MEANT (what the rules of the device do not
// mean), kFailedPrecondition TARGET_NOT_FILE, TARGET_IS_DATABASE, kPermissionDenied DIRECTORY_NOT_WRITABLE, kResourceExhausted
// NOT_ENOUGH_SPACE, ErrnoError.
#ifndef LITEFLEET_AGENT_RESTORE_FILES_TREE_H_
#define LITEFLEET_AGENT_RESTORE_FILES_TREE_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/restorer.h"
#include "common/base/bytes.h"
#include "common/files/entry.h"
#include "common/files/glob.h"
#include "common/io/file.h"
#include "common/io/space_guard.h"
#include "common/io/writeback.h"

namespace litefleet::restore {

// What is said of each entry as it comes, before anything is done with it.
class ArchiveJudge {
 public:
  explicit ArchiveJudge(const files::Rules& rules) : rules_(rules), globs_(rules.include, rules.exclude) {}

  absl::Status Check(const files::Entry& entry);
  // The first bytes of a file's content.
  static absl::Status CheckContent(const files::Entry& entry, std::string_view start);

 private:
  const files::Rules& rules_;
  const files::GlobSet globs_;
  std::string last_;
  std::vector<std::string> open_;  // the directories that the last entry is in, and itself where it is one
  int64_t count_ = 0;
  uint64_t bytes_ = 0;
  size_t name_bytes_ = 0;
};

class FilesTree {
 public:
  // `root`: a descriptor of it. `staging`: the name of a directory in it, which is made anew, whatever a former run left of it.
  static absl::StatusOr<FilesTree> Make(int root, const Target& target, std::string staging);
  // Removes the directory, and what a killed CheckPlaces left elsewhere; missing is fine.
  static absl::Status Remove(int root, const std::string& staging);

  // In the order of the archive. Owners and modes are set as far as this process may; what was not is told by notes().
  absl::Status Add(const files::Entry& entry);
  absl::Status AddContent(ByteView content);
  absl::Status FinishAdding();  // all of it is on the disk

  // Before anything is changed: every place is free or has what may be replaced.
  absl::Status CheckPlaces();
  // Each place has what it had or what it gets, whatever happens. `done` is told after each.
  absl::Status Apply(const std::function<void(size_t)>& done);

  size_t size() const { return entries_.size(); }
  size_t applied() const { return applied_; }
  // For people: what was done.
  std::string Summary() const;
  std::vector<std::string> Notes() const;

 private:
  FilesTree(int root, const Target& target, std::string staging, io::UniqueFd directory, uint64_t reserve);
  absl::Status FinishFile();
  // Whether it has the owner and the group of the entry.
  bool SetOwner(const files::Entry& entry, int fd);
  absl::Status CheckPlace(const files::Entry& entry);
  absl::Status Probe(const files::Entry& entry, int parent);
  absl::Status ApplyOne(size_t index);
  absl::Status ApplyDirectory(size_t index, int parent);
  void CloseDirectory(const files::Entry& entry);
  absl::StatusOr<io::UniqueFd> Parent(const files::Entry& entry) const;
  absl::Status SyncParent();
  bool IsDatabase(const struct stat& st) const;

  const int root_;
  const std::string staging_;
  io::UniqueFd directory_;
  ArchiveJudge judge_;
  io::SpaceGuard space_;
  std::vector<std::pair<uint64_t, uint64_t>> databases_;  // device and inode
  std::vector<files::Entry> entries_;
  io::UniqueFd file_;  // the last entry's, while its content comes
  uint64_t left_ = 0;
  io::Writeback writeback_;       // so that its sync is short, which hears no cancel
  std::string start_;             // of it
  std::set<std::string> probed_;  // parents
  std::vector<size_t> closed_;    // directories that get their owner's rights at the end
  io::UniqueFd synced_;           // the parent that has to be synced
  std::string synced_name_;
  size_t applied_ = 0;
  int64_t files_ = 0, links_ = 0, directories_ = 0;
  int64_t without_owner_ = 0, without_bits_ = 0, left_open_ = 0;
  std::string first_without_owner_, first_without_bits_, first_left_open_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FILES_TREE_H_
