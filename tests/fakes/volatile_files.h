// A file system that forgets what was not synced, and fails where it is told to.
//
// What is written, made, renamed or removed lives in memory until File::Sync (contents) or SyncDirectory (names) puts it into the real
// directory below: the end of the process is a power cut. `writeback` percent of the changes reach the disk by themselves, and of those
// some only in part, as a kernel does it. A failed Sync loses what it should have covered: the next one says OK and writes nothing of it.
// Thread safety: any thread. Memory: every file that was opened, whole.
#ifndef LITEFLEET_TESTS_FAKES_VOLATILE_FILES_H_
#define LITEFLEET_TESTS_FAKES_VOLATILE_FILES_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "controller/store/file_system.h"
#include "tests/fakes/file_fault.h"
#include "tests/fakes/spoilt_places.h"

namespace litefleet::fakes {

class VolatileFiles final : public store::FileSystem {
 public:
  using Decide = std::function<FileFault(FileCall call)>;  // before each call, not under a lock; it may end the process

  explicit VolatileFiles(unsigned seed = 1, int writeback = 0, Decide decide = {})
      : random_(seed), writeback_(writeback), decide_(std::move(decide)) {}

  // A bit of a file, in memory and on the disk.
  void Flip(const std::string& path, uint64_t offset) {
    MutexLock lock(mu_);
    const std::shared_ptr<Inode> inode = Find(path);
    if (inode == nullptr || offset >= inode->data.size()) return;
    inode->data[offset] ^= std::byte{0x10};
    if (offset < inode->durable.size()) inode->durable[offset] = inode->data[offset];
    Put(*inode, offset, 1, inode->data.size());
  }
  // The 4 KiB around this place cannot be read any more.
  void Spoil(const std::string& path, uint64_t offset) { spoilt_.Add(path, offset); }
  // A power cut: what was not synced is gone. REQUIRES: nothing is open.
  void Forget() {
    MutexLock lock(mu_);
    names_.clear();
    gone_.clear();
    removed_.clear();
  }

