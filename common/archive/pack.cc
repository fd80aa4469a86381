#include "common/archive/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "common/archive/entry_time.h"
#include "common/archive/found.h"
#include "common/files/beneath.h"

namespace litefleet::archive {
namespace {

using files::EntryKind;

constexpr size_t kPiece = 256 << 10;
// Of a file that is read as a whole first: where it changes meanwhile it is read again.
constexpr uint64_t kWhole = 1 << 20;
constexpr int kTries = 3;

struct FreeWrite {
  void operator()(struct archive* a) const { archive_write_free(a); }
};
struct FreeEntry {
  void operator()(archive_entry* e) const { archive_entry_free(e); }
};

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Rounded up.
int64_t Millis(int64_t seconds) { return (seconds + 1) * 1000; }

class Packer {
 public:
  Packer(const PackOptions& options, const std::function<bool(std::string_view)>& write) : options_(options), write_(write) {}

  Packed Run() {
    const File root(files::OpenRoot(options_.root));
    if (root.get() < 0) return RootProblem(errno);
    root_ = root.get();
    Walked walked = Walk(root_, options_.rules);
    remarks_ = std::move(walked.remarks);
    if (!walked.reason.empty()) return End(PackEnd::kRefused, walked.reason, walked.text);
    for (const Found& found : walked.found) newest_ms_ = std::max({newest_ms_, Millis(found.entry.seconds), Millis(found.changed.tv_sec)});
    if (!options_.tolerant && !options_.list_only && remarks_.contains(files::kMovedNote))
      return End(PackEnd::kChanged, "SOURCE_CHANGED", "names changed while they were listed: " + remarks_[files::kMovedNote].Text());
    if (walked.found.empty()) remarks_[files::kNothingNote].Add(options_.root);
    const bool written = options_.list_only ? List(walked.found) : Write(walked.found);
    if (!written) return End(failed_, reason_, text_);
    return End(PackEnd::kOk, "", "");
  }

 private:
  Packed RootProblem(int error) {
    if (error == ELOOP || error == ENOTDIR) {
      return End(PackEnd::kRefused, "ROOT_NOT_DIRECTORY",
                 options_.root + " is no directory, or a symbolic link is in its path; name the directory that it leads to");
    }
    return End(PackEnd::kRefused, error == ENOENT ? "ROOT_MISSING" : "FILES_UNREADABLE", options_.root + ": " + strerror(error));
  }
  Packed End(PackEnd end, std::string reason, std::string text) {
    Packed packed{end, std::move(reason), std::move(text), newest_ms_, {}};
    for (const auto& [why, names] : remarks_) packed.notes.push_back(why + ": " + names.Text());
    return packed;
  }
  bool Fail(PackEnd end, std::string reason, std::string text) {
    failed_ = end;
    reason_ = std::move(reason);
    text_ = std::move(text);
    return false;
  }
  bool Changed(const std::string& name) { return Fail(PackEnd::kChanged, "SOURCE_CHANGED", name + " changed while it was read"); }

  bool List(const std::vector<Found>& all) {
    for (const Found& found : all) {
      const files::Entry& entry = found.entry;
      std::string line(1, static_cast<char>('0' + static_cast<int>(entry.kind)));
      for (const uint64_t number : {uint64_t{entry.mode}, uint64_t{entry.uid}, uint64_t{entry.gid}, static_cast<uint64_t>(entry.seconds),
                                    uint64_t{entry.nanoseconds}, entry.size, found.device, found.inode,
                                    static_cast<uint64_t>(found.changed.tv_sec), static_cast<uint64_t>(found.changed.tv_nsec)})
        line += " " + std::to_string(number);
      line += " " + entry.name + std::string(1, '\0') + entry.link + std::string(1, '\0') + "\n";
      if (!write_(line)) return Fail(PackEnd::kFailed, "PIPE_CLOSED", "nobody takes the list");
    }
    return true;
  }

  bool Write(const std::vector<Found>& all) {
    const std::unique_ptr<struct archive, FreeWrite> out(archive_write_new());
    archive_ = out.get();
    if (archive_ == nullptr || archive_write_set_format_pax(archive_) != ARCHIVE_OK ||
        archive_write_add_filter_none(archive_) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(archive_, static_cast<int>(kPiece)) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(archive_, 1) != ARCHIVE_OK ||
        archive_write_open(archive_, this, nullptr, &Packer::Take, nullptr) != ARCHIVE_OK) {
      return ArchiveFailed();
    }
    for (const Found& found : all) {
      if (found.entry.kind == EntryKind::kFile ? !AddFile(found) : !Header(found)) return false;
    }
    return archive_write_close(archive_) == ARCHIVE_OK || ArchiveFailed();
  }

  static la_ssize_t Take(struct archive* a, void* self, const void* data, size_t bytes) {
    if (static_cast<Packer*>(self)->write_({static_cast<const char*>(data), bytes})) return static_cast<la_ssize_t>(bytes);
    archive_set_error(a, EPIPE, "nobody takes the archive");
    return -1;
  }
  bool ArchiveFailed() {
    const char* const why = archive_ == nullptr ? nullptr : archive_error_string(archive_);
    return Fail(PackEnd::kFailed, "ARCHIVE_FAILED", why == nullptr ? "libarchive failed" : why);
  }

