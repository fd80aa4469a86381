#include "agent/heal/healer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "agent/heal/wanted_gatherer.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::heal {
namespace {

// With one chunk it may be larger by what describes that. On a slow link nothing else is heard while a message goes.
constexpr size_t kMessageBytes = format::kExtentBytes;
constexpr int kLevel = 3;
constexpr std::chrono::milliseconds kPause{1000};

SteadyTime Now() { return std::chrono::steady_clock::now(); }

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the operation was cancelled"); }

class Heal {
 public:
  Heal(const HealJob& job, WantedSender& sender, RateLimit& rate, const CancelToken& cancel,
       const std::function<void(const v1::Progress&)>& progress)
      : job_(job), sender_(sender), rate_(rate), cancel_(cancel), report_(progress) {}

  HealOutcome Run() {
    HealOutcome outcome;
    outcome.status = Passes();
    if (outcome.status.ok()) {
      progress_.set_done_bytes(progress_.total_bytes());
      progress_.set_phase("done");
    }
    outcome.progress = progress_;
    outcome.found = found_;
    return outcome;
  }

 private:
  struct Kept {
    uint32_t position = 0;
    format::ChunkName name;
    format::Codec codec = format::Codec::kRaw;
    uint32_t raw_bytes = 0;
    uint32_t stored_bytes = 0;
    uint64_t offset = 0;
  };

  absl::Status Passes() {
    LF_RETURN_IF_ERROR(WantedGatherer::Check(job_.order));
    std::vector<uint32_t> positions;
    for (int i = 0; i < job_.order.wanted_size(); ++i) positions.push_back(static_cast<uint32_t>(i));
    while (!positions.empty()) {
      WantedGatherer gatherer(job_.order, positions);
      std::vector<Kept> kept;
      LF_ASSIGN_OR_RETURN(const io::UniqueFd file, io::Open(job_.spool_file, O_RDWR | O_CREAT | O_TRUNC));
      const auto remove = absl::MakeCleanup([this] { unlink(job_.spool_file.c_str()); });
      LF_RETURN_IF_ERROR(Read(gatherer, file.get(), kept));
      LF_RETURN_IF_ERROR(SendAll(file.get(), kept));
      // Each pass looks at some at least.
      positions = gatherer.skipped();
    }
    v1::SendWantedRequest last;
    last.set_last(true);
    return Send(last);
  }

