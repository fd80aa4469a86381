// SQLite's default file system, with the syncs of WALs counted: what a transaction costs where it counts.
//
// While one lives it is what databases are opened on. One at a time. Thread safety: Count from any thread.
#ifndef LITEFLEET_TESTS_FAKES_COUNTED_SYNCS_H_
#define LITEFLEET_TESTS_FAKES_COUNTED_SYNCS_H_

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>

namespace litefleet::fakes {

class CountedSyncs {
 public:
  CountedSyncs() {
    Real() = sqlite3_vfs_find(nullptr);
    vfs_ = *Real();
    vfs_.zName = "counted-syncs";
    vfs_.xOpen = &Open;
    EXPECT_EQ(sqlite3_vfs_register(&vfs_, 1), SQLITE_OK);
    Count() = 0;
  }
  ~CountedSyncs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(Real(), 1);
  }
  static std::atomic<int>& Count() {
    static std::atomic<int> count{0};
    return count;
  }

 private:
  static sqlite3_vfs*& Real() {
    static sqlite3_vfs* real = nullptr;
    return real;
  }
  static sqlite3_io_methods& Methods() {
    static sqlite3_io_methods methods;
    return methods;
  }
  static int (*&RealSync())(sqlite3_file*, int) {
    static int (*sync)(sqlite3_file*, int) = nullptr;
    return sync;
  }
  static int Sync(sqlite3_file* file, int flags) {
    ++Count();
    return RealSync()(file, flags);
  }
  static int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
    const int rc = Real()->xOpen(Real(), name, file, flags, out);
    if (rc != SQLITE_OK || (flags & SQLITE_OPEN_WAL) == 0) return rc;
    if (RealSync() == nullptr) {
      Methods() = *file->pMethods;
      RealSync() = Methods().xSync;
      Methods().xSync = &Sync;
    }
    file->pMethods = &Methods();
    return rc;
  }

  sqlite3_vfs vfs_{};
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_COUNTED_SYNCS_H_
