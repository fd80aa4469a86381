#include "common/archive/found.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "common/files/beneath.h"

namespace litefleet::archive {
namespace {

using files::Entry;
using files::EntryKind;

constexpr std::array<std::string_view, 3> kBesideDatabases = {"-wal", "-journal", "-shm"};
constexpr int kLists = 4;  // of a directory in which names do not keep still
constexpr const char* kElsewhere = "left out, since they are on another file system";
constexpr const char* kIsDatabase = "left out, since they are SQLite databases or belong to one (configure each as a [[database]])";

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

class Walker {
 public:
  Walker(int root, const files::Rules& rules) : root_(root), rules_(rules), globs_(rules.include, rules.exclude) {}

  Walked Run() {
    struct stat st {};
    if (fstat(root_, &st) != 0) return Refused("FILES_UNREADABLE", std::string("the root: ") + strerror(errno));
    device_ = st.st_dev;
    for (const std::string& path : rules_.databases) {
      if (stat(path.c_str(), &st) == 0) databases_.emplace(st.st_dev, st.st_ino);
      if (lstat(path.c_str(), &st) == 0) databases_.emplace(st.st_dev, st.st_ino);
    }
    bool own = false;
    const int fd = OpenDirectory("", own);
    if (fd >= 0 && !Directory(fd, "", 0)) return std::move(out_);
    if (listed_again_) {
      std::sort(out_.found.begin(), out_.found.end(),
                [](const Found& a, const Found& b) { return files::ComesBefore(a.entry.name, b.entry.name); });
    }
    if (!unreadable_.empty()) return Refused("FILES_UNREADABLE", "cannot be read: " + unreadable_.Text());
    if (!large_.empty()) {
      return Refused("FILES_TOO_LARGE", "more than max_file_bytes (" + std::to_string(rules_.max_file_bytes) + " bytes): " + large_.Text());
    }
    if (bytes_ > static_cast<uint64_t>(rules_.max_bytes)) {
      return Refused("FILES_TOO_LARGE", "the files have " + std::to_string(bytes_) + " bytes, max_bytes allows " +
                                            std::to_string(rules_.max_bytes) + "; the largest: " + Largest());
    }
    return std::move(out_);
  }

 private:
  Walked Refused(std::string reason, std::string text) {
    out_.reason = std::move(reason);
    out_.text = std::move(text);
    return std::move(out_);
  }
  bool Stop(std::string reason, std::string text) {
    out_.reason = std::move(reason);
    out_.text = std::move(text);
    return false;
  }
  void Unreadable(const std::string& name, int error) {
    unreadable_.Add((name.empty() ? "the root" : name) + " (" + strerror(error) + ")");
  }
  void Remark(const char* why, const std::string& name) { out_.remarks[why].Add(name); }

  std::string Largest() {
    std::sort(out_.found.begin(), out_.found.end(), [](const Found& a, const Found& b) { return a.entry.size > b.entry.size; });
    NameList list;
    for (const Found& found : out_.found) list.Add(found.entry.name + " (" + std::to_string(found.entry.size) + " bytes)");
    return list.Text();
  }

  // -1 where there is nothing to see, which is told where it should be. `own` is set where it is, or was, one of the root's.
  int OpenDirectory(const std::string& name, bool& own) {
    const bool listed = name.empty() || globs_.MayHold(name);
    const int fd = files::OpenBeneath(root_, name, (listed ? O_RDONLY : O_PATH) | O_DIRECTORY);
    own = fd >= 0 || errno != EXDEV;
    if (!own) Remark(kElsewhere, name);
    if (fd < 0 && own && !Gone(errno)) Unreadable(name, errno);
    return fd;
  }

  // Removed, renamed or replaced since its name was read.
  bool Gone(int error) {
    if (error != ENOENT && error != ENOTDIR && error != ELOOP) return false;
    gone_ = true;
    return true;
  }

  // Takes `fd` over. False: all is over.
  bool Directory(int fd, const std::string& name, int depth) {
    if (depth >= files::kMostDepth) {
      close(fd);
      return Stop("TOO_MANY_FILES", "directories are nested more than 64 deep: " + name);
    }
    const bool going = Names(fd, name, depth);
    close(fd);
    gone_ = false;
    return going;
  }

