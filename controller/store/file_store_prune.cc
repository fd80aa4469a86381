// What prune does to files: packs are sealed early, and removed.
#include <algorithm>
#include <optional>
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

void FileStore::SealGivenUpPacks() {
  std::set<uint64_t> packs;
  {
    MutexLock lock(mu_);
    packs.swap(given_up_);
  }
  if (packs.empty()) return;
  // Whoever was writing to one of them when it was given up has ended, and nobody begins again: ingest does not wait for what follows.
  { const Turn::Holder turn(appending_); }
  for (const uint64_t id : packs) {
    const absl::Status sealed = RecoverOpenPack(id, true);
    if (sealed.ok()) continue;
    Problem(fmt::format("{} could not be sealed: {}", PathOf(id, false), MessageOf(sealed)));
    MutexLock lock(mu_);
    given_up_.insert(id);
  }
}

absl::Status FileStore::RemovePack(uint64_t id) {
  // It is not known any more before its file goes: nobody takes what is missing then for damage.
  std::optional<Known> known;
  {
    MutexLock lock(mu_);
    if (const auto at = known_.find(id); at != known_.end()) {
      if (!at->second.sealed) {
        return Error(absl::StatusCode::kFailedPrecondition, "PACK_OPEN", fmt::format("pack {:016x} is still written to", id));
      }
      if (at->second.held()) {
        return Error(absl::StatusCode::kFailedPrecondition, "PACK_HELD", fmt::format("an upload has written to pack {:016x}", id),
                     "prune again when it has ended");
      }
      known = std::move(at->second);
      known_.erase(at);
    }
  }
  const absl::Status removed = files_.Remove(PathOf(id, true));
  if (!removed.ok() && !absl::IsNotFound(removed)) {
    MutexLock lock(mu_);
    if (known.has_value()) known_[id] = *std::move(known);
    return removed;
  }
  {
    MutexLock lock(readers_mu_);
    readers_.erase(id);
  }
  // The file is gone, also where this fails: a power cut may bring it back, and whoever asked asks again.
  return files_.SyncDirectory(packs_directory_);
}

}  // namespace litefleet::store
