// One attempt to upload what a feed yields: one stream, one session, compressor threads.
//
// Errors of Run, besides those of the stream and the feed: BASE_GONE (kFailedPrecondition) when the controller does not compare with the
// base that `begin` names. Thread safety: Run blocks one thread; the events come from the transport's. Lock order: mu_ is the only lock,
// and no call of the stream or the feed is made under it. Deadlines: nothing heard and nothing written for `no_progress`, and for as long
// as the last message of chunks takes on the slowest link, or a full one where the controller has not told of more, ends the attempt; a
// cancel is seen within 100 ms.
#ifndef LITEFLEET_AGENT_UPLOAD_ATTEMPT_H_
#define LITEFLEET_AGENT_UPLOAD_ATTEMPT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/upload/chunk_feed.h"
#include "agent/upload/link_pace.h"
#include "agent/upload/session.h"
#include "agent/upload/transport.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/rate_limit.h"

namespace litefleet::upload {

struct AttemptOptions {
  UploadSession::Limits limits;
  int compressors = 2;
  int compression_level = 1;
  std::chrono::milliseconds no_progress{30000};
  // Bytes a second of the slowest link that is waited for: for a message of chunks as much longer as it takes there. What is dead is
  // noticed by pings of the connection.
  int64_t slowest_link = 1 << 10;
  // Not a backup, but ahead of one: `complete` says so in the commit. Fails where the controller does not know that (CONTROLLER_TOO_OLD).
  bool precopy = false;
  // Asked while it waits; true ends the attempt with BACKUP_PAUSED (kUnavailable). May be empty.
  std::function<bool()> paused;
  // Asked while it waits whether what the feed reads of may stay. An error ends the attempt as one of the feed, until that has been read to
  // its end; then `let_go` is told of it, as often as it is said. Both may be empty.
  std::function<absl::Status()> still_kept = {};
  std::function<void(const absl::Status& why)> let_go = {};
  // The controller's commit may take longer than an answer.
  std::chrono::milliseconds commit_wait{120000};
  // Of pages that differ, of extents that the controller compares; then they are sent whole.
  size_t max_runs = kMaxRunsSent;
  // By which the age in the commit grows until that leaves; null: the system's.
  const Clock* clock = nullptr;
  // For tests: what deadlines and the pace go by, but not how often it looks. Any thread asks, also under the attempt's lock.
  std::function<SteadyTime()> now = &std::chrono::steady_clock::now;
};

class Attempt final : public StreamEvents, public std::enable_shared_from_this<Attempt> {
 public:
  // `commit` is filled up by the feed; `base` holds what only the caller knows. All references outlive Run.
  static absl::StatusOr<v1::UploadCommitted> Run(const AttemptOptions& options, UploadTransport& transport, const v1::UploadBegin& begin,
                                                 ChunkFeed& feed, const std::function<void(v1::UploadCommit&)>& complete, RateLimit& rate,
                                                 const CancelToken& cancel,
                                                 const std::function<void(const UploadSession::Counts&)>& progress,
                                                 UploadSession::Counts& counts);

  Attempt(const AttemptOptions& options, const v1::UploadBegin& begin, RateLimit& rate);

  void OnResponse(const v1::UploadResponse& response) override;
  void OnWritten() override;
  void OnClosed(absl::Status status) override;

 private:
  absl::Status Feed(ChunkFeed& feed, const std::function<void(v1::UploadCommit&)>& complete, const CancelToken& cancel,
                    const std::function<void(const UploadSession::Counts&)>& progress);
  // Compares extents that the controller has with another content, and offers what differs.
  absl::Status CompareDiffering(PageGatherer& gatherer, uint32_t page_size);
  void OfferChunk(Chunk chunk);
  // Once it has been accepted: what is wanted of the controller is so.
  absl::Status CheckAccepted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Until `done` holds; `feed` may read ahead meanwhile. Errors: what ended the stream, no progress, cancelled; those of the feed.
  absl::Status WaitFor(const std::function<bool(const UploadSession&)>& done, std::chrono::milliseconds no_progress, ChunkFeed& feed,
                       const CancelToken& cancel, const std::function<void(const UploadSession::Counts&)>& progress);
  void Compress();
  // Notes that it is the feed's error, or a payload's.
  absl::Status FromSource(absl::Status status);
  // Writes the next message, if there is one.
  void Pump();
  SteadyTime Now() const { return options_.now(); }
  std::chrono::nanoseconds SinceBoot() const { return options_.clock != nullptr ? options_.clock->SinceBoot() : RealClock().SinceBoot(); }
  void Stop();

  const AttemptOptions options_;
  RateLimit& rate_;
  const std::string base_;
  const std::string base_root_;
  const bool size_at_commit_;
  std::chrono::nanoseconds network_wait_{0};  // Run's
  bool read_ = false;                         // Run's: of the source nothing is needed any more
  size_t runs_ = 0;                           // Run's: of pages that CompareDiffering found
  std::shared_ptr<UploadStream> stream_;      // constant after Run has opened it

  Mutex mu_;
  CondVar changed_;
  UploadSession session_ ABSL_GUARDED_BY(mu_);
  LinkPace pace_ ABSL_GUARDED_BY(mu_);
  SteadyTime last_progress_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  int64_t last_payload_ ABSL_GUARDED_BY(mu_) = 0;  // of the last message of chunks
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::chrono::nanoseconds described_at_ ABSL_GUARDED_BY(mu_){0};  // when the commit's age was true
  std::optional<absl::Status> ended_ ABSL_GUARDED_BY(mu_);         // why this attempt cannot go on
  bool source_failed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_ATTEMPT_H_
