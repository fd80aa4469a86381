// Finds wanted pages in a database that is read in order: those chunks of which every page is still what it was.
//
// Thread safety: none. Memory: 12 bytes a wanted page, and at most kMaxOpen chunks that are being put together; what finds no room is
// skipped and wants another pass.
#ifndef LITEFLEET_AGENT_HEAL_WANTED_GATHERER_H_
#define LITEFLEET_AGENT_HEAL_WANTED_GATHERER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::heal {

class WantedGatherer {
 public:
  static constexpr size_t kMaxOpen = 16;  // 4 MiB

  struct Found {
    uint32_t position = 0;  // in the order
    format::ChunkName name;
    Bytes raw;  // without the pages that the store has
  };

  // `positions`: of the order, those to look for. Errors: kInvalidArgument ORDER_INVALID.
  static absl::Status Check(const v1::HealOrder& order);
  // REQUIRES: Check was fine with it. `order` outlives this.
  WantedGatherer(const v1::HealOrder& order, std::span<const uint32_t> positions);

  // The next pages. REQUIRES: ascending.
  void Look(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests);
  std::optional<Found> TakeFound();
  // Those that were not looked at.
  const std::vector<uint32_t>& skipped() const { return skipped_; }

 private:
  struct Place {
    uint32_t page = 0;
    uint32_t item = 0;  // position in the order
    uint32_t at = 0;    // of the page in the chunk
  };
  struct Open {
    std::vector<format::PageDigest> digests;
    std::vector<int32_t> slots;  // of the pages in `raw`; -1: the store has it
    std::vector<format::PageDigest> sent;
    Bytes raw;
    uint32_t missing = 0;
  };
  Open Begin(const v1::WantedPages& wanted) const;
  void End(uint32_t item, Open open);

  const v1::HealOrder& order_;
  std::vector<Place> places_;  // by page
  size_t next_ = 0;
  std::map<uint32_t, Open> open_;
  std::map<uint32_t, bool> left_out_;
  std::vector<uint32_t> skipped_;
  std::deque<Found> found_;
};

}  // namespace litefleet::heal

#endif  // LITEFLEET_AGENT_HEAL_WANTED_GATHERER_H_
