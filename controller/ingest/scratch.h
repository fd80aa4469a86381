// Objects that are dear to make and are used for a moment. There are as many as were ever used at once, however many threads use them; the
// one that was used last comes first, so that its memory is in the caches.
//
// Thread safety: Take and giving back from any thread. Ownership: what was taken is given back before the Scratch goes.
#ifndef LITEFLEET_CONTROLLER_INGEST_SCRATCH_H_
#define LITEFLEET_CONTROLLER_INGEST_SCRATCH_H_

#include <memory>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/mutex.h"
#include "common/format/chunk_codec.h"

namespace litefleet::ingest {

template <typename T>
class Scratch {
 public:
  struct GiveBack {
    Scratch* scratch;
    void operator()(T* object) const { scratch->Give(std::unique_ptr<T>(object)); }
  };
  using Taken = std::unique_ptr<T, GiveBack>;

  // As it was left.
  Taken Take() {
    std::unique_ptr<T> object;
    {
      MutexLock lock(mu_);
      if (!free_.empty()) {
        object = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (object == nullptr) object = std::make_unique<T>();
    return Taken(object.release(), GiveBack{this});
  }

 private:
  void Give(std::unique_ptr<T> object) {
    MutexLock lock(mu_);
    free_.push_back(std::move(object));
  }

  Mutex mu_;
  std::vector<std::unique_ptr<T>> free_ ABSL_GUARDED_BY(mu_);
};

// What an upload uses to verify a chunk, and to write one of the controller's own: at most 350 KiB and 1 MiB or so.
struct OpenScratch {
  format::ChunkDecompressor decompressor;
  Bytes raw;
};
struct WriteScratch {
  format::ChunkCompressor compressor{3};
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_SCRATCH_H_
