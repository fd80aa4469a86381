// Hands states of one database on to the controller: what a stretch of its WAL changed, or where that is in doubt what differs page by
// page. Where the controller cannot be reached both go into the spool of snapshots instead (agent/spool), and from there to the controller
// in their order; as long as something waits there everything new goes behind it.
//
// There are two ledgers. That of the controller's snapshots is advanced when something is acknowledged, and only then. That of the newest
// spooled one lies beside the spooled files, and goes with them: what is compared with is always what the newest of both has. Thread
// safety: none; one thread at a time. What it refers to outlives it.
#ifndef LITEFLEET_AGENT_FOLLOW_SHIPPER_H_
#define LITEFLEET_AGENT_FOLLOW_SHIPPER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/online_source.h"
#include "agent/follow/extent_names.h"
#include "agent/follow/moment.h"
#include "agent/follow/wal_feed.h"
#include "agent/ledger/ledger.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/upload/backup.h"
#include "agent/upload/transport.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"

namespace litefleet::follow {

struct ShipperOptions {
  std::string database;
  std::string ledger_file;
  std::array<std::byte, 32> ledger_identity{};
  std::string names_file;
  std::string spool_file;
  upload::BackupOptions backup;  // its spool has the bounds of the spool of snapshots too
  // Where what cannot be sent waits; null: nowhere.
  spool::SnapshotSpool* snapshots = nullptr;
  std::chrono::milliseconds spool_age{0};
  // Of this database; fewer where many databases have something there.
  uint32_t most_spooled = 4096;
};

class Shipper {
 public:
  Shipper(ShipperOptions options, upload::UploadTransport& transport, RateLimit& rate, SavedTurns& turns, const Clock& clock);

  // The controller can be reached now.
  bool Connected() const;

  struct Shipped {
    std::string snapshot_id;  // empty: what was committed changed nothing
    uint32_t commits = 0;
  };
  // One attempt. The same session and stretch again find what was committed and not heard. `progress` is called while it lasts, at least
  // every 100 ms, and told whether anything has moved. Errors that put what is known in doubt: kAborted, kDataLoss, and those that IsDoubt
  // names.
  absl::StatusOr<Shipped> Ship(const std::string& session_id, uint64_t timeline, const Stretch& stretch, capture::UserDatabase& database,
                               const CancelToken& cancel, const std::function<void(bool)>& progress);
  // Reads what a stretch changed into memory, together with what is saved of those before it, so that the WAL is needed for it no more; it
  // is sent by SendSaved. False: it would be more than kSavedBytes, or as many other databases as may have saved something; what was saved
  // before stands. After an error nothing is saved.
  static constexpr uint64_t kSavedBytes = 4 << 20;
  absl::StatusOr<bool> Save(const Stretch& stretch, capture::UserDatabase& database);
  // The same for the end of a generation of which the WAL has been started over (SavedPages::AddEnd).
  absl::StatusOr<bool> SaveEnd(const Stretch& stretch, capture::UserDatabase& database);
  uint64_t saved_bytes() const { return saved_.has_value() ? saved_->pages.bytes() : 0; }
  bool others_wait_to_save() const { return turns_.wanted(); }
  // As Ship, of all that is saved. It stays until it is acknowledged, or DropSaved. REQUIRES: something is saved.
  absl::StatusOr<Shipped> SendSaved(const std::string& session_id, uint64_t timeline, const CancelToken& cancel,
                                    const std::function<void(bool)>& progress);
  void DropSaved() { saved_.reset(); }

