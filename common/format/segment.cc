#include "common/format/segment.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::format {
namespace {

constexpr std::array<std::byte, 4> kMagic = {std::byte{'L'}, std::byte{'F'}, std::byte{'S'}, std::byte{'1'}};
constexpr uint32_t kMaxPages = kExtentBytes / kContentPageBytes;
// The hash sees this many bytes: each shifts what is before it by one of 64 bits.
constexpr uint32_t kWindow = 64;
constexpr uint64_t kCutMask = uint64_t{0xffff} << 48;

// SplitMix64 from seed 0.
constexpr std::array<uint64_t, 256> MakeGear() {
  std::array<uint64_t, 256> gear{};
  uint64_t state = 0;
  for (uint64_t& value : gear) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    value = z ^ (z >> 31);
  }
  return gear;
}
constexpr std::array<uint64_t, 256> kGear = MakeGear();

uint32_t PagesFor(uint32_t text_bytes) { return (kSegmentHeaderBytes + text_bytes + kContentPageBytes - 1) / kContentPageBytes; }

absl::Status Damaged(uint64_t page, std::string_view what) {
  return Error(absl::StatusCode::kDataLoss, "CONTENT_DAMAGED",
               fmt::format("the content from page {} on makes no sense: {}", page + 1, what),
               "it was written by another program, or by a device that is not to be trusted");
}

}  // namespace

void EncodeSegmentHeader(const SegmentHeader& header, std::span<std::byte, kSegmentHeaderBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::copy(kMagic.begin(), kMagic.end(), out.begin());
  out[4] = static_cast<std::byte>(header.content);
  StoreLittleEndian(header.text_bytes, out.data() + 8);
  StoreLittleEndian(header.pages, out.data() + 12);
}

std::optional<SegmentHeader> DecodeSegmentHeader(std::span<const std::byte, kSegmentHeaderBytes> raw) {
  SegmentHeader header{.content = static_cast<Content>(raw[4]),
                       .text_bytes = LoadLittleEndian<uint32_t>(raw.data() + 8),
                       .pages = LoadLittleEndian<uint32_t>(raw.data() + 12)};
  const bool plain = std::equal(kMagic.begin(), kMagic.end(), raw.begin()) && raw[5] == std::byte{0} && raw[6] == std::byte{0} &&
                     raw[7] == std::byte{0} && (header.content == Content::kSql || header.content == Content::kFiles);
  if (!plain || header.text_bytes > kMaxSegmentText || header.pages == 0 || header.pages > kMaxPages) return std::nullopt;
  if (header.text_bytes != 0 && header.pages != PagesFor(header.text_bytes)) return std::nullopt;
  return header;
}

SegmentWriter::SegmentWriter(Content content) : content_(content) { open_.resize(kSegmentHeaderBytes); }

absl::Status SegmentWriter::Add(ByteView text) {
  text_bytes_ += static_cast<int64_t>(text.size());
  while (!text.empty()) {
    const auto have = static_cast<uint32_t>(open_.size()) - kSegmentHeaderBytes;
    const size_t room = std::min<size_t>(text.size(), kMaxSegmentText - have);
    size_t take = 0;
    bool cut = false;
    // Bytes that no hash sees, since no segment ends there.
    if (have + kWindow < kMinSegmentText) take = std::min<size_t>(room, kMinSegmentText - kWindow - have);
    uint64_t hash = hash_;
    while (take < room && !cut) {
      hash = (hash << 1) + kGear[static_cast<uint8_t>(text[take++])];
      cut = (hash & kCutMask) == 0 && have + take >= kMinSegmentText;
    }
    hash_ = hash;
    open_.insert(open_.end(), text.begin(), text.begin() + static_cast<std::ptrdiff_t>(take));
    text = text.subspan(take);
    if (cut || open_.size() == kExtentBytes) LF_RETURN_IF_ERROR(Close());
  }
  return absl::OkStatus();
}

absl::Status SegmentWriter::Finish() {
  if (open_.size() > kSegmentHeaderBytes) LF_RETURN_IF_ERROR(Close());
  if (extent_.empty()) return absl::OkStatus();
  extents_.push_back(NameChunk(kContentPageBytes, extent_));
  extent_.clear();
  return absl::OkStatus();
}

