#include "common/archive/found.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <functional>
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
constexpr int kLists = 4;        // of a directory in which names do not keep still
constexpr int kMostPauses = 80;  // of a walk: 2 s
constexpr double kTick = 0.02;   // seconds
constexpr const char* kElsewhere = "left out, since they are on another file system";
constexpr const char* kIsDatabase = "left out, since they are SQLite databases or belong to one (configure each as a [[database]])";

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

class Walker {
 public:
  Walker(int root, const files::Rules& rules, const ListHook& hook)
      : root_(root), rules_(rules), hook_(hook), globs_(rules.include, rules.exclude) {}

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
    CompareAll();
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

  // What a directory has. A name that moves while it is read comes twice, or never.
  struct Listing {
    std::vector<std::string> all;
    std::vector<std::string> meant;  // of these, what is to be looked at
    size_t digest = 0;               // of what is meant, without what comes and goes with the transactions of a database
    timespec changed{};              // the directory, before it was read
    bool still = false;              // and not since then
  };

  // One that is not there any more may have another name by now: the directory is listed again, and what is new in it is looked at, too.
  // So is one that was written to while it was read. Where that does not end, what is left out may do so, and nothing else.
  bool Names(int fd, const std::string& name, int depth) {
    std::vector<std::string> looked, gone;
    Listing names;
    std::set<size_t> digests;
    const size_t first = out_.found.size();
    for (int lists = 1; lists <= kLists; ++lists) {
      seen_ -= static_cast<int64_t>(names.all.size());
      names = {};
      const int error = List(fd, name, names);
      if (error == E2BIG) return Stop("TOO_MANY_FILES", "there is more to look at than " + std::to_string(files::kMostSeen) + " names");
      if (error != 0) Unreadable(name, error);
      digests.insert(names.digest);
      std::vector<std::string> wanted;
      std::set_difference(names.meant.begin(), names.meant.end(), looked.begin(), looked.end(), std::back_inserter(wanted));
      if (wanted.empty() && names.still) break;
      if (!wanted.empty()) gone.clear();
      for (const std::string& base : wanted) {
        gone_ = false;
        if (!One(fd, name, base, names.all, depth)) return false;
        (gone_ ? gone : looked).push_back(base);
      }
      std::sort(looked.begin(), looked.end());
      if (gone.empty() && names.still) break;
      listed_again_ = true;
    }
    std::vector<std::string> went;
    std::set_difference(looked.begin(), looked.end(), names.meant.begin(), names.meant.end(), std::back_inserter(went));
    Forget(first, name.empty() ? 0 : name.size() + 1, went);
    for (const std::string& base : gone) Remark(files::kGoneNote, name.empty() ? base : name + "/" + base);
    if (!names.still && digests.size() > 1) {
      Remark(files::kMovedNote, ShownName(name));
    } else {
      listed_.push_back({name, names.still ? names.changed : timespec{}, names.digest});
    }
    return true;
  }

  // What went after it was looked at: else a file would be there under both of its names.
  void Forget(size_t first, size_t prefix, const std::vector<std::string>& went) {
    if (went.empty()) return;
    const auto has_gone = [&](const Found& found) {
      const std::string base = found.entry.name.substr(prefix, found.entry.name.find('/', prefix) - prefix);
      if (!IsThere(base, went)) return false;
      bytes_ -= found.entry.size;
      return true;
    };
    const auto from = out_.found.begin() + static_cast<std::ptrdiff_t>(first);
    out_.found.erase(std::remove_if(from, out_.found.end(), has_gone), out_.found.end());
  }

