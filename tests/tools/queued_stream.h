// A client's stream that may be given the next message before the last one has left.
//
// Thread safety: Post may be called from any thread. Memory: what is posted and not yet sent.
#ifndef LITEFLEET_TESTS_TOOLS_QUEUED_STREAM_H_
#define LITEFLEET_TESTS_TOOLS_QUEUED_STREAM_H_

#include <deque>
#include <utility>

#include "common/base/mutex.h"
#include "common/rpc/client_stream.h"

namespace litefleet {

template <class Request, class Response>
class QueuedStream : public rpc::ClientStream<Request, Response> {
 protected:
  // After Begin.
  void Post(Request request) {
    {
      MutexLock lock(queue_mu_);
      if (writing_) {
        queue_.push_back(std::move(request));
        return;
      }
      writing_ = true;
    }
    this->Send(std::move(request));
  }

 private:
  void Written() final {
    Request next;
    {
      MutexLock lock(queue_mu_);
      if (queue_.empty()) {
        writing_ = false;
        return;
      }
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    this->Send(std::move(next));
  }

  Mutex queue_mu_;
  std::deque<Request> queue_ ABSL_GUARDED_BY(queue_mu_);
  bool writing_ ABSL_GUARDED_BY(queue_mu_) = false;
};

}  // namespace litefleet

#endif  // LITEFLEET_TESTS_TOOLS_QUEUED_STREAM_H_
