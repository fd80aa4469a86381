// A source of pages that is read from its beginning to its end, and answers no questions: a file of the device.
// Thread safety: as PageFetcher.
#ifndef LITEFLEET_AGENT_RESTORE_WHOLE_FETCHER_H_
#define LITEFLEET_AGENT_RESTORE_WHOLE_FETCHER_H_

#include <string>

#include "agent/restore/restorer.h"
#include "common/base/status.h"

namespace litefleet::restore {

class WholeFetcher : public PageFetcher {
 public:
  absl::Status FetchNames(const std::string&, const v1::RestoreOrder&, const CancelToken&,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>&) final {
    return NoQuestions();
  }
  absl::Status FetchPages(const std::string&, const v1::RestoreOrder&, const WantedPages&, const CancelToken&,
                          const std::function<absl::Status(const FetchedPages&)>&) final {
    return NoQuestions();
  }

 private:
  static absl::Status NoQuestions() {
    return Error(absl::StatusCode::kUnimplemented, "NAMES_UNSUPPORTED", "a file is read from its beginning to its end");
  }
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_WHOLE_FETCHER_H_
