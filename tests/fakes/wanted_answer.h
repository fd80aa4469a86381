// What a device answers to a heal order: all that it still has of what is wanted.
#ifndef LITEFLEET_TESTS_FAKES_WANTED_ANSWER_H_
#define LITEFLEET_TESTS_FAKES_WANTED_ANSWER_H_

#include <string>
#include <vector>

#include "agent/heal/wanted_gatherer.h"
#include "tests/fakes/paged_device.h"

namespace litefleet::fakes {

// In one request, which is not said to be the last one.
inline v1::SendWantedRequest AnswerOf(const std::string& operation, const v1::HealOrder& order, const PagedDatabase& has) {
  std::vector<uint32_t> positions;
  for (int i = 0; i < order.wanted_size(); ++i) positions.push_back(static_cast<uint32_t>(i));
  v1::SendWantedRequest request;
  request.set_operation_id(operation);
  while (!positions.empty()) {
    heal::WantedGatherer gatherer(order, positions);
    for (uint32_t extent = 0; extent < has.extents(); ++extent) {
      const Bytes raw = has.Extent(extent);
      std::vector<format::PageDigest> digests;
      format::DigestPages(has.page_size, raw, digests);
      gatherer.Look(format::FirstPageOf(has.page_size, extent), raw, digests);
      while (auto found = gatherer.TakeFound()) {
        v1::WantedContent& content = *request.add_contents();
        content.set_position(found->position);
        content.mutable_chunk()->set_name(std::string(found->name.AsString()));
        content.mutable_chunk()->set_codec(v1::CODEC_RAW);
        content.mutable_chunk()->set_raw_bytes(static_cast<uint32_t>(found->raw.size()));
        content.mutable_chunk()->set_data(std::string(AsText(found->raw)));
      }
    }
    positions = gatherer.skipped();
  }
  return request;
}

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_WANTED_ANSWER_H_
