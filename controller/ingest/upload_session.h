// One upload as a state machine, without gRPC: begin -> offers and chunks -> commit. The wire's rules are in agent_service.proto.
//
//   state      begin      offer, chunks   commit        End / Abort
//   kNew       kRunning   error           error         kEnded
//   kRunning   error      kRunning        kCommitted    kEnded, what was received is made durable and claimed
//   (a `whole` is a begin with what follows it)
//   kCommitted error      error           error         kEnded
// Any error ends the upload as End does. Nothing is visible to a snapshot before the commit.
//
// Order at a mark (design law 1): chunks verified and written -> pack synced -> rows and claims in the catalog -> `durable`; at the commit:
// what is left of the chunks, manifest and snapshot record written -> pack synced -> their rows and the snapshot's in one transaction ->
// `committed`. So a small upload costs one sync of the pack and one of the catalog, both shared with others.
// Crash points: ingest.after_chunk_write, ingest.after_pack_sync, ingest.after_record_chunks, ingest.after_claim,
// ingest.before_commit_tx, ingest.after_commit_tx.
//
// Thread safety: Handle and End are called one at a time, from threads that may block (disk, catalog, verification); Abort and WaitEnded
// from any thread. Work in the background holds a reference to the session. Memory: limits.in_flight_bytes of payload, and about
// 100 bytes for each chunk that is expected or not yet durable; of the latter there are at most 4 * limits.mark_chunks, and a message.
#ifndef LITEFLEET_CONTROLLER_INGEST_UPLOAD_SESSION_H_
#define LITEFLEET_CONTROLLER_INGEST_UPLOAD_SESSION_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/ingest/delta_builder.h"
#include "controller/ingest/ingest.h"
#include "controller/ingest/manifest_builder.h"
#include "controller/ingest/pinned_manifest.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::ingest {

class UploadSession : public std::enable_shared_from_this<UploadSession> {
 public:
  UploadSession(Ingest& ingest, DeviceId device, std::shared_ptr<UploadSink> sink);
  // REQUIRES: End has returned.
  ~UploadSession();
  UploadSession(const UploadSession&) = delete;
  UploadSession& operator=(const UploadSession&) = delete;

  // The next request; its payload is moved out of it. After an error, which was also given to the sink, only End may follow.
  absl::Status Handle(v1::UploadRequest& request);
  // The stream has ended, whoever ended it. Makes durable and claims what was received and verified. Once.
  void End();

  // Ends the upload from outside; Handle fails from now on.
  void Abort(const absl::Status& why);
  void WaitEnded(SteadyTime deadline);

 private:
  enum class State { kNew, kRunning, kCommitted, kEnded };
  struct Expected {
    format::ChunkName name;
    uint32_t page_count = 0;
    bool stored = false;  // the store has it, the device only has to show that it does
  };
  // A chunk that was received. Slots are in the order of arrival; a mark takes a prefix that is all done.
  struct Slot {
    catalog::ArrivedChunk chunk;
    bool put = false;   // to be written, not only verified
    bool done = false;  // verified and written, or given up
    bool good = false;
    uint64_t epoch = 0;
    store::PackHold hold;
  };
  struct Job {
    Slot* slot;
    std::string data;
  };

  absl::Status Dispatch(v1::UploadRequest& request);
  absl::Status Begin(const v1::UploadBegin& begin, std::span<const format::ChunkName> offered = {});
  // All of them in one message. Answers are held back meanwhile: mostly the last one says everything.
  absl::Status Whole(v1::UploadWhole& whole);
  void Tell(v1::UploadResponse response);
  // Decides what the upload is compared with, and makes the builders.
  absl::Status ChooseBase(const v1::UploadBegin& begin, const catalog::UploadSessionRow& row, v1::UploadAccepted& accepted);
  absl::Status Offer(const v1::UploadOffer& offer);
  absl::Status OfferWithoutBase(const v1::UploadOffer& offer, v1::UploadMissing& missing);
  absl::Status OfferOnBase(const v1::UploadOffer& offer, v1::UploadMissing& missing);
  absl::Status Chunks(v1::UploadChunks& chunks);
  absl::Status Commit(const v1::UploadCommit& commit);

  // On the verify executor.
  void Verify(std::vector<Job> jobs, int64_t bytes);
  absl::Status VerifyOne(const Slot& slot, const std::string& data, std::optional<store::Placed>& placed);

