// Continuous capture as part of the agent: what of the configuration is followed, what is kept of it in the state directory, and what other
// processes ask for by files there (`litefleet-agent release`, `status`).
//
//   release/NAME     written by `release`: seconds; then by the agent: "released ", until when (ms since 1970) and how long (ms), which
//                    it keeps to after a start as well; removed by it when it follows again
//   capture.state    storage.v1.AgentCaptures: what `status` shows; not synced, since a start makes it anew
//
// Thread safety: Follow, Tick and Stop: the main thread; everything else any thread.
#ifndef LITEFLEET_AGENT_CAPTURE_HOME_H_
#define LITEFLEET_AGENT_CAPTURE_HOME_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/config/config.h"
#include "agent/follow/capturing.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/state/gap_book.h"
#include "agent/state/state_directory.h"
#include "agent/upload/backup.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"

namespace litefleet {

class CaptureHome final : public follow::CaptureMemory {
 public:
  // `snapshots`: where syncs wait for the controller; null: nowhere.
  CaptureHome(const state::StateDirectory& state, const Clock& clock, std::string device_id, upload::UploadTransport& transport,
              RateLimit& rate, state::GapBook& gaps, spool::SnapshotSpool* snapshots = nullptr)
      : state_(state),
        clock_(clock),
        device_id_(std::move(device_id)),
        gaps_(gaps),
        snapshots_(snapshots),
        capturing_({}, *this, transport, rate, clock) {}

  // Takes up what the configuration says. REQUIRES: restores that were interrupted have been finished. As Capturing::Set.
  absl::Status Follow(const config::AgentConfig& config, const CancelToken& cancel = {});
  // Every half second: releases that are asked for or over, and what `status` shows. Waits a second at most.
  void Tick(const config::AgentConfig& config);
  // Until the next start it is known how far back what is captured was complete.
  void Stop();

  // Nothing is captured while the result lives. As Capturing::Pause.
  absl::StatusOr<std::shared_ptr<void>> Pause(const std::string& database, std::string_view why, const CancelToken& cancel);
  // Where checks of chains go to; before Follow.
  void OnChainCheck(std::function<void(const v1::ChainCheck&)> send) { send_chain_check_ = std::move(send); }
  void ChainChecked(const v1::ChainChecked& checked) { capturing_.ChainChecked(checked); }
  // The controller has not what it should have: everything is compared anew.
  void CompareAgain(const std::string& database) { capturing_.CompareAgain(database); }
  // It is followed, and what of it waits in the spool is its follower's to upload.
  bool SeesTo(const std::string& database) const;
  std::optional<follow::Follower::Status> StatusOf(const std::string& database) const { return capturing_.StatusOf(database); }

  uint64_t Timeline(const std::string& database) override;
  follow::FollowerHome::Rested Remembered(const std::string& database) override;
  void Remember(const std::string& database, const follow::FollowerHome::Rested& rested) override;
  void CheckChain(const v1::ChainCheck& check) override {
    if (send_chain_check_) send_chain_check_(check);
  }
  void Gap(const std::string& database, const follow::Moment& from, const std::optional<follow::Moment>& until, std::string_view reason,
           const std::string& message) override;

 private:
  struct Release {
    SteadyTime until;
    std::shared_ptr<void> pause;
  };
  void TakeReleases(const config::AgentConfig& config);
  void TakeRelease(const std::string& database);
  // Before anything of them is sent: since when they were to be captured is known then, whenever the agent is killed.
  void NoteTakenUp(const std::vector<follow::Followed>& followed);
  void WriteStates(const config::AgentConfig& config);

  const state::StateDirectory& state_;
  const Clock& clock_;
  const std::string device_id_;
  state::GapBook& gaps_;
  spool::SnapshotSpool* const snapshots_;
  std::function<void(const v1::ChainCheck&)> send_chain_check_;
  bool followed_ = false;
  // Of databases without a sync so far.
  struct TakenUp {
    int64_t at_ms = 0;  // or until when what an agent before this one has spooled is complete
    bool now = false;   // not by an agent before this one
  };
  std::map<std::string, TakenUp> taken_up_;
  std::optional<std::chrono::nanoseconds> releases_changed_;  // the directory, when it was looked at last
  std::string written_;                                       // of capture.state
  std::string states_;                                        // what of it is no time
  std::string news_;                                          // all but until when nothing is new
  std::optional<SteadyTime> written_at_;
  SteadyTime ask_at_;
  follow::Capturing capturing_;              // goes before what its threads use
  std::map<std::string, Release> releases_;  // pauses of it
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_CAPTURE_HOME_H_
