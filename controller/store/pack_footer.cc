#include "controller/store/pack_footer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "common/base/bytes.h"
#include "common/format/pack_record.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::store {
namespace {

constexpr size_t kMaxFooter = 256;  // with its header; it holds four numbers
constexpr std::string_view kMagic = "LFR1";
constexpr size_t kTagAt = 8;

}  // namespace

std::optional<uint64_t> TagFromFooter(File& file) {
  const absl::StatusOr<uint64_t> size = file.Size();
  if (!size.ok() || *size < format::kPackHeaderBytes + format::kRecordHeaderBytes) return std::nullopt;
  std::array<std::byte, kMaxFooter> bytes;
  const uint64_t from = std::max<uint64_t>(format::kPackHeaderBytes, *size - std::min<uint64_t>(*size, bytes.size()));
  const auto want = static_cast<size_t>(*size - from);
  const absl::StatusOr<size_t> got = file.ReadAt(from, std::span(bytes).first(want));
  if (!got.ok() || *got != want) return std::nullopt;
  const ByteView end = ByteView(bytes).first(want);
  // From the end: what a payload in front of it looks like is the device's.
  for (size_t at = AsText(end).rfind(kMagic); at != std::string_view::npos; at = at == 0 ? at - 1 : AsText(end).rfind(kMagic, at - 1)) {
    const ByteView record = end.subspan(at);
    if (record.size() < format::kRecordHeaderBytes) continue;
    const auto tag = LoadLittleEndian<uint64_t>(record.data() + kTagAt);
    const absl::StatusOr<format::RecordHeader> header = format::DecodeRecordHeader(record, tag);
    if (!header.ok() || header->type != format::RecordType::kFooter) continue;
    const ByteView payload = record.subspan(format::kRecordHeaderBytes);
    storage::v1::PackFooter footer;
    if (!format::CheckPayload(*header, payload).ok() || !footer.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) continue;
    if (footer.bytes() == from + at) return tag;
  }
  return std::nullopt;
}

}  // namespace litefleet::store
