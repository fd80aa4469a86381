#include "agent/follow/extent_names.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::follow {
namespace {

constexpr uint32_t kBatch = 2048;  // 64 KiB

}  // namespace

ExtentNames::~ExtentNames() { unlink(path_.c_str()); }

absl::Status ExtentNames::Open() {
  if (fd_.valid()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(fd_, io::Open(path_, O_RDWR | O_CREAT));
  return absl::OkStatus();
}

absl::Status ExtentNames::Follow(ledger::Ledger& ledger) {
  const ledger::LedgerState& state = *ledger.state();
  if (of_ == state.snapshot_id) return absl::OkStatus();
  of_.clear();
  LF_RETURN_IF_ERROR(Open());
  const uint32_t extents = format::ExtentCount(state.page_size, state.page_count);
  std::vector<format::PageDigest> digests;
  std::vector<format::ChunkName> names;
  for (uint32_t extent = 0; extent < extents; ++extent) {
    digests.resize(format::PagesIn(state.page_size, state.page_count, extent));
    LF_RETURN_IF_ERROR(ledger.Read(format::FirstPageOf(state.page_size, extent), digests));
    names.push_back(format::NameChunk(state.page_size, digests));
    if (names.size() < kBatch && extent + 1 < extents) continue;
    const uint64_t first = extent + 1 - names.size();
    LF_RETURN_IF_ERROR(io::PwriteAll(fd_.get(), std::as_bytes(std::span(names)), first * format::kDigestBytes, path_));
    names.clear();
  }
  of_ = state.snapshot_id;
  return absl::OkStatus();
}

absl::Status ExtentNames::Set(uint32_t extent, const format::ChunkName& name) {
  of_.clear();
  LF_RETURN_IF_ERROR(Open());
  return io::PwriteAll(fd_.get(), name.bytes, uint64_t{extent} * format::kDigestBytes, path_);
}

absl::StatusOr<format::RootDigest> ExtentNames::Root(uint32_t page_size, uint32_t page_count) {
  LF_RETURN_IF_ERROR(Open());
  format::RootBuilder root(page_size, page_count);
  const uint32_t extents = format::ExtentCount(page_size, page_count);
  std::vector<format::ChunkName> names;
  for (uint32_t first = 0; first < extents; first += kBatch) {
    names.resize(std::min(kBatch, extents - first));
    LF_RETURN_IF_ERROR(io::PreadAll(fd_.get(), std::as_writable_bytes(std::span(names)), uint64_t{first} * format::kDigestBytes, path_));
    for (const format::ChunkName& name : names) root.Add(name);
  }
  return root.Finish();
}

}  // namespace litefleet::follow
