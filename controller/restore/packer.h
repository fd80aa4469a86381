// Compresses what was put together, the chunks of a message at a time, with the help of another thread where one is free: a restore of the
// newest of many deltas takes all its extents from several chunks each, and zstd takes longer than everything else that is done for it.
//
// The caller does whatever nobody else has begun, so it waits for no queue: only for chunks that another thread is compressing.
// Thread safety: none; Pack by one thread at a time. Memory: two zstd contexts (about 1 MiB each at level 1).
#ifndef LITEFLEET_CONTROLLER_RESTORE_PACKER_H_
#define LITEFLEET_CONTROLLER_RESTORE_PACKER_H_

#include <memory>
#include <span>

#include "absl/status/status.h"
#include "common/base/executor.h"
#include "common/format/chunk_codec.h"
#include "controller/restore/snapshot_reader.h"

namespace litefleet::restore {

class Packer {
 public:
  // `helpers` outlives it, and must not be full of tasks that wait for each other; null: nobody helps.
  Packer(Executor* helpers, int level);

  // Makes `data` of each that was put together. After an error some have theirs and some do not.
  absl::Status Pack(std::span<StoredChunk> chunks);

 private:
  Executor* const helpers_;
  format::ChunkCompressor own_;
  // Of the one task that helps: it may be found out late that there is nothing left to do.
  const std::shared_ptr<format::ChunkCompressor> helpers_own_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_PACKER_H_
