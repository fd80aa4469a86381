// SQLite's own VFS with faults: reads, writes, syncs and truncations of files whose name holds `part` fail where it is told so.
//
// As long as one exists it is the default, so that whoever opens a database gets it. One at a time. A fault is what the disk would say:
// EIO, ENOSPC, or a write of which only a part arrives. Thread safety: any thread; `decide` is called without a lock.
#ifndef LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_
#define LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_

#include <sqlite3.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "tests/fakes/volatile_files.h"

namespace litefleet::fakes {

class FaultyVfs {
 public:
  using Decide = std::function<FileFault(FileCall call)>;

  FaultyVfs(std::string part, Decide decide) : part_(std::move(part)), decide_(std::move(decide)), real_(sqlite3_vfs_find("unix")) {
    vfs_ = *real_;
    vfs_.zName = "litefleet-faulty";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.pAppData = this;
    vfs_.pNext = nullptr;
    vfs_.xOpen = [](sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
      auto* self = static_cast<FaultyVfs*>(vfs->pAppData);
      auto* opened = reinterpret_cast<File*>(file);
      opened->base.pMethods = nullptr;
      opened->owner = name != nullptr && std::strstr(name, self->part_.c_str()) != nullptr ? self : nullptr;
      const int rc = self->real_->xOpen(self->real_, name, Real(file), flags, out);
      if (rc == SQLITE_OK) opened->base.pMethods = &Methods();
      return rc;
    };
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~FaultyVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
  }
  FaultyVfs(const FaultyVfs&) = delete;
  FaultyVfs& operator=(const FaultyVfs&) = delete;

 private:
  struct File {
    sqlite3_file base;
    FaultyVfs* owner;
  };
  static sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<sqlite3_file*>(reinterpret_cast<File*>(file) + 1); }
  static FileFault Ask(sqlite3_file* file, FileCall call) {
    FaultyVfs* owner = reinterpret_cast<File*>(file)->owner;
    return owner == nullptr ? FileFault::kNone : owner->decide_(call);
  }
  static int Code(FileFault fault, int io) { return fault == FileFault::kIo ? io : SQLITE_FULL; }

  static const sqlite3_io_methods& Methods() {
    static const sqlite3_io_methods methods = {
        3,
        [](sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); },
        [](sqlite3_file* f, void* out, int n, sqlite3_int64 at) {
          // A read has no room to lack.
          if (Ask(f, FileCall::kRead) == FileFault::kIo) return SQLITE_IOERR_READ;
          return Real(f)->pMethods->xRead(Real(f), out, n, at);
        },
        [](sqlite3_file* f, const void* in, int n, sqlite3_int64 at) {
          const FileFault fault = Ask(f, FileCall::kWrite);
          if (fault == FileFault::kShort) Real(f)->pMethods->xWrite(Real(f), in, n / 2, at);
          if (fault != FileFault::kNone) return Code(fault, SQLITE_IOERR_WRITE);
          return Real(f)->pMethods->xWrite(Real(f), in, n, at);
        },
        [](sqlite3_file* f, sqlite3_int64 size) {
          const FileFault fault = Ask(f, FileCall::kTruncate);
          return fault != FileFault::kNone ? SQLITE_IOERR_TRUNCATE : Real(f)->pMethods->xTruncate(Real(f), size);
        },
        [](sqlite3_file* f, int flags) {
          const FileFault fault = Ask(f, FileCall::kSync);
          return fault != FileFault::kNone ? Code(fault, SQLITE_IOERR_FSYNC) : Real(f)->pMethods->xSync(Real(f), flags);
        },
        [](sqlite3_file* f, sqlite3_int64* size) { return Real(f)->pMethods->xFileSize(Real(f), size); },
        [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xLock(Real(f), lock); },
        [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xUnlock(Real(f), lock); },
        [](sqlite3_file* f, int* out) { return Real(f)->pMethods->xCheckReservedLock(Real(f), out); },
        [](sqlite3_file* f, int op, void* arg) { return Real(f)->pMethods->xFileControl(Real(f), op, arg); },
        [](sqlite3_file* f) { return Real(f)->pMethods->xSectorSize(Real(f)); },
        [](sqlite3_file* f) { return Real(f)->pMethods->xDeviceCharacteristics(Real(f)); },
        [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
          return Real(f)->pMethods->xShmMap(Real(f), page, size, extend, out);
        },
        [](sqlite3_file* f, int at, int n, int flags) { return Real(f)->pMethods->xShmLock(Real(f), at, n, flags); },
        [](sqlite3_file* f) { Real(f)->pMethods->xShmBarrier(Real(f)); },
        [](sqlite3_file* f, int remove) { return Real(f)->pMethods->xShmUnmap(Real(f), remove); },
        [](sqlite3_file*, sqlite3_int64, int, void** out) {
          *out = nullptr;  // nothing is read past xRead
          return SQLITE_OK;
        },
        [](sqlite3_file*, sqlite3_int64, void*) { return SQLITE_OK; },
    };
    return methods;
  }

  const std::string part_;
  const Decide decide_;
  sqlite3_vfs* const real_;
  sqlite3_vfs vfs_;
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_
