// SQLite's own VFS over a disk that forgets what was not synced, and fails where it is told to: for the files whose name ends with `name`,
// and the logs beside them.
//
// What is written lives in memory until a sync puts it into the real file: the end of the process is a power cut. `writeback` percent of
// the writes reach the file by themselves, some only in part, as a kernel does it. A failed sync loses what it should have covered: the
// next one says OK and writes nothing of it. Names are made and removed at once, locks and the wal-index are real.
//
// As long as one exists it is the default, so that whoever opens a database gets it. One at a time. A fault is what the disk would say:
// EIO, ENOSPC, or a write of which only a part arrives. Thread safety: any thread; `decide` is called without a lock. Memory: the files.
#ifndef LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_
#define LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_

#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "tests/fakes/volatile_files.h"

namespace litefleet::fakes {

class FaultyVfs {
 public:
  using Decide = std::function<FileFault(FileCall call)>;

  explicit FaultyVfs(std::string name, Decide decide = {}, unsigned seed = 1, int writeback = 0)
      : name_(std::move(name)), decide_(std::move(decide)), writeback_(writeback), real_(sqlite3_vfs_find("unix")), random_(seed) {
    vfs_ = *real_;
    vfs_.zName = "litefleet-faulty";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.pAppData = this;
    vfs_.pNext = nullptr;
    vfs_.xOpen = [](sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out) {
      return static_cast<FaultyVfs*>(vfs->pAppData)->Open(path, file, flags, out);
    };
    vfs_.xDelete = [](sqlite3_vfs* vfs, const char* path, int sync) {
      auto* self = static_cast<FaultyVfs*>(vfs->pAppData);
      if (self->IsMine(path) && self->cut_) return SQLITE_IOERR_DELETE;
      const int rc = self->real_->xDelete(self->real_, path, sync);
      MutexLock lock(self->mu_);
      if (rc == SQLITE_OK) self->contents_.erase(path);
      return rc;
    };
    vfs_.xAccess = [](sqlite3_vfs* vfs, const char* path, int flags, int* out) {
      auto* self = static_cast<FaultyVfs*>(vfs->pAppData);
      MutexLock lock(self->mu_);
      const auto known = self->contents_.find(path);
      if (flags != SQLITE_ACCESS_EXISTS || known == self->contents_.end()) return self->real_->xAccess(self->real_, path, flags, out);
      *out = known->second->data.empty() ? 0 : 1;
      return SQLITE_OK;
    };
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~FaultyVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
  }

  // What a sync lost is not kept in memory either, as where the kernel needs the room.
  void EvictWhatIsLost() { evicts_ = true; }
  // The power is cut: what is done from now on leaves no trace. Whoever has a file open may close it, then comes Forget.
  void Cut() { cut_ = true; }
  // What was not synced is gone. REQUIRES: no file is open.
  void Forget() {
    cut_ = false;
    MutexLock lock(mu_);
    contents_.clear();
  }

 private:
  struct Content {
    Bytes data;                                        // as programs see it
    std::vector<std::pair<uint64_t, uint64_t>> dirty;  // offset and size, since the last sync
    uint64_t shortest = UINT64_MAX;                    // that it was since then
    bool lost = false;                                 // a sync failed: the file has not what `data` says
    int opened = 0;
  };
  struct File {
    sqlite3_file base;
    FaultyVfs* owner;
    std::string path;
    std::shared_ptr<Content> content;
  };

  static File& Mine(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
  static sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<sqlite3_file*>(&Mine(file) + 1); }
  bool IsMine(const char* path) const {
    if (path == nullptr) return false;
    const std::string_view text(path);
    for (const char* suffix : {"", "-wal", "-journal"})
      if (text.ends_with(name_ + suffix)) return true;
    return false;
  }
  FileFault Ask(FileCall call) { return decide_ ? decide_(call) : FileFault::kNone; }
  static int Code(FileFault fault, int io) { return fault == FileFault::kIo ? io : SQLITE_FULL; }