absl::Status SegmentWriter::Close() {
  const auto text_bytes = static_cast<uint32_t>(open_.size()) - kSegmentHeaderBytes;
  const uint32_t pages = PagesFor(text_bytes);
  // A segment that does not fit into the stretch begins in the next one, so that it stays the same wherever it stands.
  constexpr uint32_t kPerStretch = PagesPerStretch(kContentPageBytes);
  if (const uint32_t left = kPerStretch - (next_page_ - 1) % kPerStretch; left < pages) {
    LF_RETURN_IF_ERROR(Emit({.content = content_, .text_bytes = 0, .pages = left}, Bytes(size_t{left} * kContentPageBytes)));
  }
  hash_ = 0;
  Bytes next;
  next.reserve(kExtentBytes);
  next.resize(kSegmentHeaderBytes);
  std::swap(next, open_);
  next.resize(size_t{pages} * kContentPageBytes);
  return Emit({.content = content_, .text_bytes = text_bytes, .pages = pages}, std::move(next));
}

absl::Status SegmentWriter::Emit(SegmentHeader header, Bytes pages) {
  if (uint64_t{next_page_} + header.pages > kMaxPageCount) {
    return Error(absl::StatusCode::kResourceExhausted, "CONTENT_TOO_LARGE", "the text has more than 2 TiB",
                 "back the database up by the method online, or leave tables out");
  }
  EncodeSegmentHeader(header, std::span<std::byte, kSegmentHeaderBytes>(pages.data(), kSegmentHeaderBytes));
  std::vector<PageDigest> digests;
  digests.reserve(header.pages);
  DigestPages(kContentPageBytes, pages, digests);
  const ChunkName name = NameChunk(kContentPageBytes, digests);
  for (const PageDigest& digest : digests) {
    extent_.push_back(digest);
    if (extent_.size() < PagesPerExtent(kContentPageBytes)) continue;
    extents_.push_back(NameChunk(kContentPageBytes, extent_));
    extent_.clear();
  }
  ready_.push_back({.first_page = next_page_, .pages = std::move(pages), .name = name});
  next_page_ += header.pages;
  return absl::OkStatus();
}

std::optional<SegmentWriter::Segment> SegmentWriter::Take() {
  if (ready_.empty()) return std::nullopt;
  Segment segment = std::move(ready_.front());
  ready_.pop_front();
  return segment;
}

RootDigest SegmentWriter::Root() const {
  RootBuilder root(kContentPageBytes, page_count());
  for (const ChunkName& extent : extents_) root.Add(extent);
  return root.Finish();
}

absl::Status SegmentReader::Add(ByteView pages, absl::FunctionRef<absl::Status(ByteView text)> text) {
  while (!pages.empty()) {
    if (text_left_ > 0) {
      const size_t take = std::min<size_t>(pages.size(), text_left_);
      LF_RETURN_IF_ERROR(text(pages.first(take)));
      text_left_ -= static_cast<uint32_t>(take);
      text_bytes_ += static_cast<int64_t>(take);
      pages = pages.subspan(take);
    } else if (zeros_left_ > 0) {
      const size_t take = std::min<size_t>(pages.size(), zeros_left_);
      const ByteView zeros = pages.first(take);
      if (std::any_of(zeros.begin(), zeros.end(), [](std::byte b) { return b != std::byte{0}; }))
        return Damaged(page_, "there is something behind the text");
      zeros_left_ -= static_cast<uint32_t>(take);
      pages = pages.subspan(take);
    } else {
      const size_t take = std::min<size_t>(pages.size(), kSegmentHeaderBytes - header_have_);
      std::copy_n(pages.begin(), take, header_.begin() + header_have_);
      header_have_ += static_cast<uint32_t>(take);
      pages = pages.subspan(take);
      if (header_have_ < kSegmentHeaderBytes) break;
      const std::optional<SegmentHeader> header = DecodeSegmentHeader(header_);
      if (!header.has_value() || header->content != content_) return Damaged(page_, "no segment begins there");
      header_have_ = 0;
      page_ += header->pages;
      text_left_ = header->text_bytes;
      zeros_left_ = header->pages * kContentPageBytes - kSegmentHeaderBytes - header->text_bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status SegmentReader::Finish() const {
  if (header_have_ == 0 && text_left_ == 0 && zeros_left_ == 0) return absl::OkStatus();
  return Damaged(page_, "it ends before its time");
}

}  // namespace litefleet::format
