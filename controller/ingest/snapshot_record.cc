#include "controller/ingest/snapshot_record.h"

#include <algorithm>
#include <cstdlib>

namespace litefleet::ingest {
namespace {

constexpr int64_t kLongestMs = int64_t{100} * 365 * 86400 * 1000;  // a century: what a device claims beyond that is nonsense
constexpr size_t kMaxMessage = 2000;

int64_t Millis(const google::protobuf::Duration& duration) {
  const int64_t seconds = std::clamp<int64_t>(duration.seconds(), 0, kLongestMs / 1000);
  return seconds * 1000 + std::clamp(duration.nanos(), 0, 999'999'999) / 1'000'000;
}

// Years 1 to 9999, as protobuf has them: what a device counts back from a clock that stands in 1970 is before that, until its offset is
// added.
int64_t Millis(const google::protobuf::Timestamp& time) {
  const int64_t seconds = std::clamp<int64_t>(time.seconds(), -62'135'596'800, 253'402'300'799);
  return seconds * 1000 + std::clamp(time.nanos(), 0, 999'999'999) / 1'000'000;
}

constexpr int64_t kClockWasSetMs = 30'000;
// No clock that says less was set.
constexpr int64_t kNoClockBeforeMs = 1'704'067'200'000;  // 2024

std::string Shortened(std::string text) {
  if (text.size() <= kMaxMessage) return text;
  size_t end = kMaxMessage;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  text.resize(end);
  return text;
}

}  // namespace

storage::v1::SnapshotRecord MakeSnapshotRecord(const v1::UploadBegin& begin, const v1::UploadCommit& commit, const RecordFacts& facts) {
  const int64_t received = ToUnixMillis(facts.received_at);
  int64_t taken = commit.has_taken_at() ? std::max<int64_t>(Millis(commit.taken_at()) + facts.clock_offset_ms, 0) : received;
  const int64_t claimed = commit.has_age() ? received - Millis(commit.age()) : taken;
  // The device's clock has been set since it was measured: its age says more. That is late by what the link took, which makes the state
  // look newer than it is, and by no more than the stream has lasted: within that the clock is believed. An import has no device: its time
  // is that of the file.
  const int64_t later = claimed - taken;
  const bool was_set = later < -kClockWasSetMs || later > kClockWasSetMs + std::max<int64_t>(facts.streamed.count(), 0);
  // A receipt on hold may be far off. Where the device agrees with the system clock the two are believed.
  const bool agreed =
      facts.system_time.has_value() && std::abs(ToUnixMillis(*facts.system_time) - Millis(commit.age()) - taken) <= kClockWasSetMs;
  if (facts.provenance.empty() && commit.has_age() && was_set && !agreed) taken = std::clamp<int64_t>(claimed, 0, received);
  const int64_t not_before =
      facts.not_before.has_value() ? std::min(ToUnixMillis(*facts.not_before), received) : std::min(claimed, received);
  const int64_t effective = std::clamp(claimed, not_before, received);
  // It has no age, and a clock that was not set: of all that is known the next to it is when something was heard of the device before.
  if (facts.provenance.empty() && !commit.has_age() && taken < kNoClockBeforeMs) taken = effective;
  storage::v1::SnapshotRecord record;
  record.set_snapshot_id(facts.snapshot.value());
  record.set_device_id(facts.device.value());
  record.set_database(begin.database());
  record.set_timeline(begin.timeline());
  record.set_sequence(facts.sequence);
  record.set_method(begin.method());
  record.set_page_size(commit.page_size());
  record.set_page_count(commit.page_count());
  record.set_root_digest(commit.root_digest());
  record.set_root_version(commit.root_version());
  record.set_manifest_parts(static_cast<uint32_t>(facts.manifest.own.size()));
  record.set_taken_at_ms(taken);
  record.set_received_at_ms(received);
  record.set_effective_at_ms(effective);
  record.set_journal_mode(v1::JournalMode_IsValid(commit.journal_mode()) ? commit.journal_mode() : v1::JOURNAL_MODE_UNSPECIFIED);
  const bool damaged = commit.source_check() == v1::CHECK_STATE_DAMAGED;
  const bool known = v1::CheckState_IsValid(commit.source_check()) && commit.source_check() != v1::CHECK_STATE_UNSPECIFIED;
  record.set_source_check(known ? commit.source_check() : v1::CHECK_STATE_UNKNOWN);
  if (damaged || commit.source_check() == v1::CHECK_STATE_CANNOT_TELL)
    record.set_source_check_message(Shortened(commit.source_check_message()));
  record.set_pages_sent(std::min(commit.pages_sent(), commit.page_count()));
  record.set_wire_bytes(facts.wire_bytes);
  record.set_stored_bytes(facts.stored_bytes);
  record.set_duration_ms(Millis(commit.duration()));
  record.set_pinned_ms(Millis(commit.pinned()));
  record.set_read_bytes(std::max<int64_t>(commit.read_bytes(), 0));
  record.set_operation_id(begin.operation_id());
  record.set_session_id(begin.session_id());
  const bool layered = facts.manifest.layers.size() != 1 || facts.manifest.layers[0].id != facts.snapshot.value();
  record.set_manifest_kind(layered ? 2 : 1);
  for (const catalog::ManifestLayer& layer : facts.manifest.layers) {
    storage::v1::ManifestLayer& out = *record.add_layers();
    out.set_id(layer.id);
    out.set_parts(layer.parts);
    out.set_bytes(layer.bytes);
  }
  record.set_parent_id(facts.manifest.base.value());
  record.set_pages_changed(facts.pages_changed);
  record.set_precopied(commit.precopied());
  if (begin.content() > v1::SNAPSHOT_CONTENT_DATABASE) record.set_content_bytes(std::max<int64_t>(commit.content_bytes(), 0));
  record.set_content(begin.content() == v1::SNAPSHOT_CONTENT_UNSPECIFIED ? v1::SNAPSHOT_CONTENT_DATABASE : begin.content());
  record.set_commits(commit.commits());
  record.set_provenance(facts.provenance);
  if (begin.content() == v1::SNAPSHOT_CONTENT_SQL) record.set_part(Shortened(commit.part()));
  record.set_compatible(begin.content() == v1::SNAPSHOT_CONTENT_SQL && commit.compatible());
  return record;
}

}  // namespace litefleet::ingest
