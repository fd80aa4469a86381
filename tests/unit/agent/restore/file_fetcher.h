// A fetcher that reads a snapshot from a file, and answers as a controller does, or wrongly in one way.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILE_FETCHER_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILE_FETCHER_H_

#include <fcntl.h>

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/restore/restorer.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/file.h"

namespace litefleet::restore {

// A snapshot that lies in a file.
class FileFetcher final : public PageFetcher {
 public:
  absl::Status Fetch(const std::string&, const v1::RestoreOrder& order, uint32_t first_extent, const CancelToken& cancel,
                     const std::function<absl::Status(const FetchedExtent&)>& sink) override {
    ++calls;
    if (before_fetch) before_fetch();
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDONLY));
    Bytes pages;
    for (uint32_t extent = first_extent; extent < format::ExtentCount(order.page_size(), order.page_count()); ++extent) {
      if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled");
      if (cuts > 0 && extent > first_extent) {
        --cuts;
        return Error(absl::StatusCode::kUnavailable, "FETCH_CUT", "cut");
      }
      pages.resize(static_cast<size_t>(format::PagesIn(order.page_size(), order.page_count(), extent)) * order.page_size());
      LF_RETURN_IF_ERROR(io::PreadAll(fd.get(), pages, static_cast<uint64_t>(extent) * format::kExtentBytes, path));
      ++extents;
      if (spoil) pages[pages.size() / 2] ^= std::byte{1};
      LF_RETURN_IF_ERROR(sink({extent, format::NameChunkOf(order.page_size(), pages), pages, static_cast<int64_t>(pages.size() / 2)}));
    }
    return absl::OkStatus();
  }

  absl::Status FetchNames(const std::string&, const v1::RestoreOrder& order, const CancelToken&,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>& sink) override {
    ++name_calls;
    if (before_fetch) before_fetch();
    if (old_controller) return Error(absl::StatusCode::kUnimplemented, "NAMES_UNSUPPORTED", "old");
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDONLY));
    Bytes pages;
    for (uint32_t extent = 0; extent < format::ExtentCount(order.page_size(), order.page_count()); ++extent) {
      LF_RETURN_IF_ERROR(ReadExtent(fd.get(), order, extent, pages));
      if (spoil_names) pages[0] ^= std::byte{1};
      if (cuts > 0 && extent > 0) {
        --cuts;
        return Error(absl::StatusCode::kUnavailable, "FETCH_CUT", "cut");
      }
      const format::ChunkName names[] = {format::NameChunkOf(order.page_size(), pages)};
      LF_RETURN_IF_ERROR(sink(names));
    }
    return absl::OkStatus();
  }
  absl::Status FetchPages(const std::string&, const v1::RestoreOrder& order, const WantedPages& wanted, const CancelToken& cancel,
                          const std::function<absl::Status(const FetchedPages&)>& sink) override {
    ++page_calls;
    if (before_pages) before_pages();
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDONLY));
    size_t have = 0;
    Bytes page(order.page_size());
    std::vector<format::PageDigest> digest;
    for (const PageRange& run : wanted.runs) {
      for (uint32_t number = run.first_page; number < run.first_page + run.page_count; ++number) {
        if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled");
        LF_RETURN_IF_ERROR(io::PreadAll(fd.get(), page, uint64_t{number - 1} * order.page_size(), path));
        digest.clear();
        format::DigestPages(order.page_size(), page, digest);
        const bool same = !wanted.have.empty() && digest[0].AsString().substr(0, WantedPages::kHaveBytes) ==
                                                      std::string_view(wanted.have).substr(have++ * 3, WantedPages::kHaveBytes);
        if (same || (collide && !wanted.have.empty())) continue;
        if (cuts > 0 && sent_pages > 0) {
          --cuts;
          return Error(absl::StatusCode::kUnavailable, "FETCH_CUT", "cut");
        }
        ++sent_pages;
        if (spoil) page[page.size() / 2] ^= std::byte{1};
        const PageRange one[] = {{number, 1}};
        LF_RETURN_IF_ERROR(sink({one, page, static_cast<int64_t>(page.size() / 2)}));
      }
    }
    return absl::OkStatus();
  }
  absl::Status ReadExtent(int fd, const v1::RestoreOrder& order, uint32_t extent, Bytes& pages) const {
    pages.resize(static_cast<size_t>(format::PagesIn(order.page_size(), order.page_count(), extent)) * order.page_size());
    return io::PreadAll(fd, pages, static_cast<uint64_t>(extent) * format::kExtentBytes, path);
  }

  std::string path;
  bool old_controller = false;  // knows no names
  bool spoil_names = false;
  bool collide = false;  // takes what is here for the right pages
  int name_calls = 0;
  int page_calls = 0;
  int sent_pages = 0;  // one by one
  std::function<void()> before_pages;
  int cuts = 0;        // ends an attempt after one extent, so many times
  bool spoil = false;  // another content under its own right name
  int calls = 0;
  int extents = 0;  // handed on
  std::function<void()> before_fetch;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILE_FETCHER_H_