  absl::StatusOr<std::unique_ptr<store::File>> Create(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kCreate, path));
    MutexLock lock(mu_);
    if (Find(path) != nullptr) return ErrnoError(EEXIST, "create " + path);
    for (const auto& removed : removed_)
      if (removed->on_disk == path) Unlink(*removed);
    auto inode = std::make_shared<Inode>();
    names_[path] = inode;
    gone_.erase(path);
    if (Lucky()) Link(path, *inode);
    return std::make_unique<Handle>(*this, inode, path);
  }
  absl::StatusOr<std::unique_ptr<store::File>> OpenForWriting(const std::string& path) override { return OpenForReading(path); }
  absl::StatusOr<std::unique_ptr<store::File>> OpenForReading(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kOpen, path));
    MutexLock lock(mu_);
    const std::shared_ptr<Inode> inode = Find(path);
    if (inode == nullptr) return ErrnoError(ENOENT, "open " + path);
    return std::make_unique<Handle>(*this, inode, path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kRename, from));
    MutexLock lock(mu_);
    const std::shared_ptr<Inode> inode = Find(from);
    if (inode == nullptr) return ErrnoError(ENOENT, "rename " + from);
    names_.erase(from);
    names_[to] = inode;
    gone_.insert(from);
    gone_.erase(to);
    if (Lucky()) Link(to, *inode);
    return absl::OkStatus();
  }
  absl::Status Remove(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kRemove, path));
    MutexLock lock(mu_);
    const std::shared_ptr<Inode> inode = Find(path);
    if (inode == nullptr) return absl::OkStatus();
    names_.erase(path);
    gone_.insert(path);
    if (Lucky()) Unlink(*inode);
    removed_.push_back(inode);
    return absl::OkStatus();
  }
  absl::Status SyncDirectory(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kSyncDirectory, path));
    MutexLock lock(mu_);
    for (const auto& inode : removed_) Unlink(*inode);
    removed_.clear();
    for (const auto& [name, inode] : names_)
      if (name.rfind(path + "/", 0) == 0) Link(name, *inode);
    gone_.clear();
    return absl::OkStatus();
  }
  absl::Status MakeDirectory(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kMakeDirectory, path));
    return store::PosixFileSystem().MakeDirectory(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kList, path));
    LF_ASSIGN_OR_RETURN(const std::vector<std::string> on_disk, store::PosixFileSystem().List(path));
    MutexLock lock(mu_);
    std::vector<std::string> names;
    for (const auto& [name, inode] : names_)
      if (name.rfind(path + "/", 0) == 0) names.push_back(name.substr(path.size() + 1));
    for (const std::string& name : on_disk)
      if (!gone_.contains(path + "/" + name) && !names_.contains(path + "/" + name)) names.push_back(name);
    return names;
  }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    LF_RETURN_IF_ERROR(Ask(FileCall::kFree, path));
    return uint64_t{1} << 40;
  }

 private:
  struct Inode {
    Bytes data, durable;                               // as programs see it, and what a sync has covered
    std::string on_disk;                               // its durable name; empty: none yet
    std::vector<std::pair<uint64_t, uint64_t>> dirty;  // offset and size, since the last sync
  };

  class Handle final : public store::File {
   public:
    Handle(VolatileFiles& owner, std::shared_ptr<Inode> inode, std::string path)
        : owner_(owner), inode_(std::move(inode)), path_(std::move(path)) {}
    absl::StatusOr<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
      LF_RETURN_IF_ERROR(owner_.Ask(FileCall::kRead, path_));
      if (owner_.spoilt_.Has(path_, offset, out.size())) return Fail(FileFault::kIo, "read " + path_);
      MutexLock lock(owner_.mu_);
      if (offset >= inode_->data.size()) return 0;
      const size_t some = std::min(out.size(), inode_->data.size() - static_cast<size_t>(offset));
      std::copy_n(inode_->data.begin() + static_cast<std::ptrdiff_t>(offset), some, out.begin());
      return some;
    }
    absl::Status WriteAt(uint64_t offset, ByteView first, ByteView second) override {
      Bytes bytes(first.begin(), first.end());
      bytes.insert(bytes.end(), second.begin(), second.end());
      const FileFault fault = owner_.decide_ ? owner_.decide_(FileCall::kWrite) : FileFault::kNone;
      if (fault == FileFault::kShort) bytes.resize(bytes.size() / 2);
      MutexLock lock(owner_.mu_);
      if (fault == FileFault::kNone || fault == FileFault::kShort) {
        if (inode_->data.size() < offset + bytes.size()) inode_->data.resize(offset + bytes.size());
        std::copy(bytes.begin(), bytes.end(), inode_->data.begin() + static_cast<std::ptrdiff_t>(offset));
        inode_->dirty.emplace_back(offset, bytes.size());
        if (owner_.Lucky()) {
          const uint64_t skip = bytes.empty() ? 0 : owner_.random_() % bytes.size();
          const uint64_t from = offset + (owner_.random_() % 2 == 0 ? 0 : skip);
          owner_.Put(*inode_, from, offset + bytes.size() - from, inode_->data.size());
        }
      }
      return Fail(fault, "write " + path_);
    }
    absl::Status Truncate(uint64_t size) override {
      LF_RETURN_IF_ERROR(owner_.Ask(FileCall::kTruncate, path_));
      MutexLock lock(owner_.mu_);
      inode_->data.resize(size);
      inode_->dirty.emplace_back(size, 0);
      return absl::OkStatus();
    }
    absl::StatusOr<uint64_t> Size() override {
      MutexLock lock(owner_.mu_);
      return inode_->data.size();
    }
    absl::Status Sync() override {
      const FileFault fault = owner_.decide_ ? owner_.decide_(FileCall::kSync) : FileFault::kNone;
      MutexLock lock(owner_.mu_);
      const auto dirty = std::exchange(inode_->dirty, {});
      if (fault != FileFault::kNone) return Fail(fault, "fsync " + path_);
      inode_->durable.resize(inode_->data.size());
      for (const auto& [offset, size] : dirty) {
        if (offset >= inode_->data.size()) continue;
        const uint64_t some = std::min(size, inode_->data.size() - offset);
        std::copy_n(inode_->data.begin() + static_cast<std::ptrdiff_t>(offset), some,
                    inode_->durable.begin() + static_cast<std::ptrdiff_t>(offset));
      }
      owner_.Put(*inode_, 0, inode_->durable.size(), inode_->durable.size());
      return absl::OkStatus();
    }
    void StartWriteback(uint64_t, uint64_t) override {}

   private:
    VolatileFiles& owner_;
    const std::shared_ptr<Inode> inode_;
    const std::string path_;
  };

  absl::Status Ask(FileCall call, const std::string& path) { return Fail(decide_ ? decide_(call) : FileFault::kNone, "use " + path); }
  bool Lucky() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return static_cast<int>(random_() % 100) < writeback_; }
  std::shared_ptr<Inode> Find(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (const auto it = names_.find(path); it != names_.end()) return it->second;
    if (gone_.contains(path)) return nullptr;
    const auto text = io::ReadFile(path, size_t{1} << 30);
    if (!text.ok()) return nullptr;
    auto inode = std::make_shared<Inode>();
    inode->data.assign(AsBytes(*text).begin(), AsBytes(*text).end());
    inode->durable = inode->data;
    inode->on_disk = path;
    names_[path] = inode;
    return inode;
  }
  // Bytes as they are in memory, to the disk, if the file has a name there.
  void Put(const Inode& inode, uint64_t offset, uint64_t size, uint64_t file_size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const Bytes& from = inode.dirty.empty() ? inode.durable : inode.data;
    const auto file = store::PosixFileSystem().OpenForWriting(inode.on_disk);
    if (!file.ok() || offset + size > from.size()) return;
    (*file)->WriteAt(offset, ByteView(from).subspan(offset, size), {}).IgnoreError();
    if (inode.dirty.empty()) (*file)->Truncate(file_size).IgnoreError();
  }
  void Link(const std::string& name, Inode& inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (inode.on_disk == name) return;
    if (!inode.on_disk.empty()) {
      store::PosixFileSystem().Rename(inode.on_disk, name).IgnoreError();
    } else if (const auto file = store::PosixFileSystem().Create(name); file.ok()) {
      (*file)->WriteAt(0, inode.durable, {}).IgnoreError();
    }
    inode.on_disk = name;
  }
  void Unlink(Inode& inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!inode.on_disk.empty()) store::PosixFileSystem().Remove(inode.on_disk).IgnoreError();
    inode.on_disk.clear();
  }

  SpoiltPlaces spoilt_;
  Mutex mu_;
  std::minstd_rand random_ ABSL_GUARDED_BY(mu_);
  const int writeback_;
  const Decide decide_;
  std::map<std::string, std::shared_ptr<Inode>> names_ ABSL_GUARDED_BY(mu_);  // as programs see them; others are as on the disk
  std::set<std::string> gone_ ABSL_GUARDED_BY(mu_);                           // on the disk, and not to programs
  std::vector<std::shared_ptr<Inode>> removed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_VOLATILE_FILES_H_
