#include "agent/upload/page_gatherer.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::upload {
namespace {

constexpr size_t kMayEndFrom = format::kExtentBytes / 2;

// True of one page in 64 KiB. Runs are not torn: a chunk ends behind the run of such a page.
bool MayEndAt(uint32_t page_size, const format::PageDigest& digest) {
  const uint32_t pages = std::max<uint32_t>(2, format::kExtentBytes / page_size / 4);
  return (LoadLittleEndian<uint32_t>(digest.bytes.data()) & (pages - 1)) == 0;
}

}  // namespace

// Buffers of one extent each, handed out and taken back.
class PageGatherer::Buffers {
 public:
  std::unique_ptr<Bytes> Take() {
    MutexLock lock(mu_);
    if (free_.empty()) {
      auto buffer = std::make_unique<Bytes>();
      buffer->reserve(format::kExtentBytes);
      return buffer;
    }
    auto buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  void GiveBack(std::unique_ptr<Bytes> buffer) {
    buffer->clear();
    MutexLock lock(mu_);
    free_.push_back(std::move(buffer));
  }

 private:
  Mutex mu_;
  std::vector<std::unique_ptr<Bytes>> free_ ABSL_GUARDED_BY(mu_);
};

struct PageGatherer::RawPayload final : PackablePayload {
  RawPayload(std::shared_ptr<Buffers> owner, std::unique_ptr<Bytes> content) : buffers(std::move(owner)), bytes(std::move(content)) {}
  ~RawPayload() override { buffers->GiveBack(std::move(bytes)); }
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    PackedChunk packed;
    LF_ASSIGN_OR_RETURN(packed.codec, compressor.Compress(*bytes, packed.data));
    return packed;
  }
  absl::StatusOr<std::string> Raw() const override { return std::string(AsText(*bytes)); }

  const std::shared_ptr<Buffers> buffers;
  std::unique_ptr<Bytes> bytes;
};

PageGatherer::PageGatherer(uint32_t page_size) : page_size_(page_size), buffers_(std::make_shared<Buffers>()) {}

std::optional<Chunk> PageGatherer::Add(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests) {
  std::optional<Chunk> complete;
  if (!runs_.empty() && (ends_ || bytes_->size() + pages.size() > format::kExtentBytes ||
                         format::StretchOf(page_size_, first_page) != format::StretchOf(page_size_, runs_[0].first_page))) {
    complete = Flush();
  }
  if (bytes_ == nullptr) bytes_ = buffers_->Take();
  if (runs_.empty() || runs_.back().first_page + runs_.back().page_count != first_page) runs_.push_back({.first_page = first_page});
  runs_.back().page_count += static_cast<uint32_t>(digests.size());
  for (size_t i = 0; i < digests.size(); ++i)
    ends_ = ends_ || (bytes_->size() + i * page_size_ >= kMayEndFrom && MayEndAt(page_size_, digests[i]));
  bytes_->insert(bytes_->end(), pages.begin(), pages.end());
  digests_.insert(digests_.end(), digests.begin(), digests.end());
  return complete;
}

std::optional<Chunk> PageGatherer::AddMoved(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests,
                                            std::span<const uint32_t> sources) {
  std::optional<Chunk> complete = Add(first_page, pages, digests);
  for (const uint32_t source : sources) {
    if (sources_.empty() || sources_.back().first_page + sources_.back().page_count != source) sources_.push_back({.first_page = source});
    ++sources_.back().page_count;
  }
  return complete;
}

std::optional<Chunk> PageGatherer::Flush() {
  if (runs_.empty()) return std::nullopt;
  ends_ = false;
  Chunk chunk;
  chunk.name = format::NameChunk(page_size_, digests_);
  chunk.runs = std::exchange(runs_, {});
  chunk.sources = std::exchange(sources_, {});
  chunk.raw_bytes = static_cast<uint32_t>(bytes_->size());
  chunk.payload = std::make_shared<RawPayload>(buffers_, std::move(bytes_));
  digests_.clear();
  return chunk;
}

Chunk PageGatherer::Whole(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests) {
  Chunk chunk;
  chunk.name = format::NameChunk(page_size_, digests);
  chunk.runs = {{.first_page = first_page, .page_count = static_cast<uint32_t>(digests.size())}};
  chunk.raw_bytes = static_cast<uint32_t>(pages.size());
  auto buffer = buffers_->Take();
  buffer->assign(pages.begin(), pages.end());
  chunk.payload = std::make_shared<RawPayload>(buffers_, std::move(buffer));
  return chunk;
}

}  // namespace litefleet::upload