  // One that is not there any more may have another name by now: the directory is listed again, and what is new in it is looked at, too.
  bool Names(int fd, const std::string& name, int depth) {
    std::vector<std::string> names, looked, gone;
    for (int lists = 1; lists <= kLists; ++lists) {
      seen_ -= static_cast<int64_t>(names.size());
      names.clear();
      const int error = List(fd, names);
      if (error == E2BIG) return Stop("TOO_MANY_FILES", "there is more to look at than " + std::to_string(files::kMostSeen) + " names");
      if (error != 0) Unreadable(name, error);
      std::vector<std::string> wanted;
      std::set_difference(names.begin(), names.end(), looked.begin(), looked.end(), std::back_inserter(wanted));
      if (wanted.empty()) break;
      gone.clear();
      for (const std::string& base : wanted) {
        gone_ = false;
        if (!One(fd, name, base, names, depth)) return false;
        if (gone_) gone.push_back(base);
      }
      if (gone.empty()) break;
      listed_again_ = true;
      std::set_difference(wanted.begin(), wanted.end(), gone.begin(), gone.end(), std::back_inserter(looked));
      std::sort(looked.begin(), looked.end());
    }
    for (const std::string& base : gone) Remark(files::kGoneNote, name.empty() ? base : name + "/" + base);
    return true;
  }

  int List(int fd, std::vector<std::string>& names) {
    const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    const std::unique_ptr<DIR, CloseDir> dir(own < 0 ? nullptr : fdopendir(own));
    if (dir == nullptr) {
      const int error = errno;
      if (own >= 0) close(own);
      return error;
    }
    rewinddir(dir.get());
    for (;;) {
      errno = 0;
      const dirent* const next = readdir(dir.get());
      if (next == nullptr) break;
      const std::string_view entry = next->d_name;
      if (entry == "." || entry == ".." || entry.starts_with(files::kOwnPrefix)) continue;
      if (++seen_ > files::kMostSeen) return E2BIG;
      names.emplace_back(entry);
    }
    if (errno != 0) return errno;
    std::sort(names.begin(), names.end());
    return 0;
  }

