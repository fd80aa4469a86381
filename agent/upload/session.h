// One attempt of an upload as a state machine, without gRPC, threads or clocks.
//
//   begin -> accepted -> offers, chunks -> commit -> committed
//
// With a base the first offers follow the begin at once: what they say holds whatever is accepted, and a round trip is saved. The commit
// waits. A small sync of continuous capture waits for nothing: where the controller takes that, it is one message (UploadWhole), and what
// the controller does not take of it goes on as any other upload. The producer offers chunks in ascending order of pages; the controller
// answers each offer with the positions that it wants; those are compressed (by whoever drives this) and sent in the order of the offers,
// within the windows. Memory: at most `max_raw_chunks` chunks of 256 KiB are held between offer and answer or compression, and at most
// `max_packed_bytes` of compressed ones; a message is at most 256 KiB, and a little for names.
//
// Not for several attempts: a cut link needs a new object with the same session_id. Thread safety: none. Errors: what the peer does
// against the protocol is kInternal UPLOAD_PROTOCOL.
#ifndef LITEFLEET_AGENT_UPLOAD_SESSION_H_
#define LITEFLEET_AGENT_UPLOAD_SESSION_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::upload {

// Where the content of a chunk is until it is sent. Memory comes back to its owner when the last reference goes.
struct Payload {
  virtual ~Payload() = default;
};

struct PageRun {
  uint32_t first_page = 0;  // 1-based
  uint32_t page_count = 0;
};

// An extent, or pages that have changed, with their name and whatever holds their content.
struct Chunk {
  format::ChunkName name;
  std::vector<PageRun> runs;  // ascending; one for an extent
  uint32_t raw_bytes = 0;
  std::shared_ptr<Payload> payload;
  // What is left of extents that the controller has with another content.
  bool compared = false;
  // Where the ledger has these pages, in their order; empty: nowhere.
  std::vector<PageRun> sources = {};
};

// An extent of which the controller has another content: the first bytes of the digests of its pages.
struct Differing {
  Chunk chunk;
  std::string page_digests;
};

struct PackedChunk {
  format::Codec codec = format::Codec::kRaw;
  std::string data;
};

class UploadSession {
 public:
  struct Limits {
    // Offers are sent when they have this many chunks, or when the producer waits.
    size_t chunks_per_offer = 4;
    size_t max_raw_chunks = 12;
    size_t max_packed_bytes = 1 << 20;
    // A message is sent when the next chunk would make it larger than this, or when nothing else is on its way to it. A chunk that is
    // larger has a message of its own.
    size_t message_bytes = 256 << 10;
    // With a base: chunks that are offered before the controller has accepted.
    uint32_t early_chunks = 8;
    // A sync may be one message, with so much content (raw) at most; 0: never.
    uint32_t whole_bytes = 64 << 10;
  };
  struct Counts {
    int64_t dealt_bytes = 0;  // raw: found at the controller, or sent
    int64_t sent_raw_bytes = 0;
    int64_t wire_bytes = 0;     // payload sent
    int64_t durable_bytes = 0;  // payload durable
    uint64_t answered_chunks = 0;
    uint64_t durable_chunks = 0;  // of the session, in streams before this one too, as last heard
    bool held_back = false;       // by the own rate; Attempt says so
    // The attempt ended because what was to be sent could not be read on this device, and not because of the link; Attempt says so.
    bool source_failed = false;
  };

  // A chunk to compress; give it back with the same number.
  struct Wanted {
    uint64_t number = 0;
    Chunk chunk;
  };

  UploadSession(v1::UploadBegin begin, Limits limits);

  // Producer.
  // The controller has accepted or need not have, and there is room for one more chunk.
  bool CanOffer() const;
  // REQUIRES: CanOffer(), but for what is left of differing extents.
  void Offer(Chunk chunk);
  // An extent whose pages are to be compared, and what differs to be offered again.
  std::optional<Differing> TakeDiffering();
  bool has_differing() const { return !differing_.empty(); }
  // Nothing has been sent, and what was offered up to now would be one message: nothing is to be waited for before Commit.
  bool whole() const { return whole_; }
  // Such a message was sent.
  bool sent_whole() const { return sent_whole_; }
  // Accepted, everything that was offered has been answered, and nothing waits to be compared.
  bool settled() const { return accepted_ && gathering_.empty() && offered_.empty() && differing_.empty(); }
  // Sends what has gathered, however little: the producer is about to wait.
  void FlushOffers();
  // Where the controller tells what it has taken out: no more than this is sent beyond it.
  void LimitUnreceived(int64_t bytes) { most_unreceived_ = bytes; }
  // After the last Offer, once.
  void Commit(v1::UploadCommit commit);

