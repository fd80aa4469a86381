#include "agent/restore/delta_fetch.h"

#include <algorithm>
#include <utility>

#include "agent/restore/local_pages.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

// Of one call.
constexpr size_t kMaxHave = 768 << 10;
constexpr size_t kMaxRuns = 20'000;

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled"); }

}  // namespace

DeltaFetch::DeltaFetch(const Parts& parts)
    : parts_(parts),
      extents_(format::ExtentCount(parts.order.page_size(), parts.order.page_count())),
      held_(extents_, false),
      present_(extents_, false) {}

absl::Status DeltaFetch::Run(const format::RootDigest& root, Result& result) {
  const absl::Status named = GetNames(root);
  result.supported = named.code() != Code::kUnimplemented;
  if (!result.supported) return absl::OkStatus();
  LF_RETURN_IF_ERROR(named);
  LF_CRASH_POINT("restore.delta.named");
  LF_RETURN_IF_ERROR(LookAtStaging());
  LF_RETURN_IF_ERROR(TakeLocal(result));
  LF_CRASH_POINT("restore.delta.local");
  LF_RETURN_IF_ERROR(FetchMissing(/*with_digests=*/true, result));
  LF_RETURN_IF_ERROR(FetchMissing(/*with_digests=*/false, result));
  result.shared_bytes = parts_.staging.shared_bytes();  // less what was written over them since
  for (uint32_t extent = parts_.staging.next_extent(); extent < extents_; ++extent) {
    if (!held_[extent]) {
      return Error(Code::kDataLoss, "FETCH_INVALID", fmt::format("what the controller sent for extent {} does not have its name", extent),
                   "look at the controller's log and store, then restore again");
    }
    LF_ASSIGN_OR_RETURN(const format::ChunkName name, NameOf(extent));
    parts_.staging.Adopt(name);
  }
  return absl::OkStatus();
}

bool DeltaFetch::LogIsProven(const format::RootDigest& root) const {
  format::RootBuilder proof(parts_.order.page_size(), parts_.order.page_count());
  for (uint32_t extent = 0; extent < extents_; ++extent) {
    const auto name = parts_.log.At(extent);
    if (!name.ok() || !name->has_value()) return false;
    proof.Add(**name);
  }
  return proof.Finish() == root;
}

absl::Status DeltaFetch::GetNames(const format::RootDigest& root) {
  if (LogIsProven(root)) return absl::OkStatus();
  uint32_t next = 0;
  uint64_t calls = 0;
  LF_RETURN_IF_ERROR(parts_.persist(
      [&] {
        next = 0;
        return parts_.fetcher.FetchNames(parts_.operation_id, parts_.order, parts_.cancel,
                                         [&](std::span<const format::ChunkName> names) -> absl::Status {
                                           for (const format::ChunkName& name : names) LF_RETURN_IF_ERROR(parts_.log.Put(next++, name));
                                           parts_.progress.AddWireBytes(static_cast<int64_t>(names.size() * format::kDigestBytes));
                                           ++calls;
                                           return absl::OkStatus();
                                         });
      },
      [&] { return calls; }));
  if (LogIsProven(root)) return absl::OkStatus();
  return Error(Code::kDataLoss, "ROOT_MISMATCH",
               "the names of the extents that the controller sent do not have the root digest that was ordered",
               "nothing was changed; restore another snapshot, and look at the controller's store");
}

absl::StatusOr<format::ChunkName> DeltaFetch::NameOf(uint32_t extent) const {
  LF_ASSIGN_OR_RETURN(const auto name, parts_.log.At(extent));
  if (!name.has_value()) return Error(Code::kDataLoss, "STAGING_DAMAGED", "the log of the staging file has become shorter");
  return *name;
}

void DeltaFetch::Held(uint32_t extent) {
  if (held_[extent]) return;
  held_[extent] = true;
  parts_.progress.At(static_cast<int64_t>(++held_count_), extents_);
}

absl::Status DeltaFetch::LookAtStaging() {
  for (uint32_t extent = 0; extent < parts_.staging.next_extent(); ++extent) Held(extent);
  uint32_t from = parts_.staging.next_extent();
  return Settle(from, extents_);
}

absl::Status DeltaFetch::Settle(uint32_t& from, uint32_t end) {
  for (; from < end; ++from) {
    if (held_[from]) continue;
    if (parts_.cancel.cancelled()) return Cancelled();
    LF_ASSIGN_OR_RETURN(const format::ChunkName name, NameOf(from));
    LF_RETURN_IF_ERROR(parts_.staging.ReadExtent(from, buffer_));
    if (format::NameChunkOf(parts_.order.page_size(), buffer_) == name) Held(from);
  }
  return absl::OkStatus();
}