  // ---- without the controller
  bool MaySpool() const { return options_.snapshots != nullptr; }
  // Something waits in the spool, so that everything new goes there.
  bool Spooled() const { return MaySpool() && options_.snapshots->UsageOf(options_.database).snapshots > 0; }
  // When the newest state there was taken, by the clock as it is set now; unset: there is none. `earliest`: of a state before it, where
  // known.
  std::optional<Moment> SpooledUntil(SystemTime earliest) const;
  // Of a state that is spooled.
  struct Waiting {
    // As it was asked to be shipped, where it was: the same session may have been committed.
    std::string session_id;
    uint64_t timeline = 1;
    SystemTime shipped_until{};  // the newest state before it, as far as this is known
  };
  // As Ship and SendSaved, into the spool: durable on return. Errors: SPOOL_FULL and DISK_FULL where there is no room, after what is
  // spooled was merged; kUnavailable SPOOL_BUSY while somebody else has it.
  absl::StatusOr<Shipped> Spool(const Waiting& waiting, const Stretch& stretch, capture::UserDatabase& database, const CancelToken& cancel,
                                const std::function<void(bool)>& progress);
  absl::StatusOr<Shipped> SpoolSaved(const Waiting& waiting, const CancelToken& cancel, const std::function<void(bool)>& progress);
  // Something of the spool can be uploaded here: what other methods have left there is not.
  bool MayDrain() const { return MaySpool() && options_.snapshots->IsAllOf(options_.database, v1::METHOD_CONTINUOUS); }
  struct Drained {
    absl::Status status;      // why it did not go on; what was given up is none
    bool given_up = false;    // some of it is a gap, with all that was built on it: the database has to be compared
    bool base_gone = false;   // since the controller does not have what it was built on
    uint32_t snapshots = 0;   // that were acknowledged
    std::string snapshot_id;  // of the last one
    Moment taken{};           // its, as the controller was told
  };
  // Uploads from the oldest on; none is begun after `most`. `tick` is called at least every 100 ms, told whether anything was sent, and may
  // call Spool meanwhile.
  Drained Drain(std::chrono::milliseconds most, const CancelToken& cancel, const std::function<void(bool moved)>& tick,
                const std::function<void(const std::string& snapshot_id)>& acknowledged);
  // The last Ship or SendSaved came to where the controller was asked to commit: what failed may be done nevertheless.
  bool committing() const { return committing_; }
  // In it more of its session became durable at the controller, or was heard to be, than was known before.
  bool brought_something() const { return brought_something_; }
  static bool IsDoubt(const absl::Status& status);
  // The controller has not, or has something else as, what the ledger stands for: nothing is built on that any more, also after a restart.
  static bool IsBaseLost(std::string_view reason);
  void DropLedger();

  struct Comparison {
    std::string session_id;
    uint64_t timeline = 1;
    capture::OnlineOptions source;
    SteadyTime give_up_at;
    // Called often, also when nothing moves; is told whether something has. False: what is being read is let go of, and it fails.
    std::function<bool(bool)> tick;
    // What is held beside it is what is at the path; asked before the first page and behind the last one. False ends it, DATABASE_REPLACED.
    std::function<bool()> same_files;
    // Nothing that the ledger says is believed: everything is compared with the controller from the root down.
    bool fresh_base = false;
    SystemTime shipped_until{};  // as in Waiting
  };
  struct Compared {
    std::string snapshot_id;
    // What was read is what the controller has. False: it answers what an earlier attempt of this session had committed; compare again.
    bool current = false;
    bool spooled = false;  // it waits in the spool, or is what waits there
    Moment taken{};        // what was read
    // In the WAL, of that state; nothing where it is not current.
    std::optional<capture::WalPlace> place;
  };
  // A page diff, through cut links.
  absl::StatusOr<Compared> Compare(const Comparison& comparison, const CancelToken& cancel);
  // The same into the spool. REQUIRES: KnowsNewest().
  absl::StatusOr<Compared> CompareSpooled(const Comparison& comparison, const CancelToken& cancel);
  // There is something to compare with, without the controller.
  bool KnowsNewest();
  // Drops what is too old there, and merges what is too old or too many: as each Spool does, but however long it takes, until `goes_on`,
  // which is asked for each chunk, says false.
  void KeepSpoolSmall(const std::function<bool()>& goes_on);

  struct Proof {
    std::string snapshot_id;   // that the ledger stands for
    format::RootDigest known;  // as the controller had proven it when it was acknowledged
    format::RootDigest read;   // of the database
    uint32_t page_size = 0;
    uint32_t page_count = 0;
  };
  // The newest state, to be proven once it has been shipped. `stop` is asked all the while.
  static absl::StatusOr<std::unique_ptr<capture::PageSource>> PinForProof(const capture::OnlineOptions& source,
                                                                          const std::function<bool()>& stop);
  // Reads and hashes the whole database: a root that is made of what was shipped would prove nothing. What comes later may be shipped in
  // between. Nothing: nothing is known of it. REQUIRES: the last state that was shipped is the one that `pages` are of.
  absl::StatusOr<std::optional<Proof>> Prove(capture::PageSource& pages);

