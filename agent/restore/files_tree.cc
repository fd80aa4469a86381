#include "agent/restore/files_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/files/beneath.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using files::Entry;
using files::EntryKind;

constexpr std::array<std::string_view, 4> kOfDatabase = {"", "-wal", "-journal", "-shm"};
constexpr std::string_view kProbe = "-probe";  // behind the name of the staging directory
constexpr char kProbed[] = "probed";           // in it: a link to the directory that has the probe
constexpr size_t kMostShown = 200;
constexpr uint64_t kBlock = 4096;  // of most file systems
constexpr mode_t kGivesRights = S_ISUID | S_ISGID;

// A name for people: it may be any bytes, and messages are UTF-8.
std::string Shown(const Entry& entry) { return CleanUtf8(entry.name, kMostShown); }

absl::Status Invalid(const Entry& entry, std::string_view why) {
  return Error(Code::kDataLoss, "ARCHIVE_INVALID", fmt::format("the archive has an entry \"{}\" that {}", Shown(entry), why),
               "no litefleet makes such an archive: look at who can write to the controller's store");
}

absl::Status NotMeant(const Entry& entry) {
  return Error(Code::kPermissionDenied, "FILES_NOT_MEANT",
               fmt::format("the snapshot has \"{}\", which include and exclude of this device do not mean", Shown(entry)),
               "add it to `include` of the [[files]] in agent.toml, or download the snapshot");
}

absl::Status TooMuch(std::string_view what, std::string_view key) {
  return Error(Code::kResourceExhausted, "FILES_TOO_LARGE",
               fmt::format("the snapshot has more {} than {} of this device allows", what, key),
               "raise the limit of the [[files]] in agent.toml");
}

// Until nothing is left of it; what is ours has no directories in it but empty ones.
absl::Status EmptyDirectory(int fd) {
  const int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy < 0 ? nullptr : fdopendir(copy), &closedir);
  if (dir == nullptr) return ErrnoError(errno, "list the staging directory");
  for (;;) {
    errno = 0;
    const dirent* const next = readdir(dir.get());
    if (next == nullptr) return errno == 0 ? absl::OkStatus() : ErrnoError(errno, "list the staging directory");
    const std::string_view name = next->d_name;
    if (name == "." || name == "..") continue;
    if (unlinkat(fd, next->d_name, 0) != 0 && errno != ENOENT && unlinkat(fd, next->d_name, AT_REMOVEDIR) != 0)
      return ErrnoError(errno, "empty the staging directory");
  }
}

absl::Status NotWritable(const Entry& entry, std::string_view why) {
  return Error(Code::kPermissionDenied, "DIRECTORY_NOT_WRITABLE",
               fmt::format("the agent, as user {}, may not put {} in its place: {}", geteuid(), Shown(entry), why),
               "let the agent's user write to the directory, or mount it writable (under systemd: ReadWritePaths= in a drop-in)");
}

// chattr +i or +a, where the file system tells: neither it nor what is in it can be replaced. An empty name: the directory itself.
bool IsFixed(int directory, const std::string& name) {
  struct statx st {};
  if (statx(directory, name.c_str(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, 0, &st) != 0) return false;
  return (st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)) != 0;
}

bool May(int capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1U << capability)) != 0;
}

// Empty where none is.
std::string LinkAt(int directory, const std::string& name) {
  std::string link(files::kMostName + 1, '\0');
  const ssize_t bytes = readlinkat(directory, name.c_str(), link.data(), link.size());
  link.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
  return link;
}

// What a crash left of FilesTree::Probe.
void RemoveProbe(int root, int staging_directory, const std::string& staging) {
  const std::string parent_name = LinkAt(staging_directory, kProbed);
  const io::UniqueFd parent(files::OpenBeneath(root, files::IsEntryName(parent_name) ? parent_name : "", O_RDONLY | O_DIRECTORY));
  if (parent.valid()) unlinkat(parent.get(), (staging + std::string(kProbe)).c_str(), 0);
}

timespec TimeOf(const Entry& entry) {
  timespec time{};
  time.tv_sec = entry.seconds;
  time.tv_nsec = static_cast<long>(entry.nanoseconds);  // NOLINT(google-runtime-int): the kernel's type
  return time;
}

}  // namespace

