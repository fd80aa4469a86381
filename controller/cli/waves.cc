#include "controller/cli/waves.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

constexpr int kMaxAttempts = 99;
constexpr size_t kHashDigits = 16;

bool EndedBadly(const v1::Operation& operation) { return HasEnded(operation) && operation.state() != v1::OPERATION_STATE_SUCCEEDED; }

}  // namespace

absl::StatusOr<v1::Operation> StartOrFind(const WaveItem& item, const std::string& request_id) {
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<v1::Operation> operation = item.start(WaveRequestId(request_id, item.name, attempt));
    if (!operation.ok() || !EndedBadly(*operation) || attempt == kMaxAttempts) return operation;
  }
}

std::string WaveRequestId(const std::string& request_id, const std::string& name, int attempt) {
  return fmt::format("{}-{}-{}", request_id, ToHex(format::Sha256(AsBytes(name))).substr(0, kHashDigits), attempt);
}

absl::Status RunWaves(Session& session, const std::vector<WaveItem>& items, const WaveOptions& options, WaveResult& result) {
  const size_t size = options.size == 0 ? items.size() : options.size;
  for (size_t begin = 0; begin < items.size(); begin += size) {
    const size_t end = std::min(items.size(), begin + size);
    const size_t before = result.operations.size();
    for (size_t i = begin; i < end; ++i) {
      auto operation = StartOrFind(items[i], options.request_id);
      if (operation.ok()) {
        result.operations.push_back(*std::move(operation));
      } else {
        result.refused.push_back(session.Report(Annotate(operation.status(), items[i].name)));
      }
    }
    if (end == items.size()) break;
    std::vector<v1::Operation> wave(result.operations.begin() + static_cast<std::ptrdiff_t>(before), result.operations.end());
    LF_ASSIGN_OR_RETURN(wave, WaitForAll(session, std::move(wave), options.wait));
    std::move(wave.begin(), wave.end(), result.operations.begin() + static_cast<std::ptrdiff_t>(before));
    const auto failed =
        static_cast<size_t>(std::count_if(result.operations.begin(), result.operations.end(),
                                          [](const v1::Operation& each) { return each.state() != v1::OPERATION_STATE_SUCCEEDED; }));
    if (failed + result.refused.size() >= options.max_failures) {
      result.not_begun = items.size() - end;
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

}  // namespace litefleet::cli