  // What moved into a directory that was listed before, from one that was not, was in neither.
  void CompareAll() {
    for (const Listed& before : listed_) {
      const int fd = files::OpenBeneath(root_, before.name, O_RDONLY | O_DIRECTORY);
      // That it goes shows in the one above it, or when its files are read.
      if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) continue;
      struct stat st {};
      const bool same = fd >= 0 && fstat(fd, &st) == 0 && IsTime(st.st_ctim, before.changed);
      Listing now;
      const int64_t seen = std::exchange(seen_, 0);
      if (!same && (fd < 0 || List(fd, before.name, now) != 0 || now.digest != before.digest))
        Remark(files::kMovedNote, ShownName(before.name));
      seen_ = seen;
      if (fd >= 0) close(fd);
    }
  }

  static std::string ShownName(const std::string& directory) { return directory.empty() ? "the root" : directory; }
  static bool IsTime(const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

  // Of the directory. False: it may be written to once more without another time.
  bool Settle(int fd, timespec& changed) {
    struct stat st {};
    for (bool waited = false;; waited = true) {
      if (fstat(fd, &st) != 0) return false;
      changed = st.st_ctim;
      if (IsSettled(st)) return true;
      if (waited || ++pauses_ > kMostPauses) return false;
      poll(nullptr, 0, kPauseMillis);
    }
  }

  int List(int fd, const std::string& parent, Listing& names) {
    const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    const std::unique_ptr<DIR, CloseDir> dir(own < 0 ? nullptr : fdopendir(own));
    if (dir == nullptr) {
      const int error = errno;
      if (own >= 0) close(own);
      return error;
    }
    const bool settled = Settle(fd, names.changed);
    rewinddir(dir.get());
    for (;;) {
      errno = 0;
      const dirent* const next = readdir(dir.get());
      if (next == nullptr) break;
      const std::string_view entry = next->d_name;
      if (entry == "." || entry == ".." || entry.starts_with(files::kOwnPrefix)) continue;
      if (++seen_ > files::kMostSeen) return E2BIG;
      names.all.emplace_back(entry);
      const std::string name = parent.empty() ? names.all.back() : parent + "/" + names.all.back();
      const bool is_directory = next->d_type == DT_DIR || next->d_type == DT_UNKNOWN;
      // What is left out may come and go.
      if (globs_.Takes(name) || (is_directory && globs_.MayHold(name))) names.meant.emplace_back(entry);
    }
    if (errno != 0) return errno;
    if (hook_) hook_(parent, names.meant);
    for (std::vector<std::string>* each : {&names.all, &names.meant}) {
      std::sort(each->begin(), each->end());
      each->erase(std::unique(each->begin(), each->end()), each->end());
    }
    for (const std::string& base : names.meant) {
      if (!IsBesideDatabase(base, names.all)) names.digest = names.digest * 31 + std::hash<std::string>()(base);
    }
    struct stat st {};
    names.still = settled && fstat(fd, &st) == 0 && IsTime(st.st_ctim, names.changed);
    return 0;
  }

  bool One(int fd, const std::string& parent, const std::string& base, const std::vector<std::string>& siblings, int depth) {
    const std::string name = parent.empty() ? base : parent + "/" + base;
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

  static bool IsThere(const std::string& name, const std::vector<std::string>& names) {
    return std::binary_search(names.begin(), names.end(), name);
  }
  static bool IsBesideDatabase(const std::string& base, const std::vector<std::string>& siblings) {
    return std::any_of(kBesideDatabases.begin(), kBesideDatabases.end(), [&](std::string_view suffix) {
      return base.size() > suffix.size() && base.ends_with(suffix) && IsThere(base.substr(0, base.size() - suffix.size()), siblings);
    });
  }
  static bool LiesByDatabase(const std::string& base, const std::vector<std::string>& siblings) {
    const auto has = [&](std::string_view suffix) { return IsThere(base + std::string(suffix), siblings); };
    return IsBesideDatabase(base, siblings) || std::any_of(kBesideDatabases.begin(), kBesideDatabases.end(), has);
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

  // A directory as it was listed last; a time of 0 where that says nothing.
  struct Listed {
    std::string name;
    timespec changed{};
    size_t digest = 0;
  };

  const int root_;
  const files::Rules& rules_;
  const ListHook& hook_;
  const files::GlobSet globs_;
  uint64_t device_ = 0;
  std::set<std::pair<uint64_t, uint64_t>> databases_;  // those configured, and links to them: device and inode
  int64_t seen_ = 0;
  bool gone_ = false;  // the name that is looked at
  bool listed_again_ = false;
  int pauses_ = 0;
  std::vector<Listed> listed_;
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

bool IsSettled(const struct stat& st) {
  struct timespec now {};
  clock_gettime(CLOCK_REALTIME, &now);
  const double since = static_cast<double>(now.tv_sec - st.st_ctim.tv_sec) + static_cast<double>(now.tv_nsec - st.st_ctim.tv_nsec) / 1e9;
  return since > kTick || since < -kTick;
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

Walked Walk(int root, const files::Rules& rules, const ListHook& hook) { return Walker(root, rules, hook).Run(); }

}  // namespace litefleet::archive
