#include "agent/restore/fetch_sequence.h"

#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

absl::Status Cut(std::string_view before) {
  return Error(Code::kUnavailable, "FETCH_CUT", fmt::format("the stream ended before {}", before));
}

}  // namespace

absl::Status FetchInvalid(std::string_view why) {
  return Error(Code::kDataLoss, "FETCH_INVALID", fmt::format("the controller did not send what the order asks for: {}", why),
               "bring agent and controller to the same version; look at the controller's log");
}

absl::StatusOr<bool> ChunkSequence::ReadMessage(v1::FetchResponse& message) {
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool more, stream_.Read(message, steady_clock::now() + timeout_));
    if (!more && !header_seen_) return Cut("its header");
    if (!more) return false;
    if (message.has_header() == header_seen_) return FetchInvalid("a header where none belongs, or none where one does");
    if (header_seen_) return true;
    header_seen_ = true;
    const v1::FetchHeader& header = message.header();
    if (header.page_size() != order_.page_size() || header.page_count() != order_.page_count() ||
        header.root_digest() != order_.root_digest() || header.root_version() != order_.root_version()) {
      return FetchInvalid("another snapshot");
    }
  }
}

absl::StatusOr<v1::FetchedChunk*> ChunkSequence::NextChunk() {
  if (at_ == message_.chunks().chunks_size()) {
    at_ = 0;
    LF_ASSIGN_OR_RETURN(const bool more, ReadMessage(message_));
    if (!more) {
      message_.Clear();
      return nullptr;
    }
    if (!message_.has_chunks() || message_.chunks().chunks().empty()) return FetchInvalid("a message without chunks");
  }
  return message_.mutable_chunks()->mutable_chunks(at_++);
}

absl::StatusOr<ClaimedChunk> ChunkSequence::Take(v1::FetchedChunk& fetched) const {
  ClaimedChunk claimed;
  uint64_t pages = 0;
  for (const v1::PageRun& run : fetched.runs()) {
    claimed.runs.push_back({.first_page = run.first_page(), .page_count = run.page_count()});
    pages += run.page_count();
  }
  const auto name = format::ChunkName::FromBytes(fetched.chunk().name());
  if (!name.has_value() || pages * order_.page_size() > format::kExtentBytes || fetched.chunk().raw_bytes() != pages * order_.page_size() ||
      fetched.chunk().data().size() > format::kExtentBytes) {
    return FetchInvalid(fmt::format("a chunk of {} bytes for {} pages", fetched.chunk().raw_bytes(), pages));
  }
  switch (fetched.chunk().codec()) {
    case v1::CODEC_RAW:
      claimed.codec = format::Codec::kRaw;
      break;
    case v1::CODEC_ZSTD:
      claimed.codec = format::Codec::kZstd;
      break;
    default:
      return FetchInvalid("an unknown codec");
  }
  claimed.raw_bytes = fetched.chunk().raw_bytes();
  claimed.name = *name;
  claimed.data = std::move(*fetched.mutable_chunk()->mutable_data());
  return claimed;
}

ExtentSequence::ExtentSequence(FetchStream& stream, const v1::RestoreOrder& order, uint32_t first_extent, std::chrono::seconds timeout)
    : ChunkSequence(stream, order, timeout), next_(first_extent), end_(format::ExtentCount(order.page_size(), order.page_count())) {}

absl::StatusOr<std::optional<ClaimedChunk>> ExtentSequence::Next() {
  if (next_ == end_) return std::nullopt;
  LF_ASSIGN_OR_RETURN(v1::FetchedChunk* const fetched, NextChunk());
  if (fetched == nullptr) return Cut(fmt::format("extent {} of {}", next_, end_));
  if (fetched->runs_size() != 1 || fetched->runs(0).first_page() != format::FirstPageOf(order().page_size(), next_) ||
      fetched->runs(0).page_count() != format::PagesIn(order().page_size(), order().page_count(), next_)) {
    return FetchInvalid(fmt::format("other pages where those of extent {} were next", next_));
  }
  ++next_;
  return Take(*fetched);
}

absl::StatusOr<std::optional<ClaimedChunk>> PageSequence::Next() {
  LF_ASSIGN_OR_RETURN(v1::FetchedChunk* const fetched, NextChunk());
  if (fetched == nullptr) return std::nullopt;
  LF_ASSIGN_OR_RETURN(ClaimedChunk claimed, Take(*fetched));
  if (claimed.runs.empty()) return FetchInvalid("a chunk of no pages");
  for (const PageRange& run : claimed.runs) {
    const uint64_t end = uint64_t{run.first_page} + run.page_count;
    const auto wanted_end = [&] { return uint64_t{wanted_.runs[at_].first_page} + wanted_.runs[at_].page_count; };
    while (at_ < wanted_.runs.size() && wanted_end() <= run.first_page) ++at_;
    if (run.page_count == 0 || run.first_page < next_ || at_ == wanted_.runs.size() || run.first_page < wanted_.runs[at_].first_page ||
        end > wanted_end()) {
      return FetchInvalid(fmt::format("page {} was not asked for, or came before", run.first_page));
    }
    next_ = end;
  }
  return claimed;
}

absl::StatusOr<std::vector<format::ChunkName>> NameSequence::NextNames() {
  std::vector<format::ChunkName> names;
  const uint32_t extents = format::ExtentCount(order().page_size(), order().page_count());
  if (next_ == extents) return names;
  v1::FetchResponse message;
  LF_ASSIGN_OR_RETURN(const bool more, ReadMessage(message));
  if (!more) return Cut(fmt::format("the name of extent {} of {}", next_, extents));
  // One that does not know the question sends pages.
  if (message.has_chunks() && next_ == 0)
    return Error(Code::kUnimplemented, "NAMES_UNSUPPORTED", "the controller is older than this agent, and sends whole snapshots alone");
  const std::string& bytes = message.names().names();
  if (message.names().first_extent() != next_ || bytes.empty() || bytes.size() % format::kDigestBytes != 0 ||
      bytes.size() / format::kDigestBytes > extents - next_) {
    return FetchInvalid(fmt::format("other names where that of extent {} was next", next_));
  }
  names.resize(bytes.size() / format::kDigestBytes);
  for (size_t i = 0; i < names.size(); ++i)
    names[i] = *format::ChunkName::FromBytes(std::string_view(bytes).substr(i * format::kDigestBytes, format::kDigestBytes));
  next_ += static_cast<uint32_t>(names.size());
  return names;
}

}  // namespace litefleet::restore