  bool Header(const Found& found) {
    const files::Entry& from = found.entry;
    const std::unique_ptr<archive_entry, FreeEntry> entry(archive_entry_new());
    if (entry == nullptr) return ArchiveFailed();
    archive_entry_set_pathname(entry.get(), from.name.c_str());
    const mode_t type = from.kind == EntryKind::kDirectory ? AE_IFDIR : from.kind == EntryKind::kLink ? AE_IFLNK : AE_IFREG;
    archive_entry_set_mode(entry.get(), type | from.mode);
    archive_entry_set_uid(entry.get(), from.uid);
    archive_entry_set_gid(entry.get(), from.gid);
    SetModified(entry.get(), from.seconds, from.nanoseconds);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(from.size));
    if (from.kind == EntryKind::kLink) archive_entry_set_symlink(entry.get(), from.link.c_str());
    const int code = archive_write_header(archive_, entry.get());
    // Without a locale libarchive says that it keeps such a name as the bytes that it is.
    return code == ARCHIVE_OK || (code == ARCHIVE_WARN && !IsAscii(from.name + from.link)) || ArchiveFailed();
  }

  // Of no single moment, as far as anybody can tell.
  bool Torn(const std::string& name) {
    if (!options_.tolerant) return Changed(name);
    remarks_[files::kChangedNote].Add(name);
    return true;
  }

  bool AddFile(const Found& found) {
    for (int tries = 1;; ++tries) {
      const File file(files::OpenBeneath(root_, found.entry.name, O_RDONLY | O_NONBLOCK | O_NOCTTY));
      const bool lost = file.get() >= 0 || errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EXDEV;
      if (!lost) return Fail(PackEnd::kRefused, "FILES_UNREADABLE", found.entry.name + ": " + strerror(errno));
      struct stat st {};
      if (file.get() < 0 || fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
        if (!options_.tolerant) return Changed(found.entry.name);
        remarks_[files::kGoneNote].Add(found.entry.name);
        return true;
      }
      const Found now = FoundOf(found.entry.name, st);
      const bool whole = now.entry.size <= kWhole;
      bool same = IsSettled(st);
      if (st.st_size > options_.rules.max_file_bytes) return Changed(found.entry.name);
      if (same && whole && !ReadWhole(file.get(), now, same)) return false;
      if (!same && tries < kTries) {
        poll(nullptr, 0, kPauseMillis);
        continue;
      }
      if (!same && !Torn(found.entry.name)) return false;
      if (!whole) return Fits(now.entry) && Stream(file.get(), now, same);
      return (same || ReadWhole(file.get(), now, same)) && WriteWhole(now);
    }
  }

  // What the walk has counted may have grown since, and no device takes back more than its limit.
  bool Fits(const files::Entry& entry) {
    bytes_ += entry.size;
    if (bytes_ <= static_cast<uint64_t>(options_.rules.max_bytes)) return true;
    return Fail(PackEnd::kRefused, "FILES_TOO_LARGE",
                "the files grew to more than max_bytes (" + std::to_string(options_.rules.max_bytes) + " bytes) while they were read, at " +
                    entry.name);
  }

  // Into `whole_`, as many bytes as it had before.
  bool ReadWhole(int fd, const Found& now, bool& same) {
    whole_.resize(now.entry.size);
    size_t have = 0;
    while (have < whole_.size()) {
      const ssize_t n = pread(fd, whole_.data() + have, whole_.size() - have, static_cast<off_t>(have));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(PackEnd::kRefused, "FILES_UNREADABLE", now.entry.name + ": " + strerror(errno));
      if (n == 0) break;
      have += static_cast<size_t>(n);
    }
    whole_.resize(have);
    struct stat st {};
    same = have == now.entry.size && fstat(fd, &st) == 0 && IsSame(now, st);
    return true;
  }
  bool WriteWhole(Found now) {
    if (files::IsSqliteHeader(whole_)) return Changed(now.entry.name);
    now.entry.size = whole_.size();
    return Fits(now.entry) && Header(now) && Data(whole_);
  }
  bool Data(std::string_view data) {
    while (!data.empty()) {
      const la_ssize_t n = archive_write_data(archive_, data.data(), data.size());
      if (n <= 0) return ArchiveFailed();
      data.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // A large one goes through as it is read: what has been written cannot be taken back.
  bool Stream(int fd, const Found& now, bool settled) {
    whole_.resize(kPiece);
    for (uint64_t at = 0; at < now.entry.size;) {
      const size_t wanted = std::min<uint64_t>(kPiece, now.entry.size - at);
      const ssize_t n = pread(fd, whole_.data(), wanted, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(PackEnd::kRefused, "FILES_UNREADABLE", now.entry.name + ": " + strerror(errno));
      if (n == 0) return Changed(now.entry.name);
      const std::string_view piece(whole_.data(), static_cast<size_t>(n));
      if (at == 0 && files::IsSqliteHeader(piece)) return Changed(now.entry.name);
      if ((at == 0 && !Header(now)) || !Data(piece)) return false;
      at += static_cast<uint64_t>(n);
    }
    struct stat st {};
    const bool same = fstat(fd, &st) == 0 && IsSame(now, st);
    return same || !settled || Torn(now.entry.name);  // told already where it was not settled
  }

  const PackOptions& options_;
  const std::function<bool(std::string_view)>& write_;
  int root_ = -1;
  struct archive* archive_ = nullptr;
  std::string whole_;
  uint64_t bytes_ = 0;  // of the content so far
  std::map<std::string, NameList> remarks_;
  int64_t newest_ms_ = 0;
  PackEnd failed_ = PackEnd::kFailed;
  std::string reason_;
  std::string text_;
};

}  // namespace

Packed Pack(const PackOptions& options, const std::function<bool(std::string_view)>& write) { return Packer(options, write).Run(); }

}  // namespace litefleet::archive
