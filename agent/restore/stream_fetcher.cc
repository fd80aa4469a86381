#include "agent/restore/stream_fetcher.h"

#include <algorithm>
#include <array>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

constexpr size_t kSlots = 8;
constexpr int kWorkers = 2;

absl::Status Invalid(std::string_view why) {
  return Error(Code::kDataLoss, "FETCH_INVALID", fmt::format("the controller did not send what the order asks for: {}", why),
               "bring agent and controller to the same version; look at the controller's log");
}

// A chunk as it came, its claims checked against the order.
struct Claimed {
  uint32_t extent = 0;
  uint32_t raw_bytes = 0;
  format::ChunkName name;
  format::Codec codec = format::Codec::kRaw;
  std::string data;
};

// The stream as a sequence of chunks, which must be exactly the extents that were asked for.
class ChunkSequence {
 public:
  ChunkSequence(FetchStream& stream, const v1::RestoreOrder& order, uint32_t first_extent, std::chrono::seconds timeout)
      : stream_(stream),
        order_(order),
        next_(first_extent),
        end_(format::ExtentCount(order.page_size(), order.page_count())),
        timeout_(timeout) {}

  // Nothing after the last extent.
  absl::StatusOr<std::optional<Claimed>> Next() {
    if (next_ == end_) return std::nullopt;
    while (!header_seen_ || at_ == message_.chunks().chunks_size()) LF_RETURN_IF_ERROR(ReadMessage());
    return Take(*message_.mutable_chunks()->mutable_chunks(at_++));
  }

