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

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kWriteStates{10};
constexpr std::chrono::minutes kWriteAtRest{5};
// What there is to be said of one database costs some microseconds: of hundreds it is asked more rarely.
constexpr milliseconds kAskForEach{10};
constexpr seconds kReleaseWait{1};
constexpr seconds kLongestRelease{3600};
constexpr uint64_t kMostBehind = 256 << 20;
constexpr std::string_view kReleased = state::StateDirectory::kReleased;

// What `litefleet-agent release` and this process write to each other.
int64_t NumberIn(std::string_view text) {
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

absl::Status CaptureHome::Follow(const config::AgentConfig& config, const CancelToken& cancel) {
  ask_at_ = {};  // what is new is in the list that Stop writes
  std::vector<follow::Followed> followed;
  for (const config::DatabaseConfig& database : config.databases) {
    if (database.method != "continuous") continue;
    follow::Followed one;
    one.follow.database = database.name;
    one.follow.interval = database.sync_interval;
    one.follow.prove_every = database.chain_check;
    one.follow.allow_restart = database.allow_restart_checkpoint;
    one.follow.checkpoint_bytes = database.checkpoint_size;
    // What may wait to be shipped is the link's, not the checkpoints'; but there is room for what is to be checkpointed.
    one.follow.most_behind = std::max<uint64_t>(kMostBehind / database.checkpoint_size, 4);
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
    one.shipper.snapshots = snapshots_;
    one.shipper.spool_age = config.spool_age;
    followed.push_back(std::move(one));
  }
  std::set<std::string> names;
  for (const follow::Followed& one : followed) names.insert(one.follow.database);
  TakeReleases(config);  // those that outlived the agent too, before anything is attached
  NoteTakenUp(followed);
  LF_RETURN_IF_ERROR(capturing_.Set(std::move(followed), cancel));
  followed_ = true;
  // Nobody else ends what a follower has begun.
  for (const v1::CoverageGap& gap : gaps_.OpenGaps("")) {
    if (spool::IsReason(gap.reason()) || names.contains(gap.database())) continue;
    if (const absl::Status ended = gaps_.EndOf(gap.database(), gap.reason(), clock_.Now()); !ended.ok())
      spdlog::error("{}: the end of the gap could not be written down: {}", gap.database(), MessageOf(ended));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<void>> CaptureHome::Pause(const std::string& database, std::string_view why, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(std::shared_ptr<follow::Capturing::Paused> paused, capturing_.Pause(database, why, cancel));
  return std::shared_ptr<void>(std::move(paused));
}

bool CaptureHome::SeesTo(const std::string& database) const {
  const auto status = capturing_.StatusOf(database);
  if (snapshots_ == nullptr || !status.has_value() || status->health.state() == v1::CAPTURE_STATE_RELEASED) return false;
  return snapshots_->UsageOf(database).snapshots == 0 || snapshots_->IsAllOf(database, v1::METHOD_CONTINUOUS);
}

uint64_t CaptureHome::Timeline(const std::string& database) {
  const auto kept = state_.ReadDatabase(database);
  return kept.ok() ? kept->timeline() : 1;
}

void CaptureHome::NoteTakenUp(const std::vector<follow::Followed>& followed) {
  storage::v1::AgentCaptures captures = state_.ReadCaptures().value_or(storage::v1::AgentCaptures());
  captures.set_format(1);
  const int64_t now = ToUnixMillis(clock_.Now());
  bool any = false;
  for (const follow::Followed& one : followed) {
    const std::string& name = one.follow.database;
    if (taken_up_.contains(name)) continue;
    const auto found = std::find_if(captures.mutable_captures()->begin(), captures.mutable_captures()->end(),
                                    [&](const storage::v1::AgentCapture& capture) { return capture.database() == name; });
    storage::v1::AgentCapture& kept = found != captures.mutable_captures()->end() ? *found : *captures.add_captures();
    const bool anew = kept.known_until_ms() == 0;
    // What is spooled was captured by an agent before this one, of which nothing else may be left.
    const auto spooled = anew && snapshots_ != nullptr ? snapshots_->Newest(name) : std::nullopt;
    const int64_t since = spooled.has_value() ? std::min(now, ToUnixMillis(snapshots_->TakenAt(*spooled, SystemTime()))) : now;
    taken_up_[name] = {anew ? since : kept.known_until_ms(), anew};
    v1::CaptureHealth health;
    if (!anew || (health.ParseFromString(kept.health()) && health.has_last_sync_at())) continue;
    kept.set_database(name);
    kept.set_known_until_ms(since);
    any = true;
  }
  if (!any) return;
  if (const absl::Status written = state_.WriteCaptures(captures.SerializeAsString()); !written.ok())
    spdlog::warn("{}", MessageOf(written));
}

follow::FollowerHome::Rested CaptureHome::Remembered(const std::string& database) {
  follow::FollowerHome::Rested rested;
  if (const auto kept = state_.ReadDatabase(database); kept.ok()) {
    rested.facts = kept->file_facts();
    rested.snapshot_id = kept->last_snapshot_id();
  }
  for (const v1::CoverageGap& gap : gaps_.OpenGaps(database)) {
    if (spool::IsReason(gap.reason()) || (rested.gap.has_value() && rested.gap->from.at <= FromProtoTime(gap.from()))) continue;
    // What its book knows of the clock then it keeps.
    rested.gap = {{FromProtoTime(gap.from())}, gap.reason(), gap.message()};
  }
  rested.agent_ran = followed_;
  const auto captures = state_.ReadCaptures();
  if (!captures.has_value()) return rested;
  for (const storage::v1::AgentCapture& capture : captures->captures()) {
    v1::CaptureHealth health;
    if (capture.database() != database || !health.ParseFromString(capture.health())) continue;
    const auto taken_up = taken_up_.find(database);
    const bool just_now = taken_up != taken_up_.end() && taken_up->second.now && capture.known_until_ms() == taken_up->second.at_ms;
    if (capture.known_until_ms() != 0 && !just_now) rested.known_until = FromUnixMillis(capture.known_until_ms());
    if (health.has_chain_checked_at()) rested.chain_checked_at = FromProtoTime(health.chain_checked_at());
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

void CaptureHome::Gap(const std::string& database, const follow::Moment& from, const std::optional<follow::Moment>& until,
                      std::string_view reason, const std::string& message) {
  const state::GapBook::Begun begun{database, from.at, std::string(reason), message, 0, from.since_boot};
  absl::Status written;
  if (!until.has_value()) {
    spdlog::warn("{}: no second-by-second states from {} on ({}: {})", database, FormatRfc3339(from.at), reason, message);
    written = gaps_.Begin(begun).status();
  } else {
    spdlog::warn("{}: no second-by-second states from {} to {} ({}: {})", database, FormatRfc3339(from.at), FormatRfc3339(until->at),
                 reason, message);
    bool begun_before = false;
    for (const v1::CoverageGap& gap : gaps_.OpenGaps(database)) {
      if (spool::IsReason(gap.reason())) continue;
      begun_before = begun_before || gap.reason() == reason;
      // Of a clock that was put back in between.
      if (gap.reason() == reason && from.at < FromProtoTime(gap.from())) written.Update(gaps_.Begin(begun).status());
      written.Update(gaps_.End(gap.id(), until->at, until->since_boot));
    }
    if (!begun_before) written.Update(gaps_.Add(begun, until->at, until->since_boot).status());
  }
  if (!written.ok()) spdlog::error("{}: the gap could not be written down: {}", database, MessageOf(written));
}

void CaptureHome::Tick(const config::AgentConfig& config) {
  if (const absl::Status taken_up = capturing_.TakeUp(); !taken_up.ok()) spdlog::error("{}", MessageOf(taken_up));
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
  for (const config::DatabaseConfig& database : config.databases) {
    if (database.method == "continuous") TakeRelease(database.name);
  }
}

void CaptureHome::TakeRelease(const std::string& database) {
  const std::string file = state_.ReleaseFile(database);
  const auto running = releases_.find(database);
  if (running == releases_.end() && access(file.c_str(), F_OK) != 0) return;
  const std::string text = io::ReadFile(file, 64).value_or("");
  const bool taken = text.starts_with(kReleased);
  if (running != releases_.end() && (taken || text.empty())) {
    if (clock_.Steady() < running->second.until) return;
    releases_.erase(running);
    io::RemoveFile(file).IgnoreError();
    return;
  }
  // Asked for, or taken by an agent before this one.
  milliseconds length = std::clamp<seconds>(seconds(NumberIn(text)), seconds(1), kLongestRelease);
  if (taken) {
    const std::string_view words = std::string_view(text).substr(kReleased.size());
    const SystemTime until = FromUnixMillis(NumberIn(words));
    // No longer than it was asked for, whatever the clock has done since.
    const size_t space = words.find(' ');
    // An agent of before wrote no length.
    const milliseconds asked =
        space == std::string_view::npos ? milliseconds(kLongestRelease) : milliseconds(NumberIn(words.substr(space + 1)));
    length = std::min<milliseconds>(std::chrono::ceil<milliseconds>(until - clock_.Now()), std::min<milliseconds>(asked, kLongestRelease));
    if (length.count() <= 0) return io::RemoveFile(file).IgnoreError();
  }
  // The main thread's: it has signals and a watchdog to look after, and is here again in half a second.
  const CancelToken never;
  absl::StatusOr<std::shared_ptr<follow::Capturing::Paused>> pause =
      capturing_.Pause(database, fmt::format("released for {} s", length.count() / 1000), never, kReleaseWait);
  if (!pause.ok()) {
    spdlog::warn("{}: {}", database, MessageOf(pause.status()));
    releases_changed_.reset();  // once more
    return;
  }
  // Read by `release`: it is done.
  const absl::Status told =
      io::WriteFileAtomic(file, fmt::format("{}{} {}", kReleased, ToUnixMillis(clock_.Now() + length), length.count()));
  if (!told.ok()) spdlog::warn("{}", MessageOf(told));
  spdlog::info("{}: let go for {} s, as asked", database, length.count() / 1000);
  releases_[database] = {clock_.Steady() + length, *std::move(pause)};
}

void CaptureHome::Stop() {
  storage::v1::AgentCaptures captures;
  const std::string last = std::exchange(written_, "");  // a second call knows nothing
  const bool any = !last.empty() && captures.ParseFromString(last);
  for (storage::v1::AgentCapture& one : *captures.mutable_captures()) {
    const auto status = capturing_.StatusOf(one.database());
    if (!status.has_value()) continue;
    one.set_health(status->health.SerializeAsString());
    if (status->known_until.has_value()) one.set_known_until_ms(ToUnixMillis(status->known_until->at));
  }
  capturing_.Stop();
  if (!any) return;
  if (const absl::Status written = state_.WriteCaptures(captures.SerializeAsString()); !written.ok())
    spdlog::warn("{}", MessageOf(written));
}

void CaptureHome::WriteStates(const config::AgentConfig& config) {
  const SteadyTime now = clock_.Steady();
  if (now < ask_at_) return;
  ask_at_ = now + kAskForEach * config.databases.size();
  std::string states, news;
  storage::v1::AgentCaptures captures;
  captures.set_format(1);
  for (const config::DatabaseConfig& database : config.databases) {
    const auto status = capturing_.StatusOf(database.name);
    if (!status.has_value()) continue;
    storage::v1::AgentCapture& one = *captures.add_captures();
    one.set_database(database.name);
    one.set_health(status->health.SerializeAsString());
    one.set_snapshot_id(status->snapshot_id);
    const auto taken_up = taken_up_.find(database.name);
    // The last sync says itself until when what the controller has is complete; what is spooled, or at rest, before the first one does not.
    news += one.SerializeAsString();
    if (taken_up != taken_up_.end() && !status->health.has_last_sync_at()) {
      one.set_known_until_ms(status->known_until.has_value() ? ToUnixMillis(status->known_until->at) : taken_up->second.at_ms);
      if (const auto spooled = snapshots_ != nullptr ? snapshots_->Newest(database.name) : std::nullopt) news += spooled->id();
    }
    states += fmt::format("{} {} {} {}\n", database.name, static_cast<int>(status->health.state()), status->health.has_last_sync_at(),
                          status->health.message());
  }
  // What changes with every sync is written now and then, and until when nothing is new, which changes with every look, more rarely: the
  // time that an agent which is killed was down is told too long by that.
  const seconds rest = states != states_ ? seconds(0) : news != news_ ? kWriteStates : kWriteAtRest;
  if (written_at_.has_value() && now - *written_at_ < rest) return;
  std::string text = captures.SerializeAsString();
  if (text == written_) return;
  written_at_ = now;
  if (const absl::Status status = state_.WriteCaptures(text); !status.ok()) {
    spdlog::warn("{}", MessageOf(status));
    return;
  }
  written_ = std::move(text);
  states_ = std::move(states);
  news_ = std::move(news);
}

}  // namespace litefleet
