#include "common/dump/load_vfs.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/sqlite/vfs_io.h"

namespace litefleet::dump {
namespace {

struct Descriptors {
  int database = -1;
  std::vector<int> temporary;  // that nobody has now
};
Descriptors& TheDescriptors() {
  static Descriptors descriptors;
  return descriptors;
}

struct LoadFile {
  sqlite3_file base;
  int fd;
};
int FdOf(sqlite3_file* file) { return reinterpret_cast<LoadFile*>(file)->fd; }

int CloseFile(sqlite3_file* file) {
  const int fd = FdOf(file);
  if (fd == TheDescriptors().database) return SQLITE_OK;
  TheDescriptors().temporary.push_back(fd);
  return ftruncate(fd, 0) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}
int ReadFile(sqlite3_file* file, void* out, int amount, sqlite3_int64 offset) { return sqlite::VfsRead(FdOf(file), out, amount, offset); }
int WriteFile(sqlite3_file* file, const void* data, int amount, sqlite3_int64 offset) {
  return sqlite::VfsWrite(FdOf(file), data, amount, offset);
}
int TruncateFile(sqlite3_file* file, sqlite3_int64 size) { return ftruncate(FdOf(file), size) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE; }
int SyncFile(sqlite3_file*, int) { return SQLITE_OK; }
int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  struct stat st {};
  if (fstat(FdOf(file), &st) != 0) return SQLITE_IOERR_FSTAT;
  *size = st.st_size;
  return SQLITE_OK;
}
int Lock(sqlite3_file*, int) { return SQLITE_OK; }
int CheckReservedLock(sqlite3_file*, int* reserved) {
  *reserved = 0;
  return SQLITE_OK;
}
int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) { return 4096; }
int Characteristics(sqlite3_file*) { return SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN; }

const sqlite3_io_methods kMethods = {1,       CloseFile, ReadFile,          WriteFile,   TruncateFile, SyncFile,        FileSize,
                                     Lock,    Lock,      CheckReservedLock, FileControl, SectorSize,   Characteristics, nullptr,
                                     nullptr, nullptr,   nullptr,           nullptr,     nullptr};

int OpenFile(sqlite3_vfs*, sqlite3_filename, sqlite3_file* file, int flags, int* out_flags) {
  file->pMethods = nullptr;
  auto* load = reinterpret_cast<LoadFile*>(file);
  if ((flags & SQLITE_OPEN_MAIN_DB) != 0) {
    load->fd = TheDescriptors().database;
  } else if ((flags & (SQLITE_OPEN_TEMP_DB | SQLITE_OPEN_TRANSIENT_DB | SQLITE_OPEN_TEMP_JOURNAL | SQLITE_OPEN_SUBJOURNAL)) != 0 &&
             !TheDescriptors().temporary.empty()) {
    load->fd = TheDescriptors().temporary.back();
    TheDescriptors().temporary.pop_back();
  } else {
    return SQLITE_CANTOPEN;
  }
  file->pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags | SQLITE_OPEN_READWRITE;
  return SQLITE_OK;
}
int Delete(sqlite3_vfs*, const char*, int) { return SQLITE_OK; }
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

sqlite3_vfs load_vfs = {
    2,       sizeof(LoadFile), 512,     nullptr,    kLoadVfsName, nullptr,     OpenFile,  Delete,           Access,  FullPathname, nullptr,
    nullptr, nullptr,          nullptr, Randomness, Sleep,        CurrentTime, LastError, CurrentTimeInt64, nullptr, nullptr,      nullptr};

}  // namespace

int RegisterLoadVfs(int database, std::vector<int> temporary) {
  TheDescriptors() = {.database = database, .temporary = std::move(temporary)};
  return sqlite3_vfs_register(&load_vfs, 0);
}

}  // namespace litefleet::dump
