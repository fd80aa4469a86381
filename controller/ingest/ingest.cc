#include "controller/ingest/ingest.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "controller/ingest/upload_session.h"
#include "fmt/format.h"

namespace litefleet::ingest {
namespace {

// Uploads of an operation that was cancelled expire at the epoch (catalog/operation_catalog), whatever time it is.
constexpr SystemTime kCancelledOnly{std::chrono::milliseconds(1)};

size_t SlotOf(const DeviceId& device, const std::string& database) {
  const std::hash<std::string> hash;
  return hash(device.value()) * 31 + hash(database);
}

}  // namespace

bool IngestLimits::ShareReceiveWindow(int64_t connection_bytes, int uploads) {
  const int64_t share = connection_bytes / (2 * std::max(uploads, 1));
  receive_window_bytes = std::clamp(share, kSmallestWindow, receive_window_bytes);
  if (share >= kAlwaysUnderWay) return true;
  const int64_t wanted = 2 * kAlwaysUnderWay * uploads;
  spdlog::warn(
      "limits: {} uploads at the same time may fill a connection_memory of {} MiB, and then connections of all devices end: raise "
      "`[limits] connection_memory` to {} MiB, or lower `uploads`",
      uploads, connection_bytes >> 20, (wanted + (1 << 20) - 1) >> 20);
  return false;
}

Ingest::Ingest(IngestDeps deps, IngestLimits limits) : deps_(std::move(deps)), limits_(limits), digests_(limits.digest_cache_bytes) {}
Ingest::~Ingest() = default;

absl::StatusOr<std::shared_ptr<UploadSession>> Ingest::NewUpload(const DeviceId& device, std::shared_ptr<UploadSink> sink) {
  {
    MutexLock lock(mu_);
    if (uploads_ >= limits_.max_uploads) {
      return Error(absl::StatusCode::kUnavailable, "TOO_MANY_UPLOADS", fmt::format("{} uploads are running", uploads_), "try again later");
    }
    ++uploads_;
  }
  return std::make_shared<UploadSession>(*this, device, std::move(sink));
}

void Ingest::UploadEnded() {
  MutexLock lock(mu_);
  --uploads_;
}

size_t Ingest::uploads() const {
  MutexLock lock(mu_);
  return uploads_;
}

absl::StatusOr<ControllerNow> Ingest::Now() const {
  if (deps_.now) return deps_.now();
  return ControllerNow{.time = deps_.clock.Now()};
}

void Ingest::NoteRemoval() {
  MutexLock lock(mu_);
  ++removals_;
}

absl::Status Ingest::Maintain() {
  LF_ASSIGN_OR_RETURN(const ControllerNow now, Now());
  NoteRemoval();
  return deps_.catalog.RemoveExpiredSessions(now.on_hold ? kCancelledOnly : now.time).status();
}

absl::Status Ingest::RemoveIfOver(int64_t session, bool alone) {
  LF_ASSIGN_OR_RETURN(const ControllerNow now, Now());
  NoteRemoval();
  return deps_.catalog.RemoveSession(session, now.on_hold ? kCancelledOnly : now.time, /*empty_too=*/alone).status();
}

void Ingest::Register(const SessionId& id, const std::shared_ptr<UploadSession>& session) {
  std::shared_ptr<UploadSession> older;
  {
    MutexLock lock(mu_);
    const auto [it, inserted] = running_.try_emplace(id.value(), session);
    if (!inserted) older = std::exchange(it->second, session);
  }
  if (older == nullptr) return;
  older->Abort(
      Error(absl::StatusCode::kAborted, "REPLACED_BY_NEWER_STREAM", fmt::format("upload {} goes on in another stream", id.value())));
  older->WaitEnded(std::chrono::steady_clock::now() + limits_.replace_wait);
}

bool Ingest::IsRegistered(const SessionId& id, const UploadSession* session) const {
  MutexLock lock(mu_);
  const auto it = running_.find(id.value());
  return it != running_.end() && it->second.get() == session;
}

void Ingest::Unregister(const SessionId& id, UploadSession* session) {
  std::shared_ptr<UploadSession> last;  // destroyed outside the lock
  MutexLock lock(mu_);
  const auto it = running_.find(id.value());
  if (it == running_.end() || it->second.get() != session) return;
  last = std::move(it->second);
  running_.erase(it);
}

void Ingest::BeginCommit(int64_t database) {
  MutexLock lock(mu_);
  while (committing_.count(database) != 0) changed_.Wait(mu_);
  committing_.insert(database);
}

uint64_t Ingest::commits(const DeviceId& device, const std::string& database) const {
  MutexLock lock(mu_);
  return commits_[SlotOf(device, database) % commits_.size()] + removals_;
}

void Ingest::EndCommit(int64_t database, const DeviceId& device, const std::string& name) {
  {
    MutexLock lock(mu_);
    committing_.erase(database);
    ++commits_[SlotOf(device, name) % commits_.size()];
  }
  changed_.SignalAll();
}

}  // namespace litefleet::ingest
