// The second half of a download, on a thread of its own: pages are decompressed, hashed and written while the caller receives more.
//
// Thread safety: one caller, who gives messages in order; bytes() from any thread. Memory: eight messages (256 KiB each, less what
// compression saves) and one decompressed. The destructor forgets what waits and joins; it waits for a write that is under way.
#ifndef LITEFLEET_CONTROLLER_CLI_PAGE_WRITER_H_
#define LITEFLEET_CONTROLLER_CLI_PAGE_WRITER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/mutex.h"
#include "common/format/chunk_codec.h"
#include "controller/cli/download.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

class PageWriter {
 public:
  using Write = std::function<absl::Status(ByteView)>;
  // `write` is called on the thread, in order.
  PageWriter(RootVerifier verifier, Write write);
  ~PageWriter();
  PageWriter(const PageWriter&) = delete;
  PageWriter& operator=(const PageWriter&) = delete;

  // Waits while eight wait. Errors: the first of what was given before: of `write`, of RootVerifier, kDataLoss CHUNK_DAMAGED.
  absl::Status Add(v1::DownloadPages pages);
  // When everything is written: what the root digest says. Errors: as Add, and those of RootVerifier::Finish.
  absl::Status Finish();
  // Decompressed and written.
  int64_t bytes() const { return bytes_; }

 private:
  void Run();
  absl::Status Handle(const v1::DownloadPages& pages);

  // The thread's until it was joined.
  RootVerifier verifier_;
  const Write write_;
  format::ChunkDecompressor decompressor_;
  Bytes raw_;

  std::atomic<int64_t> bytes_{0};
  Mutex mu_;
  CondVar changed_;
  std::deque<v1::DownloadPages> waiting_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool complete_ ABSL_GUARDED_BY(mu_) = false;  // nothing more comes
  std::thread thread_;                          // last: it uses the rest
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_PAGE_WRITER_H_
