// The copy that a backup keeps between its passes, on a disk that others fill meanwhile.
//
// Thread safety: none. Ownership: borrows the job.
#ifndef LITEFLEET_AGENT_UPLOAD_KEPT_COPY_H_
#define LITEFLEET_AGENT_UPLOAD_KEPT_COPY_H_

#include <spdlog/spdlog.h>

#include <chrono>

#include "absl/status/status.h"
#include "agent/upload/backup.h"
#include "common/base/clock.h"
#include "common/base/status.h"

namespace litefleet::upload {

class KeptCopy {
 public:
  static constexpr std::chrono::milliseconds kLookEvery{1000};

  explicit KeptCopy(const BackupJob& job) : job_(job) {}

  // COPY_GROWTH where it may not stay. To be asked often: it looks once in kLookEvery.
  absl::Status Check() {
    const SteadyTime now = std::chrono::steady_clock::now();
    if (!job_.still_kept || now - looked_at_ < kLookEvery) return absl::OkStatus();
    looked_at_ = now;
    return job_.still_kept();
  }
  void Drop() {
    if (job_.drop_copy) job_.drop_copy();
  }
  // It was read to its end: only a cut link would need it once more, and the next pass takes another then.
  void LetGo(const absl::Status& why) {
    spdlog::info("{}: the copy is let go: {}", job_.database, MessageOf(why));
    Drop();
  }
  // While nothing is read of it: the next pass takes another.
  void CheckBetweenPasses() {
    const absl::Status kept = Check();
    if (kept.ok()) return;
    spdlog::info("{}: the copy is let go, and taken anew: {}", job_.database, MessageOf(kept));
    Drop();
  }

 private:
  const BackupJob& job_;
  SteadyTime looked_at_{};
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_KEPT_COPY_H_
