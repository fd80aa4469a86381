// A seeded random life of a store: devices, backups, deletions, retention, prunes, scrubs, rebuilds, crashes and bit flips.
//
// Each epoch is a process over the real classes (world.h) that is killed somewhere, and with it everything that was not synced. Invariant:
// every snapshot that was acknowledged and not expired by policy or deleted restores to its content, and what was deleted stays away.
#ifndef LITEFLEET_TESTS_MODEL_SIMULATION_H_
#define LITEFLEET_TESTS_MODEL_SIMULATION_H_

#include <string>

namespace litefleet::model {

struct SimulationOptions {
  unsigned seed = 1;
  int epochs = 6;
  int actions = 60;  // at most, an epoch
};

struct SimulationResult {
  std::string violation;  // empty: none; else with what came before it, and how to repeat it
  int crashes = 0;
  int rebuilds = 0;
  int put_back = 0;  // of these, after an older copy of the catalog was refused
  size_t snapshots = 0;
  size_t alive = 0;
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace litefleet::model

#endif  // LITEFLEET_TESTS_MODEL_SIMULATION_H_
