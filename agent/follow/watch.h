// Tells when somebody opens, closes, replaces or removes a file, without opening it (inotify).
//
// A hint, not a proof: what it may have missed is looked at every 30 s. What this process does to the file is told as well. Thread safety:
// none; one thread. Errors: kFailedPrecondition where the kernel refuses (fs.inotify.max_user_watches); then files are only looked at every
// 30 s.
#ifndef LITEFLEET_AGENT_FOLLOW_WATCH_H_
#define LITEFLEET_AGENT_FOLLOW_WATCH_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/io/file.h"

namespace litefleet::follow {

class Watch {
 public:
  static absl::StatusOr<Watch> Open();

  int fd() const { return fd_.get(); }
  // The number of the watch; the same file twice has the same one.
  absl::StatusOr<int> Add(const std::string& path);
  void Remove(int watch);
  struct Event {
    int watch = -1;       // -1: events were lost, all are meant
    bool opened = false;  // by whomever
    bool moved = false;   // another file may be at the path: it was moved away, or one of its names went
    bool gone = false;    // the file is not there any more, and neither is the watch
  };
  // What has happened since the last call.
  absl::Status Drain(const std::function<void(const Event&)>& event);

 private:
  explicit Watch(io::UniqueFd fd) : fd_(std::move(fd)) {}
  io::UniqueFd fd_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_WATCH_H_
