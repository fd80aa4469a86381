#include "agent/restore/limited_fetch.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/status.h"

namespace litefleet::restore {
namespace {

constexpr std::chrono::milliseconds kLook{20};

class LimitedStream final : public FetchStream {
 public:
  LimitedStream(std::unique_ptr<FetchStream> inner, RateLimit& rate) : inner_(std::move(inner)), rate_(rate) {}

  // The deadline is the peer's: the time that is waited for the rate is not counted.
  absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime deadline) override {
    const SteadyTime began = std::chrono::steady_clock::now();
    while (rate_.Budget(std::chrono::steady_clock::now()) <= 0) {
      if (cancelled_.load()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the fetch was cancelled");
      std::this_thread::sleep_for(kLook);
    }
    if (deadline != SteadyTime::max()) deadline += std::chrono::steady_clock::now() - began;
    absl::StatusOr<bool> read = inner_->Read(response, deadline);
    if (read.ok() && *read) rate_.Spend(static_cast<int64_t>(response.ByteSizeLong()));
    return read;
  }
  void Cancel() override {
    cancelled_.store(true);
    inner_->Cancel();
  }

 private:
  const std::unique_ptr<FetchStream> inner_;
  RateLimit& rate_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<FetchStream>> LimitedFetchTransport::Open(const v1::FetchRequest& request, SteadyTime deadline,
                                                                         const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(std::unique_ptr<FetchStream> stream, inner_->Open(request, deadline, cancel));
  return std::make_unique<LimitedStream>(std::move(stream), rate_);
}

}  // namespace litefleet::restore
