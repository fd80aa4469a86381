// The agent's uploads and the controller's ingest in one process, without a network between them.
#ifndef LITEFLEET_TESTS_INTEGRATION_DELTA_INGEST_TRANSPORT_H_
#define LITEFLEET_TESTS_INTEGRATION_DELTA_INGEST_TRANSPORT_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "agent/upload/transport.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "controller/ingest/ingest.h"
#include "controller/ingest/upload_session.h"

namespace litefleet::fakes {

class IngestTransport final : public upload::UploadTransport {
 public:
  IngestTransport(ingest::Ingest& ingest, DeviceId device) : ingest_(ingest), device_(std::move(device)) {}

  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return gone ? CutError() : absl::OkStatus(); }
  std::shared_ptr<upload::UploadStream> Open(std::shared_ptr<upload::StreamEvents> events) override {
    return std::make_shared<Stream>(ingest_, device_, std::move(events), *this);
  }
  int64_t up = 0;    // bytes of messages, since the test set it to zero
  int64_t down = 0;  // the same
  int64_t runs = 0;  // of pages, in offers
  // The stream is cut when it has carried so many bytes; then this is forgotten.
  int64_t cut_after = INT64_MAX;
  // The same, in the place of the answer to a commit.
  bool cut_at_committed = false;
  // Of a cut: the controller cannot be reached from then on until `gone` is reset.
  bool stays_cut = false;
  std::atomic<bool> gone = false;
  // Offers name other sources than the device meant.
  bool lie_about_sources = false;

 private:
  static absl::Status CutError() { return Error(absl::StatusCode::kUnavailable, "CUT", "the link was cut"); }

  class Stream final : public upload::UploadStream, public ingest::UploadSink, public std::enable_shared_from_this<Stream> {
   public:
    Stream(ingest::Ingest& ingest, const DeviceId& device, std::shared_ptr<upload::StreamEvents> events, IngestTransport& owner)
        : ingest_(ingest), device_(device), events_(std::move(events)), owner_(owner) {}

    void Start() override {
      auto session = ingest_.NewUpload(device_, shared_from_this());
      session_ = *session;
      // It ends when the session has: nothing of it is used afterwards.
      std::thread([self = shared_from_this()] { self->Run(); }).detach();
    }
    void Write(v1::UploadRequest request) override {
      Post([this, request = std::move(request)]() mutable {
        if (closed_) return;
        owner_.up += static_cast<int64_t>(request.ByteSizeLong());
        if (owner_.up > owner_.cut_after) return Cut();
        for (const v1::ChunkOffer& chunk : request.offer().chunks()) owner_.runs += chunk.runs_size();
        if (owner_.lie_about_sources && request.has_offer()) {
          for (v1::ChunkOffer& chunk : *request.mutable_offer()->mutable_chunks()) {
            for (v1::PageRun& run : *chunk.mutable_sources()) run.set_first_page(run.first_page() * 7919);
          }
        }
        const absl::Status status = session_->Handle(request);
        if (status.ok()) events_->OnWritten();
      });
    }
    void Finish() override {
      Post([this] { End(absl::OkStatus()); });
    }
    void Cancel() override {
      Post([this] { End(absl::CancelledError("")); });
    }
    void Send(const v1::UploadResponse& response) override {
      Post([this, response] {
        if (closed_) return;
        if (response.has_committed() && owner_.cut_at_committed) return Cut();
        owner_.down += static_cast<int64_t>(response.ByteSizeLong());
        events_->OnResponse(response);
      });
    }
    void Close(const absl::Status& status) override {
      Post([this, status] { End(status); });
    }

   private:
    void Post(std::function<void()> job) {
      MutexLock lock(mu_);
      jobs_.push_back(std::move(job));
      changed_.SignalAll();
    }
    void Run() {
      while (!closed_) {
        std::function<void()> job;
        {
          MutexLock lock(mu_);
          while (jobs_.empty()) changed_.Wait(mu_);
          job = std::move(jobs_.front());
          jobs_.pop_front();
        }
        job();
      }
      session_->End();
      session_.reset();
    }
    void Cut() {
      owner_.cut_after = INT64_MAX;
      owner_.cut_at_committed = false;
      owner_.gone = owner_.stays_cut;
      End(CutError());
    }
    void End(const absl::Status& status) {
      if (std::exchange(closed_, true)) return;
      events_->OnClosed(status);
      events_.reset();
    }

    ingest::Ingest& ingest_;
    const DeviceId device_;
    std::shared_ptr<upload::StreamEvents> events_;
    IngestTransport& owner_;
    std::shared_ptr<ingest::UploadSession> session_;
    bool closed_ = false;  // the thread's
    Mutex mu_;
    CondVar changed_;
    std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  };

  ingest::Ingest& ingest_;
  const DeviceId device_;
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_INTEGRATION_DELTA_INGEST_TRANSPORT_H_