  int Open(const char* path, sqlite3_file* file, int flags, int* out) {
    if (!IsMine(path)) return real_->xOpen(real_, path, file, flags, out);
    auto* opened = new (file) File{.base = {}, .owner = this, .path = path, .content = {}};
    if (const int rc = real_->xOpen(real_, path, Real(file), flags, out); rc != SQLITE_OK) {
      opened->~File();
      file->pMethods = nullptr;
      return rc;
    }
    MutexLock lock(mu_);
    std::shared_ptr<Content>& content = contents_[path];
    if (content == nullptr) {
      content = std::make_shared<Content>();
      Load(file, *content);
    }
    ++content->opened;
    opened->content = content;
    file->pMethods = &Methods();
    return SQLITE_OK;
  }
  static void Load(sqlite3_file* file, Content& content) {
    sqlite3_int64 size = 0;
    Real(file)->pMethods->xFileSize(Real(file), &size);
    content.data.resize(static_cast<size_t>(size));
    if (size > 0) Real(file)->pMethods->xRead(Real(file), content.data.data(), static_cast<int>(size), 0);
  }
  static int Close(sqlite3_file* file) {
    const int rc = Real(file)->pMethods->xClose(Real(file));
    Mine(file).owner->Closed(Mine(file));
    Mine(file).~File();
    return rc;
  }
  void Closed(const File& file) {
    MutexLock lock(mu_);
    Content& content = *file.content;
    const bool clean = content.dirty.empty() && content.shortest == UINT64_MAX && !content.lost;
    // Others may do with the file what they like.
    const auto known = contents_.find(file.path);
    if (--content.opened == 0 && clean && known != contents_.end() && known->second == file.content) contents_.erase(known);
  }
  int Read(const Content& content, void* out, size_t size, uint64_t at) {
    // A read has no room to lack.
    if (Ask(FileCall::kRead) == FileFault::kIo) return SQLITE_IOERR_READ;
    MutexLock lock(mu_);
    const size_t there = at >= content.data.size() ? 0 : std::min<size_t>(size, content.data.size() - at);
    if (there > 0) std::memcpy(out, content.data.data() + at, there);
    std::memset(static_cast<char*>(out) + there, 0, size - there);
    return there == size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  int Write(sqlite3_file* file, Content& content, const void* in, size_t size, uint64_t at) {
    if (cut_) return SQLITE_IOERR_WRITE;
    const FileFault fault = Ask(FileCall::kWrite);
    if (fault != FileFault::kNone && fault != FileFault::kShort) return Code(fault, SQLITE_IOERR_WRITE);
    const size_t some = fault == FileFault::kShort ? size / 2 : size;
    MutexLock lock(mu_);
    if (content.data.size() < at + some) content.data.resize(at + some);
    std::memcpy(content.data.data() + at, in, some);
    content.dirty.emplace_back(at, some);
    if (static_cast<int>(random_() % 100) < writeback_) {
      const size_t skip = random_() % 2 == 0 ? 0 : random_() % (some + 1);
      PutBack(file, content, at + skip, some - skip);
    }
    return fault == FileFault::kNone ? SQLITE_OK : SQLITE_FULL;
  }
  int Truncate(Content& content, uint64_t size) {
    if (cut_ || Ask(FileCall::kTruncate) != FileFault::kNone) return SQLITE_IOERR_TRUNCATE;
    MutexLock lock(mu_);
    content.data.resize(size);
    content.shortest = std::min(content.shortest, size);
    return SQLITE_OK;
  }
  int Sync(sqlite3_file* file, Content& content) {
    if (cut_) return SQLITE_IOERR_FSYNC;
    const FileFault fault = Ask(FileCall::kSync);
    MutexLock lock(mu_);
    const auto dirty = std::exchange(content.dirty, {});
    if (fault != FileFault::kNone) {
      content.lost = true;
      if (evicts_) Load(file, content);
      return SQLITE_IOERR_FSYNC;  // as SQLite's own says, whatever the reason
    }
    const sqlite3_io_methods& real = *Real(file)->pMethods;
    if (const uint64_t shortest = std::exchange(content.shortest, UINT64_MAX); shortest != UINT64_MAX)
      real.xTruncate(Real(file), static_cast<sqlite3_int64>(shortest));
    for (const auto& [at, size] : dirty) PutBack(file, content, at, size);
    real.xTruncate(Real(file), static_cast<sqlite3_int64>(content.data.size()));
    return SQLITE_OK;
  }
  void PutBack(sqlite3_file* file, const Content& content, uint64_t at, uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (at >= content.data.size()) return;
    size = std::min<uint64_t>(size, content.data.size() - at);
    if (size > 0)
      Real(file)->pMethods->xWrite(Real(file), content.data.data() + at, static_cast<int>(size), static_cast<sqlite3_int64>(at));
  }

  static const sqlite3_io_methods& Methods() {
    static const sqlite3_io_methods methods = {
        3,
        &FaultyVfs::Close,
        [](sqlite3_file* f, void* out, int n, sqlite3_int64 at) {
          return Mine(f).owner->Read(*Mine(f).content, out, static_cast<size_t>(n), static_cast<uint64_t>(at));
        },
        [](sqlite3_file* f, const void* in, int n, sqlite3_int64 at) {
          return Mine(f).owner->Write(f, *Mine(f).content, in, static_cast<size_t>(n), static_cast<uint64_t>(at));
        },
        [](sqlite3_file* f, sqlite3_int64 size) { return Mine(f).owner->Truncate(*Mine(f).content, static_cast<uint64_t>(size)); },
        [](sqlite3_file* f, int) { return Mine(f).owner->Sync(f, *Mine(f).content); },
        [](sqlite3_file* f, sqlite3_int64* size) {
          MutexLock lock(Mine(f).owner->mu_);
          *size = static_cast<sqlite3_int64>(Mine(f).content->data.size());
          return SQLITE_OK;
        },
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
        [](sqlite3_file*, sqlite3_int64, int, void** out) { return *out = nullptr, SQLITE_OK; },  // nothing is read past xRead
        [](sqlite3_file*, sqlite3_int64, void*) { return SQLITE_OK; },
    };
    return methods;
  }

  const std::string name_;
  const Decide decide_;
  const int writeback_;
  sqlite3_vfs* const real_;
  sqlite3_vfs vfs_;
  std::atomic<bool> cut_{false};
  std::atomic<bool> evicts_{false};
  Mutex mu_;
  std::minstd_rand random_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::shared_ptr<Content>> contents_ ABSL_GUARDED_BY(mu_);  // by path
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_FAULTY_VFS_H_
