#include "agent/capture/copied_files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/hot_journal.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "common/sqlite/vfs_io.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

constexpr std::string_view kName = "copy";
constexpr uint64_t kMostBytes = uint64_t{1} << 48;  // of a database

sqlite3_vfs* DefaultVfs() { return sqlite3_vfs_find(nullptr); }

}  // namespace

bool CanShareBlocks(const std::string& directory) {
  const auto make = [&] { return io::UniqueFd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); };
  const io::UniqueFd from = make();
  const io::UniqueFd to = make();
  return from.valid() && to.valid() && pwrite(from.get(), "x", 1, 0) == 1 && ioctl(to.get(), FICLONE, from.get()) == 0;
}

struct CopiedFiles::File {
  sqlite3_file base;
  int fd;  // -1: an empty file
};

absl::StatusOr<std::unique_ptr<CopiedFiles>> CopiedFiles::Make(const std::string& directory) {
  std::unique_ptr<CopiedFiles> files(new CopiedFiles);
  for (io::UniqueFd& file : files->files_) {
    file = io::UniqueFd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (file.valid()) continue;
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) {
      return Error(absl::StatusCode::kUnimplemented, "UNNAMED_FILES",
                   fmt::format("the file system of {} has no files without names", directory),
                   "the method file needs them; use the method online");
    }
    return ErrnoError(errno, "make a file without a name in " + directory);
  }
  return files;
}

CopiedFiles::CopiedFiles() : vfs_name_(fmt::format("litefleet-copied-{}", static_cast<const void*>(this))) {
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(File);
  vfs_.mxPathname = 512;
  vfs_.zName = vfs_name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = [](sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
    return static_cast<CopiedFiles*>(vfs->pAppData)->Open(name, file, flags, out_flags);
  };
  vfs_.xDelete = [](sqlite3_vfs* vfs, const char* name, int) {
    auto* self = static_cast<CopiedFiles*>(vfs->pAppData);
    const std::string_view which(name);
    // A super-journal that a journal names is somebody else's file.
    if (which == "copy-wal") return self->Drop(kWal).ok() ? SQLITE_OK : SQLITE_IOERR_DELETE;
    if (which == "copy-journal") return self->Drop(kJournal).ok() ? SQLITE_OK : SQLITE_IOERR_DELETE;
    return SQLITE_OK;
  };
  vfs_.xAccess = [](sqlite3_vfs* vfs, const char* name, int flags, int* result) {
    const auto* self = static_cast<CopiedFiles*>(vfs->pAppData);
    const std::string_view which(name);
    if (which == "copy-wal") {
      *result = self->present_[kWal] ? 1 : 0;
    } else if (which == "copy-journal") {
      *result = self->present_[kJournal] ? 1 : 0;
    } else {
      // Whether a super-journal exists decides whether its transaction was committed.
      if (self->super_journal_ && self->super_journal_->first == which) {
        *result = self->super_journal_->second ? 1 : 0;
        return SQLITE_OK;
      }
      *result = which.starts_with('/') && access(name, flags == SQLITE_ACCESS_READWRITE ? W_OK : F_OK) == 0 ? 1 : 0;
    }
    return SQLITE_OK;
  };
  vfs_.xFullPathname = [](sqlite3_vfs*, const char* name, int size, char* out) {
    return std::snprintf(out, static_cast<size_t>(size), "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
  };
  vfs_.xRandomness = [](sqlite3_vfs*, int size, char* out) { return DefaultVfs()->xRandomness(DefaultVfs(), size, out); };
  vfs_.xSleep = [](sqlite3_vfs*, int) { return 0; };
  vfs_.xCurrentTime = [](sqlite3_vfs*, double* now) { return DefaultVfs()->xCurrentTime(DefaultVfs(), now); };
  vfs_.xGetLastError = [](sqlite3_vfs*, int, char*) { return errno; };
}

CopiedFiles::~CopiedFiles() = default;

int CopiedFiles::Open(const char* name, sqlite3_file* file, int flags, int* out_flags) {
  auto* opened = reinterpret_cast<File*>(file);
  opened->base.pMethods = nullptr;
  if ((flags & SQLITE_OPEN_MAIN_DB) != 0) {
    opened->fd = fd(kDatabase);
  } else if ((flags & SQLITE_OPEN_WAL) != 0) {
    present_[kWal] = true;
    opened->fd = fd(kWal);
  } else if ((flags & SQLITE_OPEN_MAIN_JOURNAL) != 0) {
    if ((flags & SQLITE_OPEN_CREATE) == 0 && !present_[kJournal]) return SQLITE_CANTOPEN;
    present_[kJournal] = true;
    opened->fd = fd(kJournal);
  } else if ((flags & SQLITE_OPEN_SUPER_JOURNAL) != 0 && name != nullptr) {
    opened->fd = -1;
  } else {
    return SQLITE_CANTOPEN;
  }
  opened->base.pMethods = Methods();
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

const sqlite3_io_methods* CopiedFiles::Methods() {
  static constexpr sqlite3_io_methods kMethods = [] {
    sqlite3_io_methods methods{};
    methods.iVersion = 1;
    methods.xClose = [](sqlite3_file*) { return SQLITE_OK; };
    methods.xRead = [](sqlite3_file* file, void* out, int amount, sqlite3_int64 offset) {
      const int fd = reinterpret_cast<File*>(file)->fd;
      if (fd >= 0 || amount == 0) return sqlite::VfsRead(fd, out, amount, offset);
      std::memset(out, 0, static_cast<size_t>(amount));
      return SQLITE_IOERR_SHORT_READ;
    };
    methods.xWrite = [](sqlite3_file* file, const void* data, int amount, sqlite3_int64 offset) {
      return sqlite::VfsWrite(reinterpret_cast<File*>(file)->fd, data, amount, offset);
    };
    methods.xTruncate = [](sqlite3_file* file, sqlite3_int64 size) {
      return ftruncate(reinterpret_cast<File*>(file)->fd, size) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
    };
    // Nothing here has to outlive the process.
    methods.xSync = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
      struct stat st {};
      const int fd = reinterpret_cast<File*>(file)->fd;
      if (fd >= 0 && fstat(fd, &st) != 0) return SQLITE_IOERR_FSTAT;
      *size = st.st_size;
      return SQLITE_OK;
    };
    methods.xLock = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xCheckReservedLock = [](sqlite3_file*, int* result) {
      *result = 0;
      return SQLITE_OK;
    };
    methods.xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; };
    methods.xSectorSize = [](sqlite3_file*) { return 512; };
    methods.xDeviceCharacteristics = [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; };
    return methods;
  }();
  return &kMethods;
}

