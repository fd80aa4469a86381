// Pages from the controller: one call of AgentService.Fetch, every chunk decompressed and proven while the next ones arrive.
//
// Two threads open chunks, the caller's hands them on in order. Bounds: 8 chunks opened ahead, a few messages of under 1 MiB. What is not
// exactly what the order asks for, in the order in which it was asked for, ends the fetch. Thread safety: Fetch blocks and may be called
// from several threads for several restores; a cancel ends it within 100 ms, whatever it waits for.
#ifndef LITEFLEET_AGENT_RESTORE_STREAM_FETCHER_H_
#define LITEFLEET_AGENT_RESTORE_STREAM_FETCHER_H_

#include <chrono>

#include "agent/restore/fetch_sequence.h"
#include "agent/restore/fetch_stream.h"
#include "agent/restore/restorer.h"

namespace litefleet::restore {

class StreamFetcher final : public PageFetcher {
 public:
  struct Options {
    std::chrono::seconds connect_timeout{30};
    // Without a message for this long the call is given up, and may be made again.
    std::chrono::seconds message_timeout{60};
  };
  // `transport` outlives it.
  StreamFetcher(FetchTransport& transport, Options options) : transport_(transport), options_(options) {}

  absl::Status Fetch(const std::string& operation_id, const v1::RestoreOrder& order, uint32_t first_extent, const CancelToken& cancel,
                     const std::function<absl::Status(const FetchedExtent&)>& sink) override;
  absl::Status FetchNames(const std::string& operation_id, const v1::RestoreOrder& order, const CancelToken& cancel,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>& sink) override;
  absl::Status FetchPages(const std::string& operation_id, const v1::RestoreOrder& order, const WantedPages& wanted,
                          const CancelToken& cancel, const std::function<absl::Status(const FetchedPages&)>& sink) override;

 private:
  absl::StatusOr<std::unique_ptr<FetchStream>> Call(const v1::FetchRequest& request, const CancelToken& cancel);
  static absl::Status Run(FetchStream& stream, ChunkSequence& chunks, uint32_t page_size, const CancelToken& cancel,
                          const std::function<absl::Status(const ClaimedChunk&, ByteView)>& sink);

  FetchTransport& transport_;
  const Options options_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_STREAM_FETCHER_H_
