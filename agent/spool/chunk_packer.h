// Compresses chunks beside the thread that reads the database, and adds them to a file in their order: while a transaction is pinned nobody
// waits for a high level of compression. What the compressor has not dealt with when more than kMaxWaiting chunks wait is compressed by the
// reading thread, at level 1, which takes about as long as reading it.
//
//   LF_RETURN_IF_ERROR(packer.Add(chunk));      // for each, while the source is read
//   LF_RETURN_IF_ERROR(packer.Finish(cancel));  // when it has been let go: waits for what is left
//
// Thread safety: one thread uses it; payloads are packed on another one, and may be asked for their content meanwhile. Memory: kMaxWaiting
// chunks and a compressor; at level 1 one chunk. Errors: those of the file and of the payloads; CANCELLED.
#ifndef LITEFLEET_AGENT_SPOOL_CHUNK_PACKER_H_
#define LITEFLEET_AGENT_SPOOL_CHUNK_PACKER_H_

#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/spool/spool_file.h"
#include "agent/upload/session.h"
#include "common/base/cancel_token.h"
#include "common/base/mutex.h"
#include "common/format/chunk_codec.h"

namespace litefleet::spool {

class ChunkPacker {
 public:
  static constexpr size_t kMaxWaiting = 8;

  // `writer` outlives it.
  ChunkPacker(SpoolFileWriter& writer, int level);
  // What was not finished is dropped.
  ~ChunkPacker();
  ChunkPacker(const ChunkPacker&) = delete;
  ChunkPacker& operator=(const ChunkPacker&) = delete;

  // REQUIRES: ascending pages; the payload is a PackablePayload.
  absl::Status Add(upload::Chunk chunk);
  // A cancel is seen within 100 ms.
  absl::Status Finish(const CancelToken& cancel);

 private:
  // Of one chunk; all but `chunk` under mu_.
  struct Job {
    upload::Chunk chunk;
    bool begun = false;
    bool done = false;
    absl::StatusOr<upload::PackedChunk> packed = upload::PackedChunk{};
  };

  void Run();
  // Adds what is done to the file, and what is not as long as more than so many wait.
  absl::Status Store(size_t may_wait);
  absl::Status Write(const upload::Chunk& chunk, absl::StatusOr<upload::PackedChunk> packed);
  absl::StatusOr<upload::PackedChunk> PackFast(const upload::Chunk& chunk);

  SpoolFileWriter& writer_;
  const int level_;
  format::ChunkCompressor fast_;

  Mutex mu_;
  CondVar changed_;
  std::deque<std::shared_ptr<Job>> jobs_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // none at level 1
};

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_CHUNK_PACKER_H_