absl::Status ArchiveJudge::Check(const Entry& entry) {
  if (!files::IsEntryName(entry.name)) return Invalid(entry, "has no name below a root");
  if (!last_.empty() && !files::ComesBefore(last_, entry.name)) return Invalid(entry, "is there twice or not in its order");
  last_ = entry.name;
  const std::string_view parent = files::ParentOf(entry.name);
  while (!open_.empty() && open_.back() != parent) open_.pop_back();
  if (!parent.empty() && open_.empty()) return Invalid(entry, "is in no directory of the archive");
  if (entry.kind == EntryKind::kDirectory) open_.push_back(entry.name);
  if (entry.kind == EntryKind::kLink && !files::StaysInside(entry.name, entry.link)) return Invalid(entry, "leads out of the root");
  if (entry.mode > 07777 || entry.nanoseconds >= 1'000'000'000 || entry.uid == UINT32_MAX || entry.gid == UINT32_MAX)
    return Invalid(entry, "has a mode, an owner or a time that makes no sense");
  const bool taken = globs_.Takes(entry.name) || (entry.kind == EntryKind::kDirectory && globs_.MayHold(entry.name));
  if (!taken) return NotMeant(entry);
  if (++count_ > rules_.max_files) return TooMuch("files", "max_files");
  name_bytes_ += entry.name.size() + entry.link.size();
  if (name_bytes_ > files::kMostNameBytes) return TooMuch("names", "the limit");
  if (entry.kind != EntryKind::kFile) return absl::OkStatus();
  if (entry.size > static_cast<uint64_t>(rules_.max_file_bytes)) return TooMuch(fmt::format("bytes in {}", Shown(entry)), "max_file_bytes");
  bytes_ += entry.size;
  if (bytes_ > static_cast<uint64_t>(rules_.max_bytes)) return TooMuch("bytes", "max_bytes");
  return absl::OkStatus();
}

absl::Status ArchiveJudge::CheckContent(const Entry& entry, std::string_view start) {
  return files::IsSqliteHeader(start) ? Invalid(entry, "is a SQLite database") : absl::OkStatus();
}

FilesTree::FilesTree(int root, const Target& target, std::string staging, io::UniqueFd directory, uint64_t reserve)
    : root_(root),
      staging_(std::move(staging)),
      directory_(std::move(directory)),
      judge_(*target.files),
      space_(target.path, reserve, "free space there") {
  for (const std::string& path : target.databases) {
    for (const std::string_view suffix : kOfDatabase) {
      struct stat st {};
      const std::string name = path + std::string(suffix);
      if (stat(name.c_str(), &st) == 0) databases_.emplace_back(st.st_dev, st.st_ino);
      // The link to a database, too: without it there is none.
      if (lstat(name.c_str(), &st) == 0) databases_.emplace_back(st.st_dev, st.st_ino);
    }
  }
}

absl::StatusOr<FilesTree> FilesTree::Make(int root, const Target& target, std::string staging) {
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, target.reserve.At(target.path));
  LF_RETURN_IF_ERROR(Remove(root, staging));
  if (mkdirat(root, staging.c_str(), 0700) != 0) return ErrnoError(errno, "make " + target.path + "/" + staging);
  io::UniqueFd directory(files::OpenBeneath(root, staging, O_RDONLY | O_DIRECTORY));
  struct stat st {};
  if (!directory.valid() || fstat(directory.get(), &st) != 0) return ErrnoError(errno, "open " + target.path + "/" + staging);
  // Somebody who may write to the root could have put another one in its place.
  if (st.st_uid != geteuid() || (st.st_mode & 0077) != 0)
    return Error(Code::kFailedPrecondition, "TARGET_NOT_FILE", fmt::format("somebody else writes to {}/{}", target.path, staging));
  return FilesTree(root, target, std::move(staging), std::move(directory), reserve);
}

