// The names of all extents of the last shipped state, in a file of the agent's: with them the root of the next state costs what has changed
// and one sequential read of 32 bytes an extent.
//
// What it holds follows from the ledger and is made anew from it after a start, a doubt or a failed upload; so it is never synced. Thread
// safety: none. Memory: 64 KiB while it is read, 2 KiB otherwise. Errors: those of the file system and of the ledger.
#ifndef LITEFLEET_AGENT_FOLLOW_EXTENT_NAMES_H_
#define LITEFLEET_AGENT_FOLLOW_EXTENT_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/ledger/ledger.h"
#include "common/format/digest.h"
#include "common/io/file.h"

namespace litefleet::follow {

class ExtentNames {
 public:
  // The file is made when it is needed, and removed by the destructor.
  explicit ExtentNames(std::string path) : path_(std::move(path)) {}
  ~ExtentNames();
  ExtentNames(const ExtentNames&) = delete;
  ExtentNames& operator=(const ExtentNames&) = delete;

  // Of the ledger's state; nothing is done when they are. REQUIRES: ledger.state().
  absl::Status Follow(ledger::Ledger& ledger);
  // From here on until Advanced() they are of no state: an upload that fails makes them be read anew.
  absl::Status Set(uint32_t extent, const format::ChunkName& name);
  absl::StatusOr<format::RootDigest> Root(uint32_t page_size, uint32_t page_count);
  // They are those of this snapshot.
  void Advanced(const std::string& snapshot_id) { of_ = snapshot_id; }
  // What was known by one name is known by another one.
  void Renamed(const std::string& from, const std::string& to) {
    if (of_ == from) of_ = to;
  }
  // Closes the descriptor.
  void Rest() { fd_.Reset(-1); }

 private:
  absl::Status Open();

  const std::string path_;
  io::UniqueFd fd_;
  std::string of_;  // the snapshot; empty: none
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_EXTENT_NAMES_H_