  absl::Status Read(WantedGatherer& gatherer, int file, std::vector<Kept>& kept) {
    Phase("opening");
    LF_ASSIGN_OR_RETURN(const std::unique_ptr<capture::PageSource> source, job_.open());
    const uint32_t page_size = source->info().page_size;
    // It was made anew with other pages: nothing of it can be what was lost.
    if (page_size != job_.order.page_size()) return absl::OkStatus();
    progress_.set_total_bytes(static_cast<int64_t>(format::DatabaseBytes(page_size, source->info().page_count)));
    LF_ASSIGN_OR_RETURN(const uint64_t reserve, job_.reserve.At(job_.spool_file));
    format::ChunkCompressor compressor(kLevel);
    std::vector<format::PageDigest> digests;
    std::string packed;
    uint64_t end = 0;
    int64_t read = 0;
    for (;;) {
      if (cancel_.cancelled()) return Cancelled();
      LF_ASSIGN_OR_RETURN(const std::optional<capture::ExtentPages> pages, source->Next());
      if (!pages) break;
      digests.clear();
      format::DigestPages(page_size, pages->data, digests);
      gatherer.Look(format::FirstPageOf(page_size, pages->extent), pages->data, digests);
      read += static_cast<int64_t>(pages->data.size());
      while (std::optional<WantedGatherer::Found> found = gatherer.TakeFound()) {
        LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(job_.spool_file));
        if (free < reserve + found->raw.size()) {
          return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                       fmt::format("{} bytes are free where {} is, and a reserve of {} stays free", free, job_.spool_file, reserve),
                       "free space where the state directory is; the reserve is `[limits] disk_reserve` of agent.toml");
        }
        Kept one{.position = found->position, .name = found->name, .raw_bytes = static_cast<uint32_t>(found->raw.size())};
        LF_ASSIGN_OR_RETURN(one.codec, compressor.Compress(found->raw, packed));
        one.stored_bytes = static_cast<uint32_t>(packed.size());
        one.offset = end;
        LF_RETURN_IF_ERROR(io::PwriteAll(file, AsBytes(packed), end, job_.spool_file));
        end += packed.size();
        kept.push_back(one);
      }
      progress_.set_done_bytes(std::max(progress_.done_bytes(), std::min(read, progress_.total_bytes())));
      Report("reading");
    }
    // What was read stands, whatever letting go says.
    source->Close().IgnoreError();
    found_ += static_cast<uint32_t>(kept.size());
    return absl::OkStatus();
  }

  absl::Status SendAll(int file, const std::vector<Kept>& kept) {
    v1::SendWantedRequest request;
    size_t bytes = 0;
    for (size_t i = 0; i < kept.size(); ++i) {
      const Kept& one = kept[i];
      v1::WantedContent& content = *request.add_contents();
      content.set_position(one.position);
      v1::ChunkData& chunk = *content.mutable_chunk();
      chunk.set_name(std::string(one.name.AsString()));
      chunk.set_codec(static_cast<v1::Codec>(one.codec));
      chunk.set_raw_bytes(one.raw_bytes);
      chunk.mutable_data()->resize(one.stored_bytes);
      LF_RETURN_IF_ERROR(io::PreadAll(file, std::as_writable_bytes(std::span(*chunk.mutable_data())), one.offset, job_.spool_file));
      bytes += one.stored_bytes;
      if (i + 1 < kept.size() && bytes + kept[i + 1].stored_bytes <= kMessageBytes) continue;
      LF_RETURN_IF_ERROR(Send(request));
      progress_.set_wire_bytes(progress_.wire_bytes() + static_cast<int64_t>(bytes));
      request.clear_contents();
      bytes = 0;
    }
    return absl::OkStatus();
  }

  // As often as the link needs.
  absl::Status Send(v1::SendWantedRequest& request) {
    request.set_operation_id(job_.operation_id);
    Phase("sending");
    for (;;) {
      while (rate_.Budget(Now()) <= 0) LF_RETURN_IF_ERROR(Pause(std::chrono::milliseconds(50)));
      if (job_.waits) job_.waits(true);
      const absl::Status connected = sender_.WaitConnected(job_.give_up_at, cancel_);
      if (job_.waits) job_.waits(false);
      LF_RETURN_IF_ERROR(connected);
      rate_.Spend(static_cast<int64_t>(request.ByteSizeLong()));
      const absl::StatusOr<v1::SendWantedResponse> sent = sender_.Send(request, cancel_);
      if (sent.ok()) return absl::OkStatus();
      if (cancel_.cancelled()) return Cancelled();
      const bool link = absl::IsUnavailable(sent.status()) || absl::IsDeadlineExceeded(sent.status());
      if (!link || Now() >= job_.give_up_at) return sent.status();
      LF_RETURN_IF_ERROR(Pause(kPause));
    }
  }

  absl::Status Pause(std::chrono::milliseconds delay) {
    const SteadyTime until = Now() + delay;
    while (!cancel_.cancelled() && Now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return cancel_.cancelled() ? Cancelled() : absl::OkStatus();
  }

  void Phase(const char* phase) {
    progress_.set_phase(phase);
    report_(progress_);
    reported_at_ = Now();
  }
  void Report(const char* phase) {
    progress_.set_phase(phase);
    if (Now() - reported_at_ < std::chrono::milliseconds(250)) return;
    Phase(phase);
  }

  const HealJob& job_;
  WantedSender& sender_;
  RateLimit& rate_;
  const CancelToken& cancel_;
  const std::function<void(const v1::Progress&)>& report_;
  v1::Progress progress_;
  SteadyTime reported_at_{};
  uint32_t found_ = 0;
};

}  // namespace

HealOutcome RunHeal(const HealJob& job, WantedSender& sender, RateLimit& rate, const CancelToken& cancel,
                    const std::function<void(const v1::Progress&)>& progress) {
  return Heal(job, sender, rate, cancel, progress).Run();
}

}  // namespace litefleet::heal