absl::Status FilesTree::Remove(int root, const std::string& staging) {
  {
    const io::UniqueFd old(files::OpenBeneath(root, staging, O_RDONLY | O_DIRECTORY));
    if (!old.valid() && errno == ENOENT) return absl::OkStatus();
    if (!old.valid() && errno != ENOTDIR && errno != ELOOP) return ErrnoError(errno, "open " + staging);
    if (old.valid()) RemoveProbe(root, old.get(), staging);
    if (old.valid()) LF_RETURN_IF_ERROR(EmptyDirectory(old.get()));
    if (old.valid()) return unlinkat(root, staging.c_str(), AT_REMOVEDIR) == 0 ? absl::OkStatus() : ErrnoError(errno, "remove " + staging);
  }
  if (unlinkat(root, staging.c_str(), 0) != 0 && errno != ENOENT) return ErrnoError(errno, "remove " + staging);
  return absl::OkStatus();
}

absl::Status FilesTree::Add(const Entry& entry) {
  LF_RETURN_IF_ERROR(FinishFile());
  LF_RETURN_IF_ERROR(judge_.Check(entry));
  // Many small files take more room than the archive says: what has an inode has a block, and content fills its last one.
  LF_RETURN_IF_ERROR(space_.Wrote(kBlock + (kBlock - entry.size % kBlock) % kBlock));
  const std::string name = std::to_string(entries_.size());
  entries_.push_back(entry);
  if (entry.kind == EntryKind::kLink) {
    if (symlinkat(entry.link.c_str(), directory_.get(), name.c_str()) != 0) return ErrnoError(errno, "make the link " + Shown(entry));
    const timespec times[2] = {TimeOf(entry), TimeOf(entry)};
    utimensat(directory_.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW);
    if (fchownat(directory_.get(), name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0 && ++without_owner_ == 1)
      first_without_owner_ = Shown(entry);
  }
  // One that is missing is made here, where there may be no room for it.
  if (entry.kind == EntryKind::kDirectory && !io::UniqueFd(files::OpenBeneath(root_, entry.name, O_PATH)).valid() &&
      mkdirat(directory_.get(), name.c_str(), 0700) != 0)
    return ErrnoError(errno, "make " + Shown(entry));
  if (entry.kind != EntryKind::kFile) return absl::OkStatus();
  file_ = io::UniqueFd(openat(directory_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file_.valid()) return ErrnoError(errno, "make the staging file of " + Shown(entry));
  left_ = entry.size;
  writeback_ = io::Writeback();
  start_.clear();
  return absl::OkStatus();
}

absl::Status FilesTree::AddContent(ByteView content) {
  const Entry& entry = entries_.back();
  if (start_.size() < files::kSqliteHeaderBytes) {
    start_ += AsText(content).substr(0, files::kSqliteHeaderBytes - start_.size());
    LF_RETURN_IF_ERROR(ArchiveJudge::CheckContent(entry, start_));
  }
  left_ -= content.size();
  LF_RETURN_IF_ERROR(space_.Wrote(content.size()));
  LF_RETURN_IF_ERROR(io::WriteAll(file_.get(), content, Shown(entry)));
  writeback_.Wrote(file_.get(), entry.size - left_);
  return absl::OkStatus();
}

// Rights are given at the end: a set-user-id bit goes with a change of the owner.
absl::Status FilesTree::FinishFile() {
  if (!file_.valid()) return absl::OkStatus();
  const Entry& entry = entries_.back();
  const bool owned = SetOwner(entry, file_.get());
  mode_t mode = entry.mode;
  if ((mode & kGivesRights) != 0) {
    // Only where the device itself has given them to that file, and the new one has its owner: a snapshot gives nobody the rights of
    // another, nor those of the agent.
    struct stat now {};
    const io::UniqueFd present(files::OpenBeneath(root_, entry.name, O_PATH));
    const bool same = owned && present.valid() && fstat(present.get(), &now) == 0 && S_ISREG(now.st_mode) && now.st_uid == entry.uid &&
                      now.st_gid == entry.gid && (mode & kGivesRights & ~now.st_mode) == 0;
    if (!same) {
      mode &= ~kGivesRights;
      if (++without_bits_ == 1) first_without_bits_ = Shown(entry);
    }
  }
  int error = fchmod(file_.get(), mode) == 0 ? 0 : errno;
  // A filter of the unit (RestrictSUIDSGID=) refuses such bits, and the kernel drops what this process may not give.
  if (error == EPERM && (mode & kGivesRights) != 0) error = fchmod(file_.get(), mode & ~kGivesRights) == 0 ? 0 : errno;
  if (error != 0) return ErrnoError(error, "set the mode of " + Shown(entry));
  struct stat now {};
  if ((mode & kGivesRights) != 0 && fstat(file_.get(), &now) == 0 && (mode & kGivesRights & ~now.st_mode) != 0) {
    if (++without_bits_ == 1) first_without_bits_ = Shown(entry);
  }
  const timespec times[2] = {TimeOf(entry), TimeOf(entry)};
  if (futimens(file_.get(), times) != 0) return ErrnoError(errno, "set the time of " + Shown(entry));
  LF_RETURN_IF_ERROR(writeback_.status(Shown(entry)));
  LF_RETURN_IF_ERROR(io::Sync(file_.get(), Shown(entry)));
  file_ = io::UniqueFd();
  LF_CRASH_POINT("files.staged");
  return absl::OkStatus();
}

bool FilesTree::SetOwner(const Entry& entry, int fd) {
  // A group that this process is in it may give.
  if (fchown(fd, entry.uid, entry.gid) != 0) static_cast<void>(fchown(fd, static_cast<uid_t>(-1), entry.gid) == 0);
  // What it has by now is the answer: there are file systems that take any owner and keep none.
  struct stat st {};
  if (fstat(fd, &st) == 0 && st.st_uid == entry.uid && st.st_gid == entry.gid) return true;
  if (++without_owner_ == 1) first_without_owner_ = Shown(entry);
  return false;
}

absl::Status FilesTree::FinishAdding() {
  LF_RETURN_IF_ERROR(FinishFile());
  return io::Sync(directory_.get(), "the staging directory");
}

absl::StatusOr<io::UniqueFd> FilesTree::Parent(const Entry& entry) const {
  io::UniqueFd parent(files::OpenBeneath(root_, std::string(files::ParentOf(entry.name)), O_RDONLY | O_DIRECTORY));
  if (parent.valid()) return parent;
  if (errno == ENOTDIR || errno == ELOOP || errno == EXDEV) {
    return Error(Code::kFailedPrecondition, "TARGET_NOT_FILE",
                 fmt::format("the directory of {} is no directory here, or a symbolic link, or another file system", Shown(entry)),
                 "look at it on the device; no link is followed");
  }
  return ErrnoError(errno, "open the directory of " + Shown(entry));
}

bool FilesTree::IsDatabase(const struct stat& st) const {
  return std::find(databases_.begin(), databases_.end(), std::pair<uint64_t, uint64_t>(st.st_dev, st.st_ino)) != databases_.end();
}

absl::Status FilesTree::CheckPlaces() {
  for (const Entry& entry : entries_) LF_RETURN_IF_ERROR(CheckPlace(entry));
  return absl::OkStatus();
}

absl::Status FilesTree::CheckPlace(const Entry& entry) {
  const absl::StatusOr<io::UniqueFd> parent = Parent(entry);
  if (absl::IsNotFound(parent.status())) return absl::OkStatus();  // one that is made
  LF_RETURN_IF_ERROR(parent.status());
  const std::string base(files::BaseOf(entry.name));
  struct stat st {};
  const bool there = fstatat(parent->get(), base.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (!there && errno != ENOENT) return ErrnoError(errno, "look at " + Shown(entry));
  // What is mounted on the place cannot be replaced.
  const bool replaced = there && entry.kind != EntryKind::kDirectory;
  const io::UniqueFd at(replaced ? files::OpenBeneath(root_, entry.name, O_PATH) : -1);
  const bool mounted = replaced && !at.valid() && errno == EXDEV;
  const bool fits = !there || (entry.kind == EntryKind::kDirectory ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode) || S_ISLNK(st.st_mode));
  if (!fits || mounted) {
    return Error(Code::kFailedPrecondition, "TARGET_NOT_FILE",
                 fmt::format("what is at {} on the device is {}", Shown(entry), mounted ? "mounted there" : "no such file"),
                 "look at it on the device; a directory, a pipe or a device is not replaced by a file, and no file by a directory");
  }
  if (there && entry.kind == EntryKind::kDirectory) return absl::OkStatus();
  // Some of the files new and the rest refused is what nobody wants.
  if (faccessat(parent->get(), ".", W_OK | X_OK, AT_EACCESS) != 0) return NotWritable(entry, strerror(errno));
  if (IsFixed(parent->get(), "") || (there && IsFixed(parent->get(), base)))
    return NotWritable(entry, "it or its directory is immutable or append-only (lsattr)");
  struct stat directory {};
  if (there && fstat(parent->get(), &directory) == 0 && (directory.st_mode & S_ISVTX) != 0 && directory.st_uid != geteuid() &&
      st.st_uid != geteuid() && !May(CAP_FOWNER))
    return NotWritable(entry, "what is there belongs to another, and the directory has the sticky bit");
  if (probed_.insert(std::string(files::ParentOf(entry.name))).second) LF_RETURN_IF_ERROR(Probe(entry, parent->get()));
  if (entry.kind == EntryKind::kDirectory) return absl::OkStatus();
  // A link that is replaced by the same one leads to its database as before.
  if (entry.kind == EntryKind::kLink && there && LinkAt(parent->get(), base) == entry.link) return absl::OkStatus();
  bool database = there && IsDatabase(st);
  for (const std::string_view suffix : kOfDatabase) {
    if (suffix.empty()) continue;
    database |= fstatat(parent->get(), (base + std::string(suffix)).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (base.size() > suffix.size() && base.ends_with(suffix))
      database |= fstatat(parent->get(), base.substr(0, base.size() - suffix.size()).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  }
  if (!database) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "TARGET_IS_DATABASE",
               fmt::format("{} is, or belongs to, a SQLite database on the device", Shown(entry)),
               "restore databases by their own snapshots");
}

// What else the kernel may refuse of a rename (a subvolume, a quota of a project, a key of encryption) is asked with a file that nobody
// misses. Its name is ours, and is that of this operation.
absl::Status FilesTree::Probe(const Entry& entry, int parent) {
  const std::string name = staging_ + std::string(kProbe);
  // Remove finds it by that where this process is killed meanwhile. (Without one it is in the root, or on a file system without such
  // links.)
  const std::string parent_name(files::ParentOf(entry.name));
  unlinkat(directory_.get(), kProbed, 0);
  if (!parent_name.empty()) static_cast<void>(symlinkat(parent_name.c_str(), directory_.get(), kProbed) == 0);
  const io::UniqueFd made(openat(directory_.get(), "probe", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made.valid()) return ErrnoError(errno, "make a file in the staging directory");
  if (renameat(directory_.get(), "probe", parent, name.c_str()) == 0) {
    LF_CRASH_POINT("files.probed");
    if (unlinkat(parent, name.c_str(), 0) == 0) return absl::OkStatus();
  }
  if (errno == EXDEV || errno == EPERM || errno == EACCES || errno == EROFS) return NotWritable(entry, strerror(errno));
  return ErrnoError(errno, "put " + Shown(entry) + " in its place");
}

absl::Status FilesTree::Apply(const std::function<void(size_t)>& done) {
  absl::Status status = absl::OkStatus();
  for (size_t i = 0; i < entries_.size(); ++i) {
    status = ApplyOne(i);
    if (!status.ok()) break;
    ++applied_;
    LF_CRASH_POINT("files.renamed");
    done(i + 1);
  }
  // What is in its place stays there, and a directory is closed, however this ends.
  const absl::Status synced = SyncParent();
  // From the innermost: nobody gets through one that is closed.
  for (auto at = closed_.rbegin(); at != closed_.rend(); ++at) CloseDirectory(entries_[*at]);
  return status.ok() ? synced : status;
}

// It got the rights that were needed to put the files into it.
void FilesTree::CloseDirectory(const Entry& entry) {
  const io::UniqueFd made(files::OpenBeneath(root_, entry.name, O_RDONLY | O_DIRECTORY));
  struct stat st {};
  if (made.valid() && fstat(made.get(), &st) == 0 && fchmod(made.get(), (st.st_mode & 07777 & ~S_IRWXU) | (entry.mode & S_IRWXU)) == 0 &&
      fsync(made.get()) == 0)
    return;
  if (++left_open_ == 1) first_left_open_ = Shown(entry);
}

absl::Status FilesTree::SyncParent() {
  if (!synced_.valid()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(io::Sync(synced_.get(), CleanUtf8(synced_name_, kMostShown)));
  synced_ = io::UniqueFd();
  return absl::OkStatus();
}

absl::Status FilesTree::ApplyOne(size_t index) {
  const Entry& entry = entries_[index];
  // Opened again each time: somebody may have moved something since.
  LF_ASSIGN_OR_RETURN(io::UniqueFd parent, Parent(entry));
  const std::string parent_name(files::ParentOf(entry.name));
  if (parent_name != synced_name_) LF_RETURN_IF_ERROR(SyncParent());
  absl::Status applied = absl::OkStatus();
  if (entry.kind == EntryKind::kDirectory) {
    applied = ApplyDirectory(index, parent.get());
  } else {
    // A link at the place is replaced itself, and a directory is an error.
    const std::string base(files::BaseOf(entry.name));
    if (renameat(directory_.get(), std::to_string(index).c_str(), parent.get(), base.c_str()) != 0)
      applied = ErrnoError(errno, "put " + Shown(entry) + " in its place");
    ++(entry.kind == EntryKind::kFile ? files_ : links_);
  }
  synced_ = std::move(parent);
  synced_name_ = parent_name;
  return applied;
}

// One that is there stays as it is, and one that is made is there with its owner and mode or not at all.
absl::Status FilesTree::ApplyDirectory(size_t index, int parent) {
  const Entry& entry = entries_[index];
  const std::string base(files::BaseOf(entry.name));
  const std::string staged = std::to_string(index);
  struct stat st {};
  if (fstatat(parent, base.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return absl::OkStatus();
  if (mkdirat(directory_.get(), staged.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoError(errno, "make " + Shown(entry));
  const io::UniqueFd made(openat(directory_.get(), staged.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made.valid()) return ErrnoError(errno, "open " + Shown(entry));
  // A group that it does not have is not handed on to what is made in it; of a user a directory hands on nothing.
  const mode_t rights = SetOwner(entry, made.get()) ? S_ISUID : kGivesRights;
  mode_t mode = entry.mode & ~rights;
  // Who may not do everything needs them for the files that follow.
  const bool closed = (mode & S_IRWXU) != S_IRWXU && !May(CAP_DAC_OVERRIDE);
  if (closed) mode |= S_IRWXU;
  int error = fchmod(made.get(), mode) == 0 ? 0 : errno;
  if (error == EPERM && (mode & S_ISGID) != 0) error = fchmod(made.get(), mode & ~S_ISGID) == 0 ? 0 : errno;
  if (error != 0) return ErrnoError(error, "set the mode of " + Shown(entry));
  if (fstat(made.get(), &st) == 0 && (entry.mode & kGivesRights & ~st.st_mode) != 0 && ++without_bits_ == 1)
    first_without_bits_ = Shown(entry);
  LF_RETURN_IF_ERROR(io::Sync(made.get(), Shown(entry)));
  LF_CRASH_POINT("files.directory");
  error = renameat2(directory_.get(), staged.c_str(), parent, base.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
  // A file system without that: no file and no directory with something in it is replaced either.
  if (error == EINVAL || error == ENOSYS) error = renameat(directory_.get(), staged.c_str(), parent, base.c_str()) == 0 ? 0 : errno;
  if (error != 0) unlinkat(directory_.get(), staged.c_str(), AT_REMOVEDIR);
  if (error == 0) ++directories_;
  if (error == 0 && closed) closed_.push_back(index);
  return error == 0 || error == EEXIST || error == ENOTEMPTY ? absl::OkStatus() : ErrnoError(error, "make " + Shown(entry));
}

std::string FilesTree::Summary() const {
  return fmt::format(
      "put {} files and {} symbolic links in their places, and made {} directories; files that are not in the snapshot stayed", files_,
      links_, directories_);
}

std::vector<std::string> FilesTree::Notes() const {
  std::vector<std::string> notes;
  if (without_owner_ > 0) {
    notes.push_back(fmt::format("the owner of {} files could not be set (the first: {}){}", without_owner_, first_without_owner_,
                                geteuid() == 0 ? "" : ", as the agent is not root"));
  }
  if (without_bits_ > 0) {
    notes.push_back(
        fmt::format("the set-user-id or set-group-id bit of {} files was left out (the first: {})", without_bits_, first_without_bits_));
  }
  if (left_open_ > 0) {
    notes.push_back(fmt::format("{} new directories have more rights of their owner than in the snapshot (the first: {})", left_open_,
                                first_left_open_));
  }
  return notes;
}

}  // namespace litefleet::restore