  // The mark: whoever holds it may take slots and make them durable.
  void TakeMark() ABSL_LOCKS_EXCLUDED(mu_);
  void GiveMark() ABSL_LOCKS_EXCLUDED(mu_);
  void MarkIfDue() ABSL_LOCKS_EXCLUDED(mu_);
  void RunQueuedMark() ABSL_LOCKS_EXCLUDED(mu_);
  // One mark, then gives it. REQUIRES: the mark.
  absl::Status Mark() ABSL_LOCKS_EXCLUDED(mu_);
  // Makes durable until there is room for more chunks.
  absl::Status MakeRoom() ABSL_LOCKS_EXCLUDED(mu_);
  // The first of what was received, limits.mark_chunks at most and none behind one that is not good, once it is verified. REQUIRES: the
  // mark.
  std::deque<Slot> TakeSlots() ABSL_LOCKS_EXCLUDED(mu_);
  // Makes durable all but what TakeSlots gives at once; after an error it only waits for it. REQUIRES: the mark.
  absl::Status LeaveOneMark() ABSL_LOCKS_EXCLUDED(mu_);
  // REQUIRES: the mark.
  absl::Status MakeDurable(const std::deque<Slot>& slots, bool tell) ABSL_LOCKS_EXCLUDED(mu_);
  // REQUIRES: the mark; `slots` are what TakeSlots gave. After an error they are not recorded.
  absl::Status CommitWithMark(const v1::UploadCommit& commit, const format::RootDigest& root, const std::deque<Slot>& slots)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The snapshot of this session is there: the device is told, and the stream closed well.
  void TellCommitted(const catalog::CommitDone& committed, bool precopied) ABSL_LOCKS_EXCLUDED(mu_);
  // That of all records of the slots, which must be the same; `epoch` is that of others, if any.
  static absl::Status AddEpochs(const std::deque<Slot>& slots, std::optional<uint64_t>& epoch);
  static std::vector<catalog::ArrivedChunk> ChunksOf(const std::deque<Slot>& slots);
  void Fail(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status status() const;

  // Constant after construction.
  Ingest& ingest_;
  const DeviceId device_;
  const std::shared_ptr<UploadSink> sink_;
  const SnapshotId snapshot_;
  const SteadyTime opened_at_;

  // Handle's and End's alone.
  State state_ = State::kNew;
  v1::UploadBegin begin_;
  std::optional<ManifestBuilder> manifest_;  // without a base
  std::optional<PinnedManifest> pinned_;
  std::optional<DeltaBuilder> delta_;  // with one, or where chunks end anywhere
  uint64_t next_offer_ = 1;
  std::deque<Expected> expected_;
  catalog::BeginFacts facts_;
  bool holds_answers_ = false;
  std::vector<v1::UploadResponse> held_answers_;
  int64_t received_bytes_ = 0;  // payload of this stream's chunks
  int64_t told_received_ = 0;
  uint64_t commits_at_begin_ = 0;  // Ingest::commits of the database, before facts_ were read
  bool registered_ = false;
  bool claims_left_ = false;  // of a committed session

  mutable Mutex mu_;
  CondVar changed_;
  catalog::UploadSessionRow row_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;  // the sink was told
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Slot> slots_ ABSL_GUARDED_BY(mu_);  // received, not yet taken by a mark; references stay valid
  size_t unrecorded_ ABSL_GUARDED_BY(mu_) = 0;   // chunks received and not in the catalog: those of slots_, and what a mark has taken
  bool bad_ ABSL_GUARDED_BY(mu_) = false;        // a mark has come to one that is not good
  int64_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;   // payload that waits for verification
  int64_t unmarked_ ABSL_GUARDED_BY(mu_) = 0;    // payload in slots_
  SteadyTime marked_at_ ABSL_GUARDED_BY(mu_){};
  int64_t undurable_ ABSL_GUARDED_BY(mu_) = 0;                          // payload received and not durable: the window
  absl::flat_hash_set<format::ChunkName> recent_ ABSL_GUARDED_BY(mu_);  // received and not durable
  bool marking_ ABSL_GUARDED_BY(mu_) = false;
  bool mark_queued_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_UPLOAD_SESSION_H_
