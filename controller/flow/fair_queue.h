// Shares a rate among devices: work that was done is charged, and its device goes on when its turn has come.
//
// Start-time fair queueing (Goyal, Vin, Cheng 1996) over a token bucket. A device that asks for less than its share never waits behind
// those that ask for more: what it is charged counts from the present, not from what others have had. Devices with many streams have one
// share. The bucket may go into debt by one piece of work, since a message is weighed when it has come; a quarter of a second may be saved
// up.
//
// Only the arithmetic: time is given, and nothing is called. FairRate has clock and thread. Not for a single stream (a token bucket does).
// Thread safety: none. Memory: an entry for each piece of work that waits, and for each device that had more than its share of late.
#ifndef LITEFLEET_CONTROLLER_FLOW_FAIR_QUEUE_H_
#define LITEFLEET_CONTROLLER_FLOW_FAIR_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/base/clock.h"

namespace litefleet::flow {

class FairQueue {
 public:
  using Go = absl::AnyInvocable<void()>;

  // REQUIRES: bytes_per_second > 0.
  explicit FairQueue(int64_t bytes_per_second) : rate_(static_cast<double>(bytes_per_second)), tokens_(rate_ / 4) {}

  // `bytes` were moved for the device; `go` is handed out when it may move more. In the order of their coming within a device.
  void Add(const std::string& device, int64_t bytes, Go go);
  // Those whose turn has come by `now`. `now` never goes back.
  std::vector<Go> Due(SteadyTime now);
  // When Due will have something; nothing where nobody waits. REQUIRES: Due(now) was called.
  std::optional<SteadyTime> NextAt(SteadyTime now) const;
  size_t waiting() const { return waiting_; }
  // Devices that have an entry.
  size_t devices() const { return devices_.size(); }

 private:
  struct Work {
    double bytes = 0;
    Go go;
  };
  struct Device {
    double start = 0;  // in virtual time: bytes of one share
    std::deque<Work> work;
  };
  // Start, bytes and device: of those with the same start the one that takes least goes first.
  using Turn = std::tuple<double, double, std::string>;

  void InsertTurn(const std::string& name, const Device& device) { turns_.insert({device.start, device.work.front().bytes, name}); }

  const double rate_;
  double tokens_;
  std::optional<SteadyTime> filled_at_;
  double now_ = 0;  // virtual: the start of what was served last
  std::map<std::string, Device> devices_;
  std::set<Turn> turns_;                             // of those that wait
  std::set<std::pair<double, std::string>> rested_;  // of the others: forgotten when the virtual time has reached them
  size_t waiting_ = 0;
};

}  // namespace litefleet::flow

#endif  // LITEFLEET_CONTROLLER_FLOW_FAIR_QUEUE_H_