 private:
  absl::Status ReadMessage() {
    LF_ASSIGN_OR_RETURN(const bool more, stream_.Read(message_, steady_clock::now() + timeout_));
    if (!more) return Error(Code::kUnavailable, "FETCH_CUT", fmt::format("the stream ended before extent {} of {}", next_, end_));
    at_ = 0;
    if (message_.has_header() == header_seen_) return Invalid("a header where none belongs, or none where one does");
    if (!header_seen_) {
      header_seen_ = true;
      const v1::FetchHeader& header = message_.header();
      if (header.page_size() != order_.page_size() || header.page_count() != order_.page_count() ||
          header.root_digest() != order_.root_digest() || header.root_version() != order_.root_version()) {
        return Invalid("another snapshot");
      }
      message_.Clear();
      return absl::OkStatus();
    }
    if (!message_.has_chunks() || message_.chunks().chunks().empty()) return Invalid("a message without chunks");
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<Claimed>> Take(v1::FetchedChunk& fetched) {
    const uint32_t pages = format::PagesIn(order_.page_size(), order_.page_count(), next_);
    const auto name = format::ChunkName::FromBytes(fetched.chunk().name());
    if (fetched.runs_size() != 1 || fetched.runs(0).first_page() != format::FirstPageOf(order_.page_size(), next_) ||
        fetched.runs(0).page_count() != pages) {
      return Invalid(fmt::format("other pages where those of extent {} were next", next_));
    }
    if (!name.has_value() || fetched.chunk().raw_bytes() != pages * order_.page_size() ||
        fetched.chunk().data().size() > format::kExtentBytes) {
      return Invalid(fmt::format("a chunk of another size for extent {}", next_));
    }
    Claimed claimed;
    switch (fetched.chunk().codec()) {
      case v1::CODEC_RAW:
        claimed.codec = format::Codec::kRaw;
        break;
      case v1::CODEC_ZSTD:
        claimed.codec = format::Codec::kZstd;
        break;
      default:
        return Invalid("an unknown codec");
    }
    claimed.extent = next_++;
    claimed.raw_bytes = fetched.chunk().raw_bytes();
    claimed.name = *name;
    claimed.data = std::move(*fetched.mutable_chunk()->mutable_data());
    return claimed;
  }

  FetchStream& stream_;
  const v1::RestoreOrder& order_;
  uint32_t next_;
  const uint32_t end_;
  const std::chrono::seconds timeout_;
  v1::FetchResponse message_;
  int at_ = 0;
  bool header_seen_ = false;
};

// Workers take chunks in turn, open them beside each other, and put them into a ring; one thread takes them out in order.
class Pipeline {
 public:
  Pipeline(ChunkSequence& chunks, uint32_t page_size) : chunks_(chunks), page_size_(page_size) {
    for (std::thread& worker : workers_) worker = std::thread([this] { Work(); });
  }
  // REQUIRES: the stream has been cancelled, or its end was seen.
  ~Pipeline() {
    {
      MutexLock lock(mu_);
      stop_ = true;
      changed_.SignalAll();
    }
    for (std::thread& worker : workers_) worker.join();
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // The next extent, valid until the next call; nothing after the last. `cancel` is looked at every 100 ms.
  absl::StatusOr<std::optional<FetchedExtent>> Next(const CancelToken& cancel) {
    MutexLock lock(mu_);
    if (lent_) {
      slots_[consumed_++ % kSlots].ready = false;
      lent_ = false;
      changed_.SignalAll();
    }
    Slot& slot = slots_[consumed_ % kSlots];
    while (!slot.ready && !(ended_ && consumed_ == taken_)) {
      if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
      changed_.WaitUntil(mu_, steady_clock::now() + std::chrono::milliseconds(100));
    }
    if (!slot.ready) {
      if (!end_.ok()) return end_;
      return std::nullopt;
    }
    if (!slot.status.ok()) return slot.status;
    lent_ = true;
    return FetchedExtent{slot.chunk.extent, slot.chunk.name, slot.raw, static_cast<int64_t>(slot.chunk.data.size())};
  }

 private:
  struct Slot {
    bool ready = false;
    Claimed chunk;
    Bytes raw;
    absl::Status status;
  };

  void Work() {
    format::ChunkDecompressor decompressor;
    for (;;) {
      Slot* slot = TakeTurn();
      if (slot == nullptr) return;
      absl::Status status =
          decompressor.Open(slot->chunk.codec, AsBytes(slot->chunk.data), slot->chunk.raw_bytes, page_size_, slot->chunk.name, slot->raw);
      MutexLock lock(mu_);
      slot->status = std::move(status);
      slot->ready = true;
      changed_.SignalAll();
    }
  }

  // The next chunk in a slot of its own; null at the end.
  Slot* TakeTurn() {
    const MutexLock turn(turn_mu_);
    uint64_t number;
    {
      MutexLock lock(mu_);
      while (!stop_ && !ended_ && taken_ - consumed_ == kSlots) changed_.Wait(mu_);
      if (stop_ || ended_) return nullptr;
      number = taken_;
    }
    auto chunk = chunks_.Next();
    MutexLock lock(mu_);
    if (!chunk.ok() || !chunk->has_value()) {
      ended_ = true;
      end_ = chunk.status();
      changed_.SignalAll();
      return nullptr;
    }
    Slot& slot = slots_[number % kSlots];
    slot.chunk = std::move(**chunk);
    ++taken_;
    return &slot;
  }

  ChunkSequence& chunks_;  // by whoever has the turn
  const uint32_t page_size_;
  // Lock order: turn_mu_, mu_. The turn is held while a message is waited for: it is what makes chunks come in order.
  Mutex turn_mu_;
  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mu_);
  uint64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t consumed_ ABSL_GUARDED_BY(mu_) = 0;
  bool lent_ ABSL_GUARDED_BY(mu_) = false;
  // A slot belongs to its worker from TakeTurn until `ready`, then to Next.
  std::array<Slot, kSlots> slots_;
  std::array<std::thread, kWorkers> workers_;
};

}  // namespace

absl::Status StreamFetcher::Fetch(const std::string& operation_id, const v1::RestoreOrder& order, uint32_t first_extent,
                                  const CancelToken& cancel, const std::function<absl::Status(const FetchedExtent&)>& sink) {
  if (first_extent >= format::ExtentCount(order.page_size(), order.page_count())) return absl::OkStatus();
  v1::FetchRequest request;
  request.set_operation_id(operation_id);
  request.set_snapshot_id(order.snapshot_id());
  if (first_extent > 0) {
    v1::PageRun& run = *request.add_runs();
    run.set_first_page(format::FirstPageOf(order.page_size(), first_extent));
    run.set_page_count(order.page_count() - run.first_page() + 1);
  }
  LF_ASSIGN_OR_RETURN(const auto stream, transport_.Open(request, steady_clock::now() + options_.connect_timeout, cancel));
  ChunkSequence chunks(*stream, order, first_extent, options_.message_timeout);
  absl::Status status;
  {
    Pipeline pipeline(chunks, order.page_size());
    for (;;) {
      auto extent = pipeline.Next(cancel);
      status = extent.status();
      if (!status.ok() || !extent->has_value()) break;
      status = sink(**extent);
      if (!status.ok()) break;
    }
    stream->Cancel();  // so that no worker waits for a message any more
  }
  return status;
}

}  // namespace litefleet::restore
