// Content that is not a database (SQL text, files) as pages, so that everything that keeps, sends and proves pages serves it too.
// FORMAT.md, "Content", is the definition.
//
// The text is cut where a rolling hash says so, wherever it stands, so that two texts that have much in common have segments in common, and
// each segment is one chunk. Not for databases. Thread safety: none of the classes. Do not change the values: they are on disk and on the
// wire.
#ifndef LITEFLEET_COMMON_FORMAT_SEGMENT_H_
#define LITEFLEET_COMMON_FORMAT_SEGMENT_H_

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"
#include "common/format/extent.h"

namespace litefleet::format {

// As litefleet.v1.SnapshotContent.
enum class Content : uint8_t { kSql = 2, kFiles = 3 };

inline constexpr uint32_t kContentPageBytes = 512;
inline constexpr uint32_t kSegmentHeaderBytes = 16;
inline constexpr uint32_t kMinSegmentText = 16 * 1024;
inline constexpr uint32_t kMaxSegmentText = kExtentBytes - kSegmentHeaderBytes;

struct SegmentHeader {
  Content content = Content::kSql;
  uint32_t text_bytes = 0;  // 0: padding
  uint32_t pages = 0;       // this one's included
};

void EncodeSegmentHeader(const SegmentHeader& header, std::span<std::byte, kSegmentHeaderBytes> out);
// Nothing where it is not one that EncodeSegmentHeader writes for a possible segment.
std::optional<SegmentHeader> DecodeSegmentHeader(std::span<const std::byte, kSegmentHeaderBytes> raw);

// Segments in the order of the text. Memory: one segment, those that were not taken, and 32 bytes for each 256 KiB.
class SegmentWriter {
 public:
  struct Segment {
    uint32_t first_page = 0;  // from 1
    Bytes pages;              // header, text, zeros
    ChunkName name;
  };

  explicit SegmentWriter(Content content);

  // Errors: kResourceExhausted CONTENT_TOO_LARGE, at 2 TiB.
  absl::Status Add(ByteView text);
  // No text comes any more. Once.
  absl::Status Finish();
  // The next finished segment, or nothing.
  std::optional<Segment> Take();

  int64_t text_bytes() const { return text_bytes_; }
  // So far.
  uint32_t page_count() const { return next_page_ - 1; }
  // REQUIRES: Finish was called.
  RootDigest Root() const;

 private:
  absl::Status Close();
  // Adds pages that begin at next_page_.
  absl::Status Emit(SegmentHeader header, Bytes pages);

  const Content content_;
  Bytes open_;  // room for the header, then text
  uint64_t hash_ = 0;
  uint32_t next_page_ = 1;
  int64_t text_bytes_ = 0;
  std::deque<Segment> ready_;
  std::vector<PageDigest> extent_;  // of the extent that is not complete yet
  std::vector<ChunkName> extents_;
};

// Gives the text of pages back that come in order. What it gives of content that turns out to be damaged is worthless.
class SegmentReader {
 public:
  explicit SegmentReader(Content content) : content_(content) {}

  // Any number of bytes. Errors: kDataLoss CONTENT_DAMAGED; those of the sink.
  absl::Status Add(ByteView pages, absl::FunctionRef<absl::Status(ByteView text)> text);
  // Errors: kDataLoss CONTENT_DAMAGED where a segment is not complete.
  absl::Status Finish() const;
  int64_t text_bytes() const { return text_bytes_; }

 private:
  const Content content_;
  std::array<std::byte, kSegmentHeaderBytes> header_{};
  uint32_t header_have_ = 0;
  uint32_t text_left_ = 0;
  uint32_t zeros_left_ = 0;
  uint64_t page_ = 0;  // where the next segment begins, counted from 0
  int64_t text_bytes_ = 0;
};

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_SEGMENT_H_
