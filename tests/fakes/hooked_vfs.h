// SQLite's default file system, told of before each write to a database file itself (not to its WAL or journal).
//
// While one lives it is what databases are opened on. One at a time, and all files of one locking style. Thread safety: the hook is called
// on the thread that writes; it is set before anything is opened.
#ifndef LITEFLEET_TESTS_FAKES_HOOKED_VFS_H_
#define LITEFLEET_TESTS_FAKES_HOOKED_VFS_H_

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <functional>
#include <utility>

namespace litefleet::fakes {

class HookedVfs {
 public:
  explicit HookedVfs(std::function<void()> before_write) {
    Hook() = std::move(before_write);
    Real() = sqlite3_vfs_find(nullptr);
    vfs_ = *Real();
    vfs_.zName = "hooked";
    vfs_.xOpen = &Open;
    EXPECT_EQ(sqlite3_vfs_register(&vfs_, 1), SQLITE_OK);
  }
  ~HookedVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(Real(), 1);
  }
  HookedVfs(const HookedVfs&) = delete;
  HookedVfs& operator=(const HookedVfs&) = delete;

 private:
  static std::function<void()>& Hook() {
    static std::function<void()> hook;
    return hook;
  }
  static sqlite3_vfs*& Real() {
    static sqlite3_vfs* real = nullptr;
    return real;
  }
  static sqlite3_io_methods& Methods() {
    static sqlite3_io_methods methods;
    return methods;
  }
  static auto& RealWrite() {
    static int (*write)(sqlite3_file*, const void*, int, sqlite3_int64) = nullptr;
    return write;
  }
  static int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
    Hook()();
    return RealWrite()(file, data, size, at);
  }
  static int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
    const int rc = Real()->xOpen(Real(), name, file, flags, out);
    if (rc != SQLITE_OK || (flags & SQLITE_OPEN_MAIN_DB) == 0) return rc;
    if (RealWrite() == nullptr) {
      Methods() = *file->pMethods;
      RealWrite() = Methods().xWrite;
      Methods().xWrite = &Write;
    }
    // One that is opened as read-only, without locks, has other methods.
    if (file->pMethods->xLock == Methods().xLock) file->pMethods = &Methods();
    return rc;
  }

  sqlite3_vfs vfs_{};
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_HOOKED_VFS_H_
