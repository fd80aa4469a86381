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

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

constexpr size_t kSlots = 8;
constexpr int kWorkers = 2;

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

  struct Opened {
    const ClaimedChunk* chunk = nullptr;  // null after the last
    ByteView raw;                         // proven to have the chunk's name
  };
  // The next chunk, valid until the next call. `cancel` is looked at every 100 ms.
  absl::StatusOr<Opened> Next(const CancelToken& cancel) {
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
      return Opened{};
    }
    if (!slot.status.ok()) return slot.status;
    lent_ = true;
    return Opened{&slot.chunk, slot.raw};
  }

 private:
  struct Slot {
    bool ready = false;
    ClaimedChunk chunk;
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

// While it lives, a cancel ends the stream: whoever waits in its Read returns.
class CancelWatch {
 public:
  CancelWatch(FetchStream& stream, const CancelToken& cancel)
      : thread_([this, &stream, &cancel] {
          {
            MutexLock lock(mu_);
            while (!stop_ && !cancel.cancelled()) changed_.WaitUntil(mu_, steady_clock::now() + std::chrono::milliseconds(50));
            if (stop_) return;
          }
          stream.Cancel();
        }) {}
  ~CancelWatch() {
    {
      MutexLock lock(mu_);
      stop_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }
  CancelWatch(const CancelWatch&) = delete;
  CancelWatch& operator=(const CancelWatch&) = delete;

 private:
  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FetchStream>> StreamFetcher::Call(const v1::FetchRequest& request, const CancelToken& cancel) {
  return transport_.Open(request, steady_clock::now() + options_.connect_timeout, cancel);
}

absl::Status StreamFetcher::Run(FetchStream& stream, ChunkSequence& chunks, uint32_t page_size, const CancelToken& cancel,
                                const std::function<absl::Status(const ClaimedChunk&, ByteView)>& sink) {
  Pipeline pipeline(chunks, page_size);
  absl::Status status;
  for (;;) {
    const auto opened = pipeline.Next(cancel);
    status = opened.status();
    if (!status.ok() || opened->chunk == nullptr) break;
    status = sink(*opened->chunk, opened->raw);
    if (!status.ok()) break;
  }
  stream.Cancel();  // so that no worker waits for a message any more
  return status;
}

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
  LF_ASSIGN_OR_RETURN(const auto stream, Call(request, cancel));
  ExtentSequence chunks(*stream, order, first_extent, options_.message_timeout);
  return Run(*stream, chunks, order.page_size(), cancel, [&](const ClaimedChunk& chunk, ByteView raw) {
    return sink({(chunk.runs[0].first_page - 1) / format::PagesPerExtent(order.page_size()), chunk.name, raw,
                 static_cast<int64_t>(chunk.data.size())});
  });
}

absl::Status StreamFetcher::FetchNames(const std::string& operation_id, const v1::RestoreOrder& order, const CancelToken& cancel,
                                       const std::function<absl::Status(std::span<const format::ChunkName>)>& sink) {
  v1::FetchRequest request;
  request.set_operation_id(operation_id);
  request.set_snapshot_id(order.snapshot_id());
  request.set_names_only(true);
  LF_ASSIGN_OR_RETURN(const auto stream, Call(request, cancel));
  NameSequence sequence(*stream, order, options_.message_timeout);
  const CancelWatch watch(*stream, cancel);
  for (;;) {
    const absl::StatusOr<std::vector<format::ChunkName>> names = sequence.NextNames();
    if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
    LF_RETURN_IF_ERROR(names.status());
    if (names->empty()) return absl::OkStatus();
    LF_RETURN_IF_ERROR(sink(*names));
  }
}

absl::Status StreamFetcher::FetchPages(const std::string& operation_id, const v1::RestoreOrder& order, const WantedPages& wanted,
                                       const CancelToken& cancel, const std::function<absl::Status(const FetchedPages&)>& sink) {
  v1::FetchRequest request;
  request.set_operation_id(operation_id);
  request.set_snapshot_id(order.snapshot_id());
  request.set_have(wanted.have);
  for (const PageRange& pages : wanted.runs) {
    v1::PageRun& run = *request.add_runs();
    run.set_first_page(pages.first_page);
    run.set_page_count(pages.page_count);
  }
  LF_ASSIGN_OR_RETURN(const auto stream, Call(request, cancel));
  PageSequence chunks(*stream, order, wanted, options_.message_timeout);
  return Run(*stream, chunks, order.page_size(), cancel, [&](const ClaimedChunk& chunk, ByteView raw) {
    return sink({chunk.runs, raw, static_cast<int64_t>(chunk.data.size())});
  });
}

}  // namespace litefleet::restore
