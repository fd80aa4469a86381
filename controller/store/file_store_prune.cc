// What prune does to files: packs are sealed early, and removed.
#include <algorithm>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"

namespace litefleet::store {

absl::Status FileStore::SealOpenPack() {
  uint64_t epoch;
  {
    const Turn::Holder turn(appending_);
    std::shared_ptr<Pack> pack;
    {
      MutexLock lock(mu_);
      pack = open_;
      epoch = epoch_;
    }
    if (pack == nullptr || pack->records == 0) return absl::OkStatus();
    LF_RETURN_IF_ERROR(WriteFooter(*pack));
    MutexLock lock(mu_);
    if (open_ == pack) {
      open_ = nullptr;
      ++appended_;  // so that the sync below does not find that all is done
      if (std::find(dirty_.begin(), dirty_.end(), pack) == dirty_.end()) dirty_.push_back(pack);
    }
  }
  return Sync(epoch);
}

absl::Status FileStore::RemovePack(uint64_t id) {
  {
    MutexLock lock(mu_);
    const auto known = known_.find(id);
    if (known != known_.end() && !known->second.sealed) {
      return Error(absl::StatusCode::kFailedPrecondition, "PACK_OPEN", fmt::format("pack {:016x} is still written to", id));
    }
    if (known != known_.end() && known->second.held()) {
      return Error(absl::StatusCode::kFailedPrecondition, "PACK_HELD", fmt::format("an upload has written to pack {:016x}", id),
                   "prune again when it has ended");
    }
  }
  const absl::Status removed = files_.Remove(PathOf(id, true));
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  LF_RETURN_IF_ERROR(files_.SyncDirectory(packs_directory_));
  {
    MutexLock lock(mu_);
    known_.erase(id);
  }
  MutexLock lock(readers_mu_);
  readers_.erase(id);
  return absl::OkStatus();
}

}  // namespace litefleet::store