  bool One(int fd, const std::string& parent, const std::string& base, const std::vector<std::string>& siblings, int depth) {
    const std::string name = parent.empty() ? base : parent + "/" + base;
    // What is left out may come and go.
    if (!globs_.Takes(name) && !globs_.MayHold(name)) return true;
    struct stat st {};
    if (fstatat(fd, base.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (!Gone(errno)) Unreadable(name, errno);
      return true;
    }
    if (S_ISDIR(st.st_mode)) return Below(name, st, depth);
    if (!globs_.Takes(name)) return true;
    if (!files::IsEntryName(name)) return Stop("TOO_MANY_FILES", "a name is too long: " + name);
    // Also a link to one, and one that has no header yet.
    if (databases_.contains({st.st_dev, st.st_ino})) {
      Remark(kIsDatabase, name);
      return true;
    }
    if (S_ISLNK(st.st_mode)) return Link(fd, base, name, st);
    if (!S_ISREG(st.st_mode)) {
      Remark("left out, since they are sockets, pipes or devices", name);
      return true;
    }
    if (LiesByDatabase(base, siblings)) {
      Remark(kIsDatabase, name);
      return true;
    }
    return File(name);
  }

  static bool LiesByDatabase(const std::string& base, const std::vector<std::string>& siblings) {
    const auto there = [&](const std::string& other) { return std::binary_search(siblings.begin(), siblings.end(), other); };
    return std::any_of(kBesideDatabases.begin(), kBesideDatabases.end(), [&](std::string_view suffix) {
      if (there(base + std::string(suffix))) return true;
      return base.size() > suffix.size() && base.ends_with(suffix) && there(base.substr(0, base.size() - suffix.size()));
    });
  }

  bool Below(const std::string& name, const struct stat& st, int depth) {
    const bool taken = globs_.Takes(name);
    if (!taken && !globs_.MayHold(name)) return true;
    if (st.st_dev != device_) {
      Remark(kElsewhere, name);
      return true;
    }
    if (!files::IsEntryName(name)) return Stop("TOO_MANY_FILES", "a name is too long: " + name);
    // The same device does not make it the same mount.
    bool own = false;
    const int fd = OpenDirectory(name, own);
    if (!own || gone_) return true;
    const size_t before = out_.found.size();
    if (!Keep(FoundOf(name, st))) {
      if (fd >= 0) close(fd);
      return false;
    }
    if (fd >= 0 && !globs_.MayHold(name)) {
      close(fd);
    } else if (fd >= 0 && !Directory(fd, name, depth + 1)) {
      return false;
    }
    // A directory on the way to nothing.
    if (!taken && out_.found.size() == before + 1) out_.found.pop_back();
    return true;
  }

  bool Link(int fd, const std::string& base, const std::string& name, const struct stat& st) {
    std::array<char, files::kMostName + 1> link{};
    const ssize_t bytes = readlinkat(fd, base.c_str(), link.data(), link.size());
    if (bytes < 0) {
      if (!Gone(errno == EINVAL ? ENOENT : errno)) Unreadable(name, errno);
      return true;
    }
    Found found = FoundOf(name, st);
    found.entry.link.assign(link.data(), static_cast<size_t>(bytes));
    if (files::StaysInside(name, found.entry.link)) return Keep(std::move(found));
    Remark("left out, since they are, or may be, symbolic links out of the root", name);
    return true;
  }

  bool File(const std::string& name) {
    // Not O_PATH: whether it can be read is part of the question. It does not wait where somebody has put a pipe in its place. From the
    // root, as it is opened again to be packed.
    const int file = files::OpenBeneath(root_, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (file < 0) {
      if (errno == EXDEV) {
        Remark(kElsewhere, name);
      } else if (!Gone(errno)) {
        Unreadable(name, errno);
      }
      return true;
    }
    struct stat st {};
    std::array<char, files::kSqliteHeaderBytes> start{};
    const bool looked = fstat(file, &st) == 0 && S_ISREG(st.st_mode);
    const ssize_t bytes = looked ? pread(file, start.data(), start.size(), 0) : 0;
    const int error = errno;
    close(file);
    if (!looked) {
      gone_ = true;
      return true;
    }
    if (bytes < 0) {
      Unreadable(name, error);
      return true;
    }
    if (files::IsSqliteHeader({start.data(), static_cast<size_t>(bytes)})) {
      Remark(kIsDatabase, name);
      return true;
    }
    if (st.st_size > rules_.max_file_bytes) {
      large_.Add(name + " (" + std::to_string(st.st_size) + " bytes)");
      return true;
    }
    bytes_ += static_cast<uint64_t>(st.st_size);
    return Keep(FoundOf(name, st));
  }

  bool Keep(Found found) {
    name_bytes_ += found.entry.name.size() + found.entry.link.size();
    if (std::cmp_greater_equal(out_.found.size(), rules_.max_files) || name_bytes_ > files::kMostNameBytes) {
      return Stop("TOO_MANY_FILES", "there are more than max_files (" + std::to_string(rules_.max_files) +
                                        ") files, directories and links; the next one is " + found.entry.name);
    }
    out_.found.push_back(std::move(found));
    return true;
  }

  const int root_;
  const files::Rules& rules_;
  const files::GlobSet globs_;
  uint64_t device_ = 0;
  std::set<std::pair<uint64_t, uint64_t>> databases_;  // those configured, and links to them: device and inode
  int64_t seen_ = 0;
  bool gone_ = false;  // the name that is looked at
  bool listed_again_ = false;
  uint64_t bytes_ = 0;
  size_t name_bytes_ = 0;
  NameList unreadable_;
  NameList large_;
  Walked out_;
};

}  // namespace

std::string NameList::Text() const {
  std::string text;
  for (const std::string& name : names_) text += (text.empty() ? "" : ", ") + name;
  if (count_ > names_.size()) text += " and " + std::to_string(count_ - names_.size()) + " more";
  return text;
}

bool IsSame(const Found& found, const struct stat& st) {
  const Found now = FoundOf(found.entry.name, st);
  return now.entry.kind == found.entry.kind && now.device == found.device && now.inode == found.inode &&
         now.entry.size == found.entry.size && now.entry.seconds == found.entry.seconds &&
         now.entry.nanoseconds == found.entry.nanoseconds && now.changed.tv_sec == found.changed.tv_sec &&
         now.changed.tv_nsec == found.changed.tv_nsec;
}

Found FoundOf(std::string name, const struct stat& st) {
  Found found;
  Entry& entry = found.entry;
  entry.kind = S_ISDIR(st.st_mode) ? EntryKind::kDirectory : S_ISLNK(st.st_mode) ? EntryKind::kLink : EntryKind::kFile;
  entry.name = std::move(name);
  entry.mode = st.st_mode & 07777;
  entry.uid = st.st_uid;
  entry.gid = st.st_gid;
  // Those of a directory say that something came or went, which shows anyway.
  if (entry.kind != EntryKind::kDirectory) {
    entry.seconds = st.st_mtim.tv_sec;
    entry.nanoseconds = static_cast<uint32_t>(st.st_mtim.tv_nsec);
    found.changed = st.st_ctim;
  }
  if (entry.kind == EntryKind::kFile) entry.size = static_cast<uint64_t>(st.st_size);
  found.device = st.st_dev;
  found.inode = st.st_ino;
  return found;
}

Walked Walk(int root, const files::Rules& rules) { return Walker(root, rules).Run(); }

}  // namespace litefleet::archive
