// Hands states of one database on to the controller: what a stretch of its WAL changed, or where that is in doubt what differs page by
// page.
//
// Both advance the ledger when they are acknowledged, and only then. Thread safety: none; one thread at a time. What it refers to outlives
// it.
#ifndef LITEFLEET_AGENT_FOLLOW_SHIPPER_H_
#define LITEFLEET_AGENT_FOLLOW_SHIPPER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/online_source.h"
#include "agent/follow/extent_names.h"
#include "agent/follow/wal_feed.h"
#include "agent/ledger/ledger.h"
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
  upload::BackupOptions backup;
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
  // As Ship, of all that is saved. It stays until it is acknowledged, or DropSaved. REQUIRES: something is saved.
  absl::StatusOr<Shipped> SendSaved(const std::string& session_id, uint64_t timeline, const CancelToken& cancel,
                                    const std::function<void(bool)>& progress);
  void DropSaved() { saved_.reset(); }
  static bool IsDoubt(const absl::Status& status);

  struct Comparison {
    std::string session_id;
    uint64_t timeline = 1;
    capture::OnlineOptions source;
    SteadyTime give_up_at;
    // Called often, also when nothing moves.
    std::function<void()> tick;
    // What is held beside it is what is at the path; asked before the first page and behind the last one. False ends it, DATABASE_REPLACED.
    std::function<bool()> same_files;
    // Nothing that the ledger says is believed: everything is compared with the controller from the root down.
    bool fresh_base = false;
  };
  struct Compared {
    std::string snapshot_id;
    // What was read is what the controller has. False: it answers what an earlier attempt of this session had committed; compare again.
    bool current = false;
    SystemTime taken_at{};  // of what was read
    // In the WAL, of that state; nothing where it is not current.
    std::optional<capture::WalPlace> place;
  };
  // A page diff, through cut links.
  absl::StatusOr<Compared> Compare(const Comparison& comparison, const CancelToken& cancel);

  struct Proof {
    std::string snapshot_id;   // that the ledger stands for
    format::RootDigest known;  // as the controller had proven it when it was acknowledged
    format::RootDigest read;   // of the database
    uint32_t page_size = 0;
    uint32_t page_count = 0;
  };
  // Reads and hashes the whole database in the state `shipped`. Nothing: something has been committed since. A root that is made of what
  // was shipped would prove nothing. `stop` is asked all the while.
  absl::StatusOr<std::optional<Proof>> Prove(const capture::OnlineOptions& source, const capture::WalPlace& shipped,
                                             const std::function<bool()>& stop);

  // The snapshot that the ledger stands for; empty: none.
  absl::StatusOr<std::string> Known();
  // Closes files that are not needed while nothing happens.
  void Rest();

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
  absl::Status CheckLedger(const Stretch& stretch);
  absl::StatusOr<Shipped> ShipFeed(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                   const CancelToken& cancel, const std::function<void(bool)>& progress);
  // REQUIRES: what the feed will have given has been begun in the ledger.
  absl::StatusOr<v1::UploadCommitted> Send(const std::string& session_id, uint64_t timeline, const Stretch& stretch, WalFeed& feed,
                                           const CancelToken& cancel, const std::function<void(bool)>& progress);
  absl::Status Advance(const std::string& snapshot_id, const format::RootDigest& root);

  const ShipperOptions options_;
  upload::UploadTransport& transport_;
  RateLimit& rate_;
  SavedTurns& turns_;
  const Clock& clock_;
  std::unique_ptr<ledger::Ledger> ledger_;
  ExtentNames names_;
  std::optional<Saved> saved_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_SHIPPER_H_
