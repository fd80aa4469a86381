// The controller's end of an upload without gRPC: answers as the protocol says, on one thread of its own, and can fail where a test wants
// it to. What is durable survives a cut, as in the real one. Thread safety: any thread.
#ifndef LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_CONTROLLER_H_
#define LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_CONTROLLER_H_

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/upload/transport.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "tests/fakes/fake_upload_link.h"

namespace litefleet::fakes {

class FakeUploadController final : public upload::UploadTransport {
 public:
  // Asked for each request. Not OK: the stream ends with it.
  std::function<absl::Status(const v1::UploadRequest&)> on_request;
  std::atomic<bool> connected{true};
  bool can_precopy = true, can_size_at_commit = true;
  bool takes_whole = false;
  bool says_takes_whole = false;                              // of one that was replaced by an older one
  bool drops_chunks_of_whole = false;                         // all are missing, as where some were left out
  std::function<bool(const v1::UploadRequest&)> swallow;      // from the one on for which this says so
  std::function<bool(const v1::UploadRequest&)> lose_answer;  // it is done, and the stream ends without an answer
  int64_t window_bytes = 8 << 20;

  std::atomic<bool> was_awaited{false};  // somebody has waited for a connection

  absl::Status WaitConnected(SteadyTime deadline, const CancelToken& cancel) override {
    while (!connected) {
      was_awaited = true;
      if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled");
      if (std::chrono::steady_clock::now() >= deadline) return absl::DeadlineExceededError("offline");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return absl::OkStatus();
  }
  std::shared_ptr<upload::UploadStream> Open(std::shared_ptr<upload::StreamEvents> events) override {
    return std::make_shared<Stream>(*this, std::move(events));
  }
  void Know(const std::string& snapshot, std::string content) {
    MutexLock lock(mu_);
    images_[snapshot] = std::move(content);
  }
  // Facts, for tests.
  int streams() const { return MutexLock(mu_), streams_; }
  int64_t received_chunks() const { return MutexLock(mu_), received_chunks_; }
  int64_t max_undurable() const { return MutexLock(mu_), max_undurable_; }
  size_t largest_message() const { return MutexLock(mu_), largest_message_; }
  std::vector<v1::UploadCommit> commits() const { return MutexLock(mu_), commits_; }
  // The database as the last commit has it.
  std::string Content() const { return MutexLock(mu_), content_; }

 private:
  using Link = FakeUploadLink;

  class Stream final : public upload::UploadStream {
   public:
    Stream(FakeUploadController& controller, std::shared_ptr<upload::StreamEvents> events)
        : controller_(controller), link_(std::make_shared<Link>()) {
      link_->events = std::move(events);
    }
    void Start() override {
      MutexLock lock(controller_.mu_);
      ++controller_.streams_;
    }
    void Write(v1::UploadRequest request) override {
      controller_.jobs_.Post(
          [this_link = link_, &controller = controller_, request = std::move(request)] { controller.Handle(*this_link, request); });
    }
    void Finish() override { Close(absl::OkStatus()); }
    void Cancel() override { Close(Error(absl::StatusCode::kCancelled, "CANCELLED", "the stream was cancelled")); }

   private:
    void Close(const absl::Status& status) {
      controller_.jobs_.Post([link = link_, &controller = controller_, status] { controller.Close(*link, status); });
    }
    FakeUploadController& controller_;
    const std::shared_ptr<Link> link_;
  };

  void Close(Link& link, const absl::Status& status) {
    if (std::exchange(link.closed, true)) return;
    MakeDurable(link, false);
    std::exchange(link.events, nullptr)->OnClosed(status);
  }

  void MakeDurable(Link& link, bool tell) {
    uint64_t count = 0;
    {
      MutexLock lock(mu_);
      for (auto& [name, raw] : link.arrived) store_[name] = std::move(raw);
      durable_[link.session] += link.arrived.size();
      count = durable_[link.session];
    }
    link.arrived.clear(), link.undurable = 0;
    if (!tell) return;
    v1::UploadResponse response;
    response.mutable_durable()->set_durable_chunks(count);
    link.events->OnResponse(response);
  }
  void Handle(Link& link, const v1::UploadRequest& request) {
    if (link.closed) return;
    {
      MutexLock lock(mu_);
      largest_message_ = std::max(largest_message_, request.ByteSizeLong());
    }
    if (on_request) {
      if (const absl::Status status = on_request(request); !status.ok()) return Close(link, status);
    }
    if (link.swallowing || (swallow && swallow(request))) {
      link.swallowing = true;
      return link.events->OnWritten();
    }
    v1::UploadResponse response;
    std::optional<v1::UploadCommitted> committed;
    std::optional<v1::UploadMissing> missing;
    switch (request.message_case()) {
      case v1::UploadRequest::kBegin: {
        link.session = request.begin().session_id();
        link.page_size = request.begin().page_size();
        MutexLock lock(mu_);
        response.mutable_accepted()->set_durable_chunks(durable_[link.session]);
        response.mutable_accepted()->set_can_precopy(can_precopy);
        response.mutable_accepted()->set_can_size_at_commit(can_size_at_commit);
        response.mutable_accepted()->set_takes_whole(takes_whole || says_takes_whole);
        if (images_.contains(request.begin().base_snapshot_id())) link.base = request.begin().base_snapshot_id();
        response.mutable_accepted()->set_base_snapshot_id(link.base);
        if (const auto before = committed_.find(link.session); before != committed_.end()) committed = before->second;
        break;
      }
      case v1::UploadRequest::kOffer: {
        response.mutable_missing()->set_offer_id(request.offer().offer_id());
        MutexLock lock(mu_);
        for (int i = 0; i < request.offer().chunks_size(); ++i) {
          const v1::ChunkOffer& chunk = request.offer().chunks(i);
          link.manifest.push_back(chunk);
          if (store_.contains(chunk.name())) continue;
          response.mutable_missing()->add_positions(static_cast<uint32_t>(i));
          link.expected.push_back(chunk.name());
        }
        break;
      }
      case v1::UploadRequest::kChunks:
        if (!Take(link, request.chunks())) return Close(link, Error(absl::StatusCode::kInvalidArgument, "CHUNK_INVALID", "a wrong chunk"));
        link.events->OnWritten();
        if (link.undurable >= window_bytes / 2 || link.expected.empty()) MakeDurable(link, true);
        return;
      case v1::UploadRequest::kCommit:
        Commit(link, request.commit(), *response.mutable_committed());
        break;
      case v1::UploadRequest::kWhole: {
        const v1::UploadWhole& whole = request.whole();
        if (!takes_whole) return Close(link, Error(absl::StatusCode::kInvalidArgument, "UPLOAD_OUT_OF_ORDER", "unknown"));
        link.session = whole.begin().session_id();
        link.page_size = whole.begin().page_size();
        response.mutable_accepted()->set_takes_whole(true);
        {
          MutexLock lock(mu_);
          if (const auto before = committed_.find(link.session); before != committed_.end()) {
            *response.mutable_committed() = before->second;
            break;
          }
          if (!images_.contains(whole.begin().base_snapshot_id())) break;
        }
        link.base = whole.begin().base_snapshot_id();
        link.manifest.assign(whole.offer().chunks().begin(), whole.offer().chunks().end());
        for (const v1::ChunkOffer& chunk : whole.offer().chunks()) link.expected.push_back(chunk.name());
        if (drops_chunks_of_whole) {
          response.mutable_accepted()->set_base_snapshot_id(link.base);
          missing.emplace();
          missing->set_offer_id(whole.offer().offer_id());
          for (int i = 0; i < whole.offer().chunks_size(); ++i) missing->add_positions(static_cast<uint32_t>(i));
          break;
        }
        if (!Take(link, whole.chunks())) return Close(link, Error(absl::StatusCode::kInvalidArgument, "CHUNK_INVALID", "a wrong chunk"));
        Commit(link, whole.commit(), *response.mutable_committed());
        break;
      }
      case v1::UploadRequest::MESSAGE_NOT_SET:
        break;
    }
    if (lose_answer && lose_answer(request)) return Close(link, Error(absl::StatusCode::kUnavailable, "CUT", "cut"));
    if (response.has_accepted()) {
      response.mutable_accepted()->set_window_bytes(window_bytes);
      response.mutable_accepted()->set_max_offered_chunks(256);
    }
    link.events->OnWritten();
    link.events->OnResponse(response);
    if (missing) {
      *response.mutable_missing() = *missing;
      link.events->OnResponse(response);
    }
    if (!committed) return;
    *response.mutable_committed() = *committed;
    link.events->OnResponse(response);
  }
  void Commit(Link& link, const v1::UploadCommit& commit, v1::UploadCommitted& done) {
    MakeDurable(link, false);
    MutexLock lock(mu_);
    content_ = ImageOf(link, images_[link.base], commit.page_count(), store_);
    commits_.push_back(commit);
    done.set_snapshot_id("01JDANYSNAPSH0T000000000" + std::to_string(10 + commits_.size()));
    images_[done.snapshot_id()] = content_;
    done.set_precopied(commit.precopied());
    committed_[link.session] = done;
    done.set_created(true);
  }
  bool Take(Link& link, const v1::UploadChunks& chunks) {
    if (!ReadChunks(link, chunks)) return false;
    MutexLock lock(mu_);
    received_chunks_ += chunks.chunks_size();
    max_undurable_ = std::max(max_undurable_, link.undurable);
    return true;
  }
  mutable Mutex mu_;
  std::map<std::string, std::string> store_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> durable_ ABSL_GUARDED_BY(mu_);
  int streams_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t received_chunks_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t max_undurable_ ABSL_GUARDED_BY(mu_) = 0;
  size_t largest_message_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<v1::UploadCommit> commits_ ABSL_GUARDED_BY(mu_);
  std::string content_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::string> images_ ABSL_GUARDED_BY(mu_);             // by snapshot
  std::map<std::string, v1::UploadCommitted> committed_ ABSL_GUARDED_BY(mu_);  // by session
  JobThread jobs_;                                                             // ends before the rest goes
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_CONTROLLER_H_
