#include "common/check/read_only_vfs.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "common/sqlite/vfs_io.h"

namespace litefleet::check {
namespace {

struct Served {
  int64_t bytes = 0;
  ReadAt read;
};

// One a process, as the VFS.
Served& TheServed() {
  static Served served;
  return served;
}
// Not shared: a sanitizer cannot look at virtual tables in the sandbox.
std::unique_ptr<ReadAhead>& TheBlocks() {
  static std::unique_ptr<ReadAhead> blocks;
  return blocks;
}
int64_t bytes_read = 0;

int Close(sqlite3_file*) { return SQLITE_OK; }
int Read(sqlite3_file*, void* out, int amount, sqlite3_int64 begin) {
  const int rc = TheServed().read(begin, out, amount);
  if (rc != SQLITE_OK) return rc;
  bytes_read += amount;
  // A database in WAL mode is served as one with a rollback journal: there is no WAL, and SQLite would want to make one.
  if (begin == 0 && amount >= 20) {
    for (char* version : {static_cast<char*>(out) + 18, static_cast<char*>(out) + 19}) {
      if (*version == 2) *version = 1;
    }
  }
  return SQLITE_OK;
}
int Write(sqlite3_file*, const void*, int, sqlite3_int64) { return SQLITE_READONLY; }
int Truncate(sqlite3_file*, sqlite3_int64) { return SQLITE_READONLY; }
int Sync(sqlite3_file*, int) { return SQLITE_OK; }
int FileSize(sqlite3_file*, sqlite3_int64* size) {
  *size = TheServed().bytes;
  return SQLITE_OK;
}
int Lock(sqlite3_file*, int) { return SQLITE_OK; }
int CheckReservedLock(sqlite3_file*, int* reserved) {
  *reserved = 0;
  return SQLITE_OK;
}
int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) { return 4096; }
int DeviceCharacteristics(sqlite3_file*) { return 0; }

const sqlite3_io_methods kMethods = {
    1,
    Close,
    Read,
    Write,
    Truncate,
    Sync,
    FileSize,
    Lock,
    Lock,
    CheckReservedLock,
    FileControl,
    SectorSize,
    DeviceCharacteristics,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

int OpenFile(sqlite3_vfs*, sqlite3_filename, sqlite3_file* file, int flags, int* out_flags) {
  file->pMethods = nullptr;
  if ((flags & SQLITE_OPEN_MAIN_DB) == 0) return SQLITE_CANTOPEN;
  file->pMethods = &kMethods;
  // As if it could be written, since SQLite does not look at CHECK constraints of a database that is read-only.
  if (out_flags != nullptr) *out_flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_MAIN_DB;
  return SQLITE_OK;
}
int Delete(sqlite3_vfs*, const char*, int) { return SQLITE_IOERR_DELETE; }
int Access(sqlite3_vfs*, const char*, int, int* result) {
  *result = 0;
  return SQLITE_OK;
}
int FullPathname(sqlite3_vfs*, const char* name, int size, char* out) {
  std::snprintf(out, static_cast<size_t>(size), "%s", name);
  return SQLITE_OK;
}
int Randomness(sqlite3_vfs*, int size, char* out) {
  std::memset(out, 7, static_cast<size_t>(size));
  return size;
}
int Sleep(sqlite3_vfs*, int) { return 0; }
int CurrentTimeInt64(sqlite3_vfs*, sqlite3_int64* now) {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  *now = 210866760000000LL + static_cast<int64_t>(time.tv_sec) * 1000 + time.tv_nsec / 1000000;
  return SQLITE_OK;
}
int CurrentTime(sqlite3_vfs* vfs, double* now) {
  sqlite3_int64 millis = 0;
  CurrentTimeInt64(vfs, &millis);
  *now = static_cast<double>(millis) / 86400000.0;
  return SQLITE_OK;
}
int LastError(sqlite3_vfs*, int, char*) { return 0; }

sqlite3_vfs read_only_vfs = {
    2,
    sizeof(sqlite3_file),
    512,
    nullptr,
    kReadOnlyVfsName,
    nullptr,
    OpenFile,
    Delete,
    Access,
    FullPathname,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    Randomness,
    Sleep,
    CurrentTime,
    LastError,
    CurrentTimeInt64,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

int RegisterReadOnlyVfs(int64_t bytes, ReadAt read) {
  TheServed() = {.bytes = bytes, .read = std::move(read)};
  bytes_read = 0;
  return sqlite3_vfs_register(&read_only_vfs, 0);
}

int RegisterReadOnlyVfs(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return SQLITE_IOERR_FSTAT;
  TheBlocks() = std::make_unique<ReadAhead>(
      st.st_size, [fd](int64_t offset, void* out, int amount) { return sqlite::VfsRead(fd, out, amount, offset); });
  return RegisterReadOnlyVfs(st.st_size, [](int64_t offset, void* out, int amount) { return TheBlocks()->Read(offset, out, amount); });
}

int64_t ReadOnlyVfsBytes() { return bytes_read; }

}  // namespace litefleet::check
