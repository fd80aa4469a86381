#include "controller/fleet/operation_table.h"

#include <algorithm>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::fleet {
namespace {

// Tells the catalog's transaction that there is nothing to write; never leaves this file.
absl::Status NothingToWrite() { return absl::AlreadyExistsError("nothing to write"); }

}  // namespace

absl::StatusOr<std::unique_ptr<OperationTable>> OperationTable::Load(catalog::OperationCatalog& catalog) {
  std::unique_ptr<OperationTable> table(new OperationTable(catalog));
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::OperationRow> rows, catalog.ActiveOf(DeviceId()));
  MutexLock lock(table->mu_);
  for (const catalog::OperationRow& row : rows) table->Insert(row);
  return table;
}

OperationTable::~OperationTable() = default;

void OperationTable::Insert(const catalog::OperationRow& row) {
  const OperationId id(row.operation.id());
  auto [at, fresh] = live_.try_emplace(id);
  if (!fresh) return;
  at->second.entry = Entry{row.operation, row.order, row.origin};
  by_device_[DeviceId(row.operation.device_id())].push_back(id);
}

absl::StatusOr<std::vector<OperationTable::Entry>> OperationTable::Create(const std::vector<catalog::OperationRow>& rows) {
  {
    MutexLock lock(mu_);
    for (const catalog::OperationRow& row : rows) creating_.insert(OperationId(row.operation.id()));
  }
  const absl::StatusOr<std::vector<catalog::OperationRow>> made = catalog_.Create(rows);
  std::vector<Entry> entries;
  {
    MutexLock lock(mu_);
    for (const catalog::OperationRow& row : rows) creating_.erase(OperationId(row.operation.id()));
    if (made.ok()) {
      for (const catalog::OperationRow& row : *made) {
        // A row of an earlier call with the same request id is live already, or has ended since.
        const bool ours =
            std::any_of(rows.begin(), rows.end(), [&](const auto& wanted) { return wanted.operation.id() == row.operation.id(); });
        if (ours && catalog::IsActive(row.operation.state())) Insert(row);
        entries.push_back(Entry{row.operation, row.order, row.origin});
      }
    }
  }
  created_.SignalAll();
  if (!made.ok()) return made.status();
  return entries;
}

absl::StatusOr<OperationTable::Changed> OperationTable::Change(const OperationId& operation,
                                                               absl::FunctionRef<Outcome(v1::Operation&)> change) {
  v1::Progress progress;
  {
    MutexLock lock(mu_);
    if (const auto at = live_.find(operation); at != live_.end()) progress = at->second.entry.operation.progress();
  }
  Changed changed;
  uint64_t version = 0;
  const absl::StatusOr<v1::Operation> saved = catalog_.Update(operation, [&](v1::Operation& stored) -> absl::Status {
    MergeProgress(*stored.mutable_progress(), progress);
    changed.outcome = change(stored);
    version = ++state_versions_;
    if (changed.outcome == Outcome::kChanged) return absl::OkStatus();
    changed.operation = stored;
    return NothingToWrite();
  });
  if (!saved.ok()) {
    if (version == 0 || changed.outcome == Outcome::kChanged) return saved.status();
    // The catalog may have ended it without this table (Expire): then it goes from here too.
    if (changed.outcome == Outcome::kEnded) Publish(changed.operation, version);
    return changed;
  }
  changed.operation = *saved;
  Publish(*saved, version);
  return changed;
}

void OperationTable::Publish(const v1::Operation& operation, uint64_t version) {
  Notice notice;
  {
    MutexLock lock(mu_);
    const OperationId id(operation.id());
    const auto at = live_.find(id);
    if (at == live_.end() || version <= at->second.state_version) return;
    Live& live = at->second;
    live.state_version = version;
    const v1::Progress progress = live.entry.operation.progress();
    live.entry.operation = operation;
    live.progress_unsaved = false;
    const bool ended = !catalog::IsActive(operation.state());
    if (!ended) MergeProgress(*live.entry.operation.mutable_progress(), progress);
    notice = NoticeOf(live);
    if (ended) {
      auto of_device = by_device_.find(DeviceId(operation.device_id()));
      std::erase(of_device->second, id);
      if (of_device->second.empty()) by_device_.erase(of_device);
      live_.erase(at);
    }
  }
  Tell(notice);
}

bool OperationTable::KeepProgress(const OperationId& operation, const v1::Progress& progress) {
  Notice notice;
  {
    MutexLock lock(mu_);
    const auto at = live_.find(operation);
    if (at == live_.end()) return false;
    Live& live = at->second;
    if (live.entry.operation.state() != v1::OPERATION_STATE_RUNNING && live.entry.operation.state() != v1::OPERATION_STATE_CANCELLING)
      return false;
    MergeProgress(*live.entry.operation.mutable_progress(), progress);
    live.progress_unsaved = true;
    notice = NoticeOf(live);
  }
  Tell(notice);
  return true;
}

void OperationTable::PersistProgress() {
  std::vector<OperationId> unsaved;
  {
    MutexLock lock(mu_);
    for (auto& [id, live] : live_) {
      if (live.progress_unsaved) unsaved.push_back(id);
      live.progress_unsaved = false;
    }
  }
  for (const OperationId& id : unsaved) {
    // Lost progress is not worth an error: the next report brings it again.
    Change(id, [](v1::Operation& operation) {
      return catalog::IsActive(operation.state()) ? Outcome::kChanged : Outcome::kEnded;
    }).IgnoreError();
  }
}

