#include "controller/ingest/snapshot_record.h"

#include <algorithm>

namespace litefleet::ingest {
namespace {

constexpr int64_t kLongestMs = int64_t{100} * 365 * 86400 * 1000;  // a century: what a device claims beyond that is nonsense
constexpr size_t kMaxMessage = 2000;

int64_t Millis(const google::protobuf::Duration& duration) {
  const int64_t seconds = std::clamp<int64_t>(duration.seconds(), 0, kLongestMs / 1000);
  return seconds * 1000 + std::clamp(duration.nanos(), 0, 999'999'999) / 1'000'000;
}

// Years 1970 to 9999, as RFC 3339 and protobuf have them.
int64_t Millis(const google::protobuf::Timestamp& time) {
  const int64_t seconds = std::clamp<int64_t>(time.seconds(), 0, 253'402'300'799);
  return seconds * 1000 + std::clamp(time.nanos(), 0, 999'999'999) / 1'000'000;
}

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
  const int64_t taken = commit.has_taken_at() ? std::max<int64_t>(Millis(commit.taken_at()) + facts.clock_offset_ms, 0) : received;
  const int64_t claimed = commit.has_age() ? received - Millis(commit.age()) : taken;
  const int64_t not_before =
      facts.not_before.has_value() ? std::min(ToUnixMillis(*facts.not_before), received) : std::min(claimed, received);
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
  record.set_effective_at_ms(std::clamp(claimed, not_before, received));
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
  return record;
}

}  // namespace litefleet::ingest
