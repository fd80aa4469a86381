// So many at once: who comes when all slots are taken waits a while, and the next slot goes to the device that has fewest.
//
//   slots.Take(device, [stream](bool granted) { granted ? stream->Admit() : stream->Refuse(); });    and later slots.GiveBack(device)
//
// So a device with many databases, or one that comes again and again, does not keep the others out. Among devices that have as many, who
// came first. At most `max_waiting` wait, and none longer than `patience`: they are told that there is none.
//
// Thread safety: all members may be called from any thread. `go` is called once, in Take or GiveBack of whoever makes it true, or on the
// thread that minds the time; under no lock, and it must not block. Ownership: what waits at the end (Stop) is dropped, not called.
#ifndef LITEFLEET_CONTROLLER_FLOW_FAIR_SLOTS_H_
#define LITEFLEET_CONTROLLER_FLOW_FAIR_SLOTS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::flow {

class FairSlots {
 public:
  using Go = absl::AnyInvocable<void(bool granted)>;

  struct Limits {
    size_t slots = 256;
    size_t max_waiting = 1024;
    std::chrono::milliseconds patience{10'000};
    bool own_thread = true;  // false: whoever tests it calls Tick
  };

  FairSlots(const Limits& limits, const Clock& clock);
  ~FairSlots() { Stop(); }
  FairSlots(const FairSlots&) = delete;
  FairSlots& operator=(const FairSlots&) = delete;

  void Take(const std::string& device, Go go) ABSL_LOCKS_EXCLUDED(mu_);
  // REQUIRES: the device was granted a slot that it has not given back.
  void GiveBack(const std::string& device) ABSL_LOCKS_EXCLUDED(mu_);
  // Tells those that have waited too long.
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);
  // What waits is dropped, and what comes later. Idempotent, by one thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  size_t taken() const ABSL_LOCKS_EXCLUDED(mu_);
  size_t waiting() const ABSL_LOCKS_EXCLUDED(mu_);
  // Devices that have a slot or wait.
  size_t devices() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Waiting {
    std::string device;
    SteadyTime until;
    Go go;
  };
  struct Device {
    size_t taken = 0;
    std::set<uint64_t> waiting;  // numbers, the first comer's first
  };
  // Slots that the device has, number of its first that waits, device.
  using Turn = std::tuple<size_t, uint64_t, std::string>;

  // The device's place in turns_, before and after it changes.
  void Leave(const std::string& name, const Device& device) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(const std::string& name, const Device& device) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<Go> TakeOverdue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Run();

  const Limits limits_;
  const Clock& clock_;
  mutable Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  size_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_number_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, Waiting> waiting_ ABSL_GUARDED_BY(mu_);  // in the order of their coming, so also of their patience's end
  std::map<std::string, Device> devices_ ABSL_GUARDED_BY(mu_);
  std::set<Turn> turns_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace litefleet::flow

#endif  // LITEFLEET_CONTROLLER_FLOW_FAIR_SLOTS_H_