std::optional<OperationTable::Entry> OperationTable::FindActive(const OperationId& operation) const {
  MutexLock lock(mu_);
  while (creating_.contains(operation)) created_.Wait(mu_);
  const auto at = live_.find(operation);
  if (at == live_.end()) return std::nullopt;
  return at->second.entry;
}

std::vector<OperationTable::Entry> OperationTable::ActiveOf(const DeviceId& device) const {
  std::vector<Entry> entries;
  MutexLock lock(mu_);
  const auto of_device = by_device_.find(device);
  if (of_device == by_device_.end()) return entries;
  for (const OperationId& id : of_device->second) entries.push_back(live_.at(id).entry);
  return entries;
}

size_t OperationTable::CountActive(const DeviceId& device, catalog::Origin origin) const {
  MutexLock lock(mu_);
  const auto of_device = by_device_.find(device);
  if (of_device == by_device_.end()) return 0;
  size_t count = 0;
  for (const OperationId& id : of_device->second) count += live_.at(id).entry.origin == origin ? 1 : 0;
  return count;
}

std::vector<OperationTable::Entry> OperationTable::ActiveLocal() const {
  std::vector<Entry> entries;
  MutexLock lock(mu_);
  for (const auto& [id, live] : live_) {
    if (live.entry.origin == catalog::Origin::kLocal) entries.push_back(live.entry);
  }
  return entries;
}

std::vector<OperationId> OperationTable::QueuedPast(SystemTime now) const {
  std::vector<OperationId> past;
  MutexLock lock(mu_);
  for (const auto& [id, live] : live_) {
    const v1::Operation& operation = live.entry.operation;
    if (operation.state() == v1::OPERATION_STATE_QUEUED && operation.has_expires_at() && FromProtoTime(operation.expires_at()) <= now) {
      past.push_back(id);
    }
  }
  return past;
}

std::vector<std::pair<OperationId, DeviceId>> OperationTable::CancelsUnheard(SystemTime now) const {
  std::vector<std::pair<OperationId, DeviceId>> found;
  MutexLock lock(mu_);
  for (const auto& [id, live] : live_) {
    if (live.entry.origin == catalog::Origin::kLocal || !EndsUnheard(live.entry.operation, now)) continue;
    found.emplace_back(id, DeviceId(live.entry.operation.device_id()));
  }
  return found;
}

void OperationTable::FillProgress(v1::Operation& operation) const {
  if (!catalog::IsActive(operation.state())) return;
  MutexLock lock(mu_);
  const auto at = live_.find(OperationId(operation.id()));
  if (at != live_.end()) MergeProgress(*operation.mutable_progress(), at->second.entry.operation.progress());
}

absl::StatusOr<uint64_t> OperationTable::AddWatch(const OperationId& operation, std::function<void(const v1::Operation&)> watcher) {
  std::shared_ptr<Watch> watch;
  Notice notice;
  uint64_t id = 0;
  bool live_here = false;
  {
    MutexLock lock(mu_);
    if (watches_.size() >= kMaxWatches) {
      return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHERS", fmt::format("{} watches are open already", kMaxWatches),
                   "end some of them");
    }
    while (creating_.contains(operation)) created_.Wait(mu_);
    id = next_watch_++;
    // The last state takes the watch away, also where the watcher forgets to.
    watch = std::make_shared<Watch>([this, id, call = std::move(watcher)](const v1::Operation& now) {
      call(now);
      if (catalog::IsActive(now.state())) return;
      MutexLock forget(mu_);
      watches_.erase(id);
    });
    if (const auto at = live_.find(operation); at != live_.end()) {
      Live& live = at->second;
      if (live.watches.size() >= kMaxWatchesPerOperation) {
        return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHERS",
                     fmt::format("operation {} is watched {} times already", operation.value(), live.watches.size()), "end some of them");
      }
      live.watches.emplace(id, watch);
      live_here = true;
      notice.operation = live.entry.operation;
      notice.version = ++notify_versions_;
      notice.watches = {watch};
    }
    watches_.emplace(id, std::make_pair(operation, watch));
  }
  if (!live_here) {
    // Not active, so the catalog's word is final.
    const absl::StatusOr<catalog::OperationRow> row = catalog_.Get(operation);
    if (!row.ok()) {
      RemoveWatch(id);
      return row.status();
    }
    notice = Notice{row->operation, 1, {watch}};
  }
  Tell(notice);
  return id;
}

void OperationTable::RemoveWatch(uint64_t watch) {
  std::shared_ptr<Watch> removed;
  {
    MutexLock lock(mu_);
    const auto at = watches_.find(watch);
    if (at == watches_.end()) return;
    removed = at->second.second;
    if (const auto live = live_.find(at->second.first); live != live_.end()) live->second.watches.erase(watch);
    watches_.erase(at);
  }
  removed->Close();
}

void OperationTable::Touch(const DeviceId& device) {
  std::vector<Notice> notices;
  {
    MutexLock lock(mu_);
    const auto of_device = by_device_.find(device);
    if (of_device == by_device_.end()) return;
    for (const OperationId& id : of_device->second) {
      Live& live = live_.at(id);
      if (!live.watches.empty()) notices.push_back(NoticeOf(live));
    }
  }
  for (const Notice& notice : notices) Tell(notice);
}

OperationTable::Notice OperationTable::NoticeOf(Live& live) {
  Notice notice;
  if (live.watches.empty()) return notice;
  notice.operation = live.entry.operation;
  notice.version = ++notify_versions_;
  for (const auto& [id, watch] : live.watches) notice.watches.push_back(watch);
  return notice;
}

void OperationTable::Tell(const Notice& notice) {
  for (const std::shared_ptr<Watch>& watch : notice.watches) watch->Notify(notice.operation, notice.version);
}

}  // namespace litefleet::fleet