  // Compressor. Chunks come in order, several may be out at once.
  std::optional<Wanted> TakeWanted();
  void GivePacked(uint64_t number, PackedChunk packed);

  // Transport.
  // The next message, if one can be sent now. `budget` bounds the payload of chunks (a rate limit); what does not fit waits.
  std::optional<v1::UploadRequest> NextRequest(int64_t budget = INT64_MAX);
  absl::Status OnResponse(const v1::UploadResponse& response);

  bool accepted() const { return accepted_; }
  // What the controller compares with; empty: nothing. REQUIRES: accepted().
  const std::string& base() const { return base_; }
  const std::string& base_root() const { return base_root_; }
  bool committed() const { return committed_.has_value(); }
  // The commit was sent, and the answer is awaited.
  bool commit_sent() const { return commit_sent_; }
  // What is to be done next is the controller's or the link's: there is nothing to compress.
  bool waits_for_network() const;
  // The controller can keep what is of no single moment. REQUIRES: accepted().
  bool can_precopy() const { return can_precopy_; }
  // As UploadAccepted.can_size_at_commit. REQUIRES: accepted().
  bool can_size_at_commit() const { return can_size_at_commit_; }
  // The controller takes uploads in one message. REQUIRES: accepted().
  bool takes_whole() const { return takes_whole_; }
  // A chunk message is ready, but for the budget.
  bool has_chunks_ready() const { return !ready_.empty() && ready_.front().packed.has_value(); }
  // REQUIRES: committed().
  const v1::UploadCommitted& result() const { return *committed_; }
  const Counts& counts() const { return counts_; }
  // Of this stream; of what was sent only where the controller tells what it has taken out.
  int64_t received_bytes() const { return received_bytes_; }
  int64_t unreceived_bytes() const { return receive_window_bytes_ > 0 ? sent_bytes_ - received_bytes_ : 0; }

 private:
  struct SentOffer {
    uint64_t id = 0;
    std::vector<Chunk> chunks;
  };
  struct Sending {
    uint64_t number = 0;
    Chunk chunk;
    std::optional<PackedChunk> packed;
  };

  std::optional<v1::UploadRequest> NextChunks(int64_t budget);
  // Once all of it is packed.
  std::optional<v1::UploadRequest> NextWhole(int64_t budget);
  static void FillOffer(const std::vector<Chunk>& chunks, v1::UploadOffer& offer);
  void FillData(Sending sending, v1::ChunkData& data);
  v1::UploadCommit CommitNow() const;
  absl::Status OnMissing(const v1::UploadMissing& missing);
  size_t raw_chunks() const;

  const Limits limits_;
  std::optional<v1::UploadBegin> begin_;  // until sent
  bool accepted_ = false;
  bool can_precopy_ = false;
  bool can_size_at_commit_ = false;
  bool takes_whole_ = false;
  bool whole_ = false;
  bool sent_whole_ = false;
  int64_t window_bytes_ = 0;
  int64_t receive_window_bytes_ = 0;  // 0: none
  int64_t most_unreceived_ = INT64_MAX;
  int64_t sent_bytes_ = 0;  // payload of chunk messages of this stream, and how much of it was taken out there
  int64_t received_bytes_ = 0;
  uint32_t max_offered_;           // before `accepted` the early ones
  std::deque<int64_t> undurable_;  // sizes of what was sent and is not durable yet; bounded by the window

  std::vector<Chunk> gathering_;
  bool flush_ = false;
  uint64_t next_offer_ = 1;
  std::deque<SentOffer> offered_;  // unanswered, in order
  size_t offered_chunks_ = 0;

  std::string base_;
  std::string base_root_;
  std::deque<Differing> differing_;
  std::deque<Chunk> wanted_;  // answered as missing, nobody has taken them
  uint64_t next_number_ = 1;
  std::deque<Sending> ready_;  // taken, in order; the first ones with `packed` can be sent
  size_t packed_bytes_ = 0;    // of ready_

  std::optional<v1::UploadCommit> commit_;
  bool commit_sent_ = false;
  std::optional<v1::UploadCommitted> committed_;
  Counts counts_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_SESSION_H_