  // The snapshot that the ledger stands for, which may be a spooled one; empty: none.
  absl::StatusOr<std::string> Known();
  // Closes files that are not needed while nothing happens.
  void Rest();
  // That the controller has acknowledged something is synced now and then; this makes it so now: without a link nothing says it once more.
  void SyncLedger();

 private:
  struct Saved {
    Saved(std::unique_ptr<SavedTurns::Turn> one, const Stretch& first, SavedPages none)
        : turn(std::move(one)), stretch(first), pages(std::move(none)) {}
    std::unique_ptr<SavedTurns::Turn> turn;
    Stretch stretch;
    SavedPages pages;
  };
  absl::StatusOr<bool> SaveBy(absl::StatusOr<bool> (SavedPages::*add)(const Stretch&, capture::UserDatabase&), const Stretch& stretch,
                              capture::UserDatabase& database);
  absl::Status OpenLedger();
  void CloseLedger();
  absl::Status CheckState(const Stretch& stretch) const;
  absl::Status CheckLedger(const Stretch& stretch);
  absl::StatusOr<Shipped> ShipFeed(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                   const CancelToken& cancel, const std::function<void(bool)>& progress);
  // REQUIRES: what the feed will have given has been begun in the ledger.
  absl::StatusOr<v1::UploadCommitted> Send(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                           const CancelToken& cancel, const std::function<void(bool)>& progress);
  absl::Status Advance(const std::string& snapshot_id, const format::RootDigest& root);
  // The source of a comparison, and what is told of it.
  static absl::StatusOr<std::unique_ptr<capture::PageSource>> OpenCompared(const Comparison& comparison,
                                                                           const capture::OnlineOptions& source, Compared& compared);
  // ledger_ is that of the newest spooled state, or a copy of the controller's for the first one.
  absl::Status OpenNewest();
  absl::StatusOr<Shipped> SpoolFeed(const Waiting& waiting, const Stretch& stretch, const std::function<std::unique_ptr<WalFeed>()>& make,
                                    const CancelToken& cancel, const std::function<void(bool)>& progress);
  absl::StatusOr<Shipped> WriteFeed(const Waiting& waiting, const Stretch& stretch, WalFeed& feed, uint64_t max_bytes,
                                    const CancelToken& cancel, const std::function<void(bool)>& progress);
  storage::v1::SpooledHeader HeaderOf(const Waiting& waiting, const Stretch& stretch) const;
  // Fewer than kMostSpooled of all databases: their headers are in memory.
  absl::Status BoundCount(const spool::GoesOn& goes_on);
  // Errors: kAborted SPOOL_EXPIRED, where the last one was too old: what the controller has is the newest again.
  absl::Status ExpireSpooled(const spool::GoesOn& goes_on);
  // The first one is about to be spooled.
  absl::Status NoteBase(SystemTime shipped_until) const;
  // A state exists again.
  void EndSpoolGaps(SystemTime at);

  const ShipperOptions options_;
  upload::UploadTransport& transport_;
  RateLimit& rate_;
  SavedTurns& turns_;
  const Clock& clock_;
  std::unique_ptr<ledger::Ledger> ledger_;
  ExtentNames names_;
  bool is_newest_ = false;  // ledger_ is that of the spool
  std::optional<Saved> saved_;
  bool committing_ = false;
  bool brought_something_ = false;
  std::pair<std::string, uint64_t> durable_;  // the session that was sent last, and the most chunks that were heard to be durable in it
  bool draining_ = false;
  bool dropped_beside_drain_ = false;  // what it advances is believed no more
  bool spool_gaps_ = true;             // there may be gaps of the spool that the next state ends
  SteadyTime expire_at_{}, sync_at_{};
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_SHIPPER_H_
