// The rounds of pre-copying of one backup: which upload session comes next, and whether another round is worth it.
//
// A round uploads what differs from what the controller has, ahead of the backup. The next one has less to do as long as the link is faster
// than the changes; a round that sends more than two thirds of the one before says that it is not. Thread safety: none.
#ifndef LITEFLEET_AGENT_UPLOAD_PRECOPY_ROUNDS_H_
#define LITEFLEET_AGENT_UPLOAD_PRECOPY_ROUNDS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace litefleet::upload {

// The session that follows the one that was committed as `snapshot`: always the same one, so that a backup that is begun again after a
// restart finds its way along its rounds. A ULID. REQUIRES: both are ULIDs.
std::string SessionAfter(const std::string& session, const std::string& snapshot);

class PrecopyRounds {
 public:
  // `sent`: content of pages; `wire`: what it was compressed.
  void Ended(int64_t sent, int64_t wire, std::chrono::nanoseconds took);
  // What the rounds uploaded is known to the controller alone: the pass that makes the snapshot exact cannot leave it out of the spool, and
  // rounds bring nothing. `why`: there is no ledger; empty: nobody knows.
  void WithoutLedger(const std::string& why);
  size_t count() const { return rounds_.size(); }
  // Before a round. kResourceExhausted CHANGES_OUTRUN_LINK, with the measured rates; kFailedPrecondition LEDGER_NEEDED.
  absl::Status MayBegin(const std::string& database, uint64_t spool_bytes) const;
  // For people; empty without rounds.
  std::string Summary() const;

 private:
  struct Round {
    int64_t sent = 0;
    int64_t wire = 0;
    std::chrono::nanoseconds took{0};
  };
  std::vector<Round> rounds_;
  bool without_ledger_ = false;
  std::string why_without_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_PRECOPY_ROUNDS_H_