absl::Status CopiedFiles::Drop(Which which) {
  present_[which] = false;
  return Truncate(which, 0);
}

absl::Status CopiedFiles::Truncate(Which which, uint64_t bytes) {
  return ftruncate(fd(which), static_cast<off_t>(bytes)) == 0 ? absl::OkStatus() : ErrnoError(errno, "cut a copied file");
}

absl::StatusOr<uint64_t> CopiedFiles::Bytes(Which which) const {
  struct stat st {};
  if (fstat(fd(which), &st) != 0) return ErrnoError(errno, "look at a copied file");
  return static_cast<uint64_t>(st.st_size);
}

// At the end of the journal: the name, its length, the sum of its bytes, a magic number.
absl::Status CopiedFiles::NoteSuperJournal() {
  super_journal_.reset();
  std::array<std::byte, 16> end{};
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, Bytes(kJournal));
  if (bytes < end.size()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(io::PreadAll(fd(kJournal), end, bytes - end.size(), "the copied journal"));
  const uint64_t length = LoadBigEndian<uint32_t>(end.data());
  if (!std::equal(kJournalMagic.begin(), kJournalMagic.end(), &end[8])) return absl::OkStatus();
  if (length == 0 || length > static_cast<uint64_t>(vfs_.mxPathname) || length > bytes - end.size()) return absl::OkStatus();
  std::string name(length, '\0');
  LF_RETURN_IF_ERROR(
      io::PreadAll(fd(kJournal), std::as_writable_bytes(std::span(name)), bytes - end.size() - length, "the copied journal"));
  name.resize(std::strlen(name.c_str()));
  const bool exists = name.starts_with('/') && access(name.c_str(), F_OK) == 0;
  super_journal_.emplace(std::move(name), exists);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<CopiedFiles::Torn>> CopiedFiles::TornPage() const {
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, Bytes(kDatabase));
  litefleet::Bytes start(kHeaderBytes);
  if (bytes < start.size()) return std::nullopt;
  LF_RETURN_IF_ERROR(io::PreadAll(fd(kDatabase), start, 0, "the copy"));
  const auto header = ParseHeader(start);
  if (!header || bytes % header->page_size == 0) return std::nullopt;
  litefleet::Bytes piece(bytes % header->page_size);
  LF_RETURN_IF_ERROR(io::PreadAll(fd(kDatabase), piece, bytes - piece.size(), "the copy"));
  return Torn{bytes - piece.size(), header->page_size, std::move(piece)};
}

