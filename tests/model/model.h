// What must be true of a store, whatever happens to it: the simulation's own idea of devices and snapshots.
//
// The process that drives the real classes is killed, so every change of the model is an event, a line of text, that it writes before or
// after what it does; the process that watches applies the same lines and hands the model to the next one. An event before a call says that
// the outcome is open, one after it says what was acknowledged.
#ifndef LITEFLEET_TESTS_MODEL_MODEL_H_
#define LITEFLEET_TESTS_MODEL_MODEL_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "tests/fakes/paged_device.h"

namespace litefleet::model {

enum class Fate {
  kAlive,  // acknowledged and not deleted: it restores
  kOpen,   // a deletion or its taking back was begun: one or the other
  kGone,   // its deletion was acknowledged: it is not listed, whatever is rebuilt
};

struct Snapshot {
  int device = 0;
  fakes::PagedDatabase state;
  Fate fate = Fate::kAlive;
  bool pinned = false;
  int64_t pinned_until = 0;  // of the world's clock, Unix milliseconds; 0: until it is unpinned
  bool harmed = false;       // a bit flip hit it, and a scrub has said so

  bool PinnedAt(int64_t now_ms) const { return pinned && (pinned_until == 0 || now_ms < pinned_until); }
};

struct Device {
  DeviceId id;
  fakes::PagedDatabase now;
  // What it was told that the controller has.
  std::string base;
  fakes::PagedDatabase base_state;
  // An upload that was begun and not acknowledged.
  std::string session;
  fakes::PagedDatabase session_state;
  bool forgetting = false;  // it was begun, and is finished by the next process where this one is killed
};

struct Model {
  std::vector<Device> devices;
  std::map<std::string, Snapshot> snapshots;
  std::vector<std::string> order;  // of their acknowledgements: ids are random, and a seed must choose the same one again
  std::set<std::string> flipped;   // names of chunks that no scrub has looked at since
  bool ever_flipped = false;
  int64_t clock_ms = 0;   // passed
  int counted = 0;        // how often the catalog counted on, durable in the packs
  int forgotten = 0;      // devices; their ids are never given again
  bool outdated = false;  // an older copy of the catalog was put in its place, and no rebuild has ended since
  bool ended = false;     // the process said that it has done all it wanted
  std::string violation;
  std::vector<std::string> last;  // events, for people

  // Events: now D PAGES | begin D SESSION PAGES | ack D SNAPSHOT | drop D | lose D | forgetting D | forgotten D ID | open S | alive S |
  // gone S | pin S 0|1 [UNTIL] | harm S | whole S | flip CHUNK | scrubbed | rebuilt | clock MS | counted | violation TEXT | end
  void Apply(const std::string& line);
};

std::string PagesText(const std::vector<unsigned>& pages);

}  // namespace litefleet::model

#endif  // LITEFLEET_TESTS_MODEL_MODEL_H_
