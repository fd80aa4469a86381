#include "agent/capture_home.h"

#include <fcntl.h>
#include <google/protobuf/util/time_util.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>
#include <vector>

#include "agent/ledger/ledger.h"
#include "agent/spool/snapshot_spool.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

using std::chrono::seconds;

constexpr seconds kWriteStates{10};

}  // namespace

absl::Status CaptureHome::Follow(const config::AgentConfig& config) {
  std::vector<follow::Followed> followed;
  for (const config::DatabaseConfig& database : config.databases) {
    if (database.method != "continuous") continue;
    follow::Followed one;
    one.follow.database = database.name;
    one.follow.interval = database.sync_interval;
    one.follow.prove_every = database.chain_check;
    one.follow.allow_restart = database.allow_restart_checkpoint;
    one.follow.source.path = database.path;
    one.follow.source.busy_timeout = database.busy_timeout;
    one.follow.source.rollback_stall = database.rollback_stall;
    one.follow.source.max_pin = database.max_pin;
    one.follow.source.reserve = config.disk_reserve;
    one.follow.source.allow_network_fs = config.allow_network_file_system;
    one.follow.source.clock = &clock_;
    one.shipper.database = database.name;
    one.shipper.ledger_file = state_.LedgerFile(database.name);
    one.shipper.ledger_identity = ledger::LedgerIdentity(device_id_, database.name, database.path);
    one.shipper.names_file = state_.SpoolFile(database.name + ".names");
    one.shipper.spool_file = state_.SpoolFile(database.name + ".compared");
    one.shipper.backup.spool.reserve = config.disk_reserve;
    one.shipper.backup.spool.max_bytes = config.spool_bytes;
    followed.push_back(std::move(one));
  }
  std::set<std::string> names;
  for (const follow::Followed& one : followed) names.insert(one.follow.database);
  LF_RETURN_IF_ERROR(capturing_.Set(std::move(followed)));
  followed_ = true;
  // Nobody else ends what a follower has begun.
  for (const v1::CoverageGap& gap : gaps_.OpenGaps("")) {
    if (spool::IsReason(gap.reason()) || names.contains(gap.database())) continue;
    if (const absl::Status ended = gaps_.EndOf(gap.database(), gap.reason(), clock_.Now()); !ended.ok())
      spdlog::error("{}: the end of the gap could not be written down: {}", gap.database(), MessageOf(ended));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<void>> CaptureHome::Pause(const std::string& database, std::string_view why) {
  LF_ASSIGN_OR_RETURN(std::shared_ptr<follow::Capturing::Paused> paused, capturing_.Pause(database, why));
  return std::shared_ptr<void>(std::move(paused));
}

uint64_t CaptureHome::Timeline(const std::string& database) {
  const auto kept = state_.ReadDatabase(database);
  return kept.ok() ? kept->timeline() : 1;
}

follow::FollowerHome::Rested CaptureHome::Remembered(const std::string& database) {
  follow::FollowerHome::Rested rested;
  if (const auto kept = state_.ReadDatabase(database); kept.ok()) {
    rested.facts = kept->file_facts();
    rested.snapshot_id = kept->last_snapshot_id();
  }
  for (const v1::CoverageGap& gap : gaps_.OpenGaps(database)) {
    if (spool::IsReason(gap.reason()) || (rested.gap.has_value() && rested.gap->from <= FromProtoTime(gap.from()))) continue;
    rested.gap = {FromProtoTime(gap.from()), gap.reason(), gap.message()};
  }
  rested.agent_ran = followed_;
  const auto captures = state_.ReadCaptures();
  if (!captures.has_value()) return rested;
  for (const storage::v1::AgentCapture& capture : captures->captures()) {
    v1::CaptureHealth health;
    if (capture.database() != database || !health.ParseFromString(capture.health())) continue;
    if (capture.known_until_ms() != 0) rested.known_until = FromUnixMillis(capture.known_until_ms());
    if (!health.has_last_sync_at()) continue;
    // When it was acknowledged; what was committed in between is not in it.
    rested.synced_at = FromProtoTime(health.last_sync_at()) -
                       std::chrono::milliseconds(google::protobuf::util::TimeUtil::DurationToMilliseconds(health.lag()));
  }
  return rested;
}

void CaptureHome::Remember(const std::string& database, const follow::FollowerHome::Rested& rested) {
  auto kept = state_.ReadDatabase(database);
  if (!kept.ok() || (kept->file_facts() == rested.facts && kept->last_snapshot_id() == rested.snapshot_id)) return;
  kept->set_file_facts(rested.facts);
  kept->set_last_snapshot_id(rested.snapshot_id);
  kept->set_last_success_at_ms(ToUnixMillis(clock_.Now()));
  kept->set_journal_mode(v1::JOURNAL_MODE_WAL);
  kept->clear_last_error();
  if (const absl::Status status = state_.WriteDatabase(*kept); !status.ok())
    spdlog::error("what is known of {} could not be written: {}", database, MessageOf(status));
}

void CaptureHome::Gap(const std::string& database, SystemTime from, std::optional<SystemTime> until, std::string_view reason,
                      const std::string& message) {
  const state::GapBook::Begun begun{database, from, std::string(reason), message, 0};
  absl::Status written;
  if (!until.has_value()) {
    spdlog::warn("{}: no second-by-second states from {} on ({}: {})", database, FormatRfc3339(from), reason, message);
    written = gaps_.Begin(begun).status();
  } else {
    spdlog::warn("{}: no second-by-second states from {} to {} ({}: {})", database, FormatRfc3339(from), FormatRfc3339(*until), reason,
                 message);
    bool begun_before = false;
    for (const v1::CoverageGap& gap : gaps_.OpenGaps(database)) {
      if (spool::IsReason(gap.reason())) continue;
      begun_before = begun_before || gap.reason() == reason;
      written.Update(gaps_.EndOf(database, gap.reason(), *until));
    }
    if (!begun_before) written.Update(gaps_.Add(begun, *until).status());
  }
  if (!written.ok()) spdlog::error("{}: the gap could not be written down: {}", database, MessageOf(written));
}

void CaptureHome::Tick(const config::AgentConfig& config) {
  TakeReleases(config);
  WriteStates(config);
}

void CaptureHome::TakeReleases(const config::AgentConfig& config) {
  // Whoever asks makes a file: nothing else is looked at as long as none is made.
  struct stat st {};
  if (stat(io::DirectoryOf(state_.ReleaseFile("any")).c_str(), &st) != 0) return;
  const std::chrono::nanoseconds changed = seconds(st.st_mtim.tv_sec) + std::chrono::nanoseconds(st.st_mtim.tv_nsec);
  if (releases_.empty() && releases_changed_ == changed) return;
  // A file that is made within the same tick of the file system's clock is seen too.
  if (clock_.Now().time_since_epoch() - changed > seconds(1)) releases_changed_ = changed;
  const SteadyTime now = clock_.Steady();
  for (const config::DatabaseConfig& database : config.databases) {
    if (database.method != "continuous") continue;
    const std::string file = state_.ReleaseFile(database.name);
    const auto running = releases_.find(database.name);
    if (running != releases_.end()) {
      if (now < running->second.until) continue;
      releases_.erase(running);
      io::RemoveFile(file).IgnoreError();
      continue;
    }
    if (access(file.c_str(), F_OK) != 0) continue;
    const absl::StatusOr<std::string> text = io::ReadFile(file, 64);
    int64_t wanted = 0;
    if (text.ok()) std::from_chars(text->data(), text->data() + text->size(), wanted);
    const seconds length(std::clamp<int64_t>(wanted, 1, 3600));
    absl::StatusOr<std::shared_ptr<void>> pause = Pause(database.name, fmt::format("released for {} s", length.count()));
    if (!pause.ok()) {
      spdlog::warn("{}: {}", database.name, MessageOf(pause.status()));
      releases_changed_.reset();  // once more
      continue;
    }
    // Read by `release`: it is done.
    const absl::Status told = io::WriteFileAtomic(file, "released");
    if (!told.ok()) spdlog::warn("{}", MessageOf(told));
    spdlog::info("{}: let go for {} s, as asked", database.name, length.count());
    releases_[database.name] = {now + length, *std::move(pause)};
  }
}

void CaptureHome::Stop() {
  storage::v1::AgentCaptures captures;
  const std::string last = std::exchange(written_, "");  // a second call knows nothing
  const bool any = !last.empty() && captures.ParseFromString(last);
  for (storage::v1::AgentCapture& one : *captures.mutable_captures()) {
    const auto status = capturing_.StatusOf(one.database());
    if (!status.has_value()) continue;
    one.set_health(status->health.SerializeAsString());
    if (status->unchanged_at.has_value()) one.set_known_until_ms(ToUnixMillis(*status->unchanged_at));
  }
  capturing_.Stop();
  if (!any) return;
  if (const absl::Status written = state_.WriteCaptures(captures.SerializeAsString()); !written.ok())
    spdlog::warn("{}", MessageOf(written));
}

void CaptureHome::WriteStates(const config::AgentConfig& config) {
  const SteadyTime now = clock_.Steady();
  std::string states;
  storage::v1::AgentCaptures captures;
  captures.set_format(1);
  for (const config::DatabaseConfig& database : config.databases) {
    const auto status = capturing_.StatusOf(database.name);
    if (!status.has_value()) continue;
    storage::v1::AgentCapture& one = *captures.add_captures();
    one.set_database(database.name);
    one.set_health(status->health.SerializeAsString());
    one.set_snapshot_id(status->snapshot_id);
    states += fmt::format("{} {} {}\n", database.name, static_cast<int>(status->health.state()), status->health.message());
  }
  // What changes with every sync is written now and then.
  if (states == states_ && written_at_.has_value() && now - *written_at_ < kWriteStates) return;
  std::string text = captures.SerializeAsString();
  if (text == written_) return;
  written_at_ = now;
  if (const absl::Status status = state_.WriteCaptures(text); !status.ok()) {
    spdlog::warn("{}", MessageOf(status));
    return;
  }
  written_ = std::move(text);
  states_ = std::move(states);
}

}  // namespace litefleet