absl::Status DeltaFetch::TakeLocal(Result& result) {
  bool ours = false;  // the error
  const absl::Status read = ForEachLocalExtent(
      parts_.place, parts_.options, parts_.order.page_size(), parts_.cancel,
      [&](uint32_t extent, ByteView pages, int source) -> absl::Status {
        parts_.progress.AddReadBytes(static_cast<int64_t>(pages.size()));
        if (extent >= extents_ || held_[extent]) return absl::OkStatus();
        const size_t size = size_t{format::PagesIn(parts_.order.page_size(), parts_.order.page_count(), extent)} * parts_.order.page_size();
        const ByteView part = pages.first(std::min(size, pages.size()));
        ours = true;
        LF_ASSIGN_OR_RETURN(const format::ChunkName name, NameOf(extent));
        LF_RETURN_IF_ERROR(parts_.staging.SharePages(source, format::FirstPageOf(parts_.order.page_size(), extent), part));
        ours = false;
        present_[extent] = true;
        if (part.size() == size && format::NameChunkOf(parts_.order.page_size(), part) == name) {
          Held(extent);
          result.local_bytes += size;
        }
        return absl::OkStatus();
      });
  if (ours || absl::IsCancelled(read)) return read;
  // What cannot be read is fetched.
  if (!read.ok()) result.note = MessageOf(read);
  return absl::OkStatus();
}

absl::StatusOr<WantedPages> DeltaFetch::Gather(bool with_digests, uint32_t& extent) {
  WantedPages wanted;
  std::vector<format::PageDigest> digests;
  for (; extent < extents_ && wanted.have.size() < kMaxHave && wanted.runs.size() < kMaxRuns; ++extent) {
    if (held_[extent] || (with_digests && !present_[extent])) continue;
    const uint32_t first = format::FirstPageOf(parts_.order.page_size(), extent);
    const uint32_t count = format::PagesIn(parts_.order.page_size(), parts_.order.page_count(), extent);
    if (wanted.runs.empty() || wanted.runs.back().first_page + wanted.runs.back().page_count != first)
      wanted.runs.push_back({.first_page = first});
    wanted.runs.back().page_count += count;
    if (!with_digests) continue;
    if (parts_.cancel.cancelled()) return Cancelled();
    LF_RETURN_IF_ERROR(parts_.staging.ReadExtent(extent, buffer_));
    digests.clear();
    format::DigestPages(parts_.order.page_size(), buffer_, digests);
    for (const format::PageDigest& digest : digests) wanted.have.append(digest.AsString().substr(0, WantedPages::kHaveBytes));
  }
  return wanted;
}

absl::Status DeltaFetch::FetchMissing(bool with_digests, Result& result) {
  for (uint32_t extent = 0; extent < extents_;) {
    const uint32_t begin = extent;
    uint64_t gained = 0;
    LF_RETURN_IF_ERROR(parts_.persist(
        [&]() -> absl::Status {
          // What the attempt before brought is not asked for again.
          extent = begin;
          LF_ASSIGN_OR_RETURN(const WantedPages wanted, Gather(with_digests, extent));
          if (wanted.runs.empty()) return absl::OkStatus();
          const uint64_t before = result.fetched_bytes;
          const absl::Status status = FetchBatch(wanted, begin, extent, result);
          gained += result.fetched_bytes - before;
          return status;
        },
        [&] { return gained; }));
  }
  return absl::OkStatus();
}

absl::Status DeltaFetch::FetchBatch(const WantedPages& wanted, uint32_t begin, uint32_t end, Result& result) {
  const uint32_t page_size = parts_.order.page_size();
  const uint32_t per_extent = format::PagesPerExtent(page_size);
  uint32_t unsettled = begin;
  const absl::Status status =
      parts_.fetcher.FetchPages(parts_.operation_id, parts_.order, wanted, parts_.cancel, [&](const FetchedPages& fetched) -> absl::Status {
        if (parts_.cancel.cancelled()) return Cancelled();
        size_t offset = 0;
        for (const PageRange& run : fetched.runs) {
          const size_t size = size_t{run.page_count} * page_size;
          LF_RETURN_IF_ERROR(parts_.staging.WritePages(run.first_page, fetched.pages.subspan(offset, size)));
          offset += size;
        }
        result.fetched_bytes += fetched.pages.size();
        parts_.progress.AddWireBytes(fetched.wire_bytes);
        parts_.progress.AddChangedBytes(static_cast<int64_t>(fetched.pages.size()));
        LF_CRASH_POINT("restore.fetching");
        // More of the last extent may come.
        return Settle(unsettled, (fetched.runs.back().first_page + fetched.runs.back().page_count - 2) / per_extent);
      });
  // Also after a cut: whole extents that came are not asked for again.
  LF_RETURN_IF_ERROR(Settle(unsettled, end));
  return status;
}

}  // namespace litefleet::restore