absl::Status CopiedFiles::Recover(const std::string& name) {
  LF_ASSIGN_OR_RETURN(const auto torn, TornPage());
  if (const int rc = sqlite3_vfs_register(&vfs_, 0); rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, "read the copy of " + name);
  // Whoever rolls a journal back goes on with the page size that it found there, whatever the database says: what there is to be read is
  // what the next one sees.
  const bool rolls_back = present_[kJournal];
  absl::Status status = Open("read " + name);
  if (rolls_back && (status.ok() || absl::IsDataLoss(status))) status = Open("read " + name);
  sqlite3_vfs_unregister(&vfs_);
  if (!status.ok() || !torn.has_value()) return status;
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, Bytes(kDatabase));
  if (bytes < torn->offset + torn->page_size) return status;
  litefleet::Bytes now(torn->page_size);
  LF_RETURN_IF_ERROR(io::PreadAll(fd(kDatabase), now, torn->offset, "the copy"));
  // As it would not be if the WAL had it: but for a page that ends with as many zeros, of which then nothing is missing.
  const auto rest = std::mismatch(torn->piece.begin(), torn->piece.end(), now.begin());
  if (rest.first == torn->piece.end() && std::all_of(rest.second, now.end(), [](std::byte byte) { return byte == std::byte{0}; }))
    torn_at_ = torn->offset + torn->piece.size();
  return status;
}

int CopiedFiles::Fold(sqlite3* db) {
  const auto fold = [db] { return sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr); };
  int rc = fold();
  // SQLite folds nothing in where the last commit says that there are far more pages than those of file and WAL, but reads on: they are
  // zeros. In a file that has them it does, and cuts that as it should be; until then they take no space.
  uint64_t bytes = std::max<uint64_t>(Bytes(kDatabase).value_or(kMostBytes), 1 << 16);
  while ((rc & 0xff) == SQLITE_CORRUPT && (bytes *= 2) <= kMostBytes && Truncate(kDatabase, bytes).ok()) rc = fold();
  return rc;
}

absl::Status CopiedFiles::Open(const std::string& context) {
  sqlite3* raw = nullptr;
  int rc = sqlite3_open_v2(std::string(kName).c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                           vfs_name_.c_str());
  if (rc == SQLITE_OK) {
    sqlite3_db_config(raw, SQLITE_DBCONFIG_LOOKASIDE, nullptr, 0, 0);
    sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    sqlite3_db_config(raw, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
    // A WAL beside which SQLite refuses the database is not folded in all the same: the copy says what the file was.
    sqlite3_db_config(raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    // A header that promises more pages than there are is damage that can be read.
    sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
    sqlite3_db_config(raw, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
    // Without shared memory: the WAL's index is on the heap. None of these reads the schema.
    rc = sqlite3_exec(raw, "pragma locking_mode=exclusive; pragma schema_version", nullptr, nullptr, nullptr);
  }
  if (rc == SQLITE_OK && present_[kWal]) rc = Fold(raw);
  absl::Status status = rc == SQLITE_OK ? absl::OkStatus() : sqlite::ToStatus(rc, raw, context);
  if ((rc & 0xff) == SQLITE_CANTOPEN && present_[kWal]) {
    std::array<std::byte, 32> header{};
    if (io::PreadAll(fd(kWal), header, 0, "the copied WAL").ok()) status = NameWalVersion(status, header);
  }
  const int closed = sqlite3_close(raw);
  if (status.ok() && closed != SQLITE_OK) status = sqlite::ToStatus(closed, nullptr, context);
  return status;
}

}  // namespace litefleet::capture
