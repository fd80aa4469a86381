#include "controller/cli/waves.h"

#include <algorithm>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/error_detail.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

constexpr int kMaxAttempts = 99;
constexpr size_t kHashDigits = 16;

bool EndedBadly(const v1::Operation& operation) { return HasEnded(operation) && operation.state() != v1::OPERATION_STATE_SUCCEEDED; }

// One item until something of it has to be waited for.
struct Begun {
  int attempt = 1;
  absl::StatusOr<v1::Operation> operation;
  bool before = false;  // the operation is the one that comes before
};

absl::Status Failed(const v1::Operation& before) {
  constexpr std::string_view kWhat = "the snapshot that comes first was not made, and nothing was restored";
  if (before.has_error()) return Annotate(FromErrorDetail(before.error()), kWhat);
  if (!HasEnded(before)) {
    return Error(absl::StatusCode::kUnavailable, "DEVICE_OFFLINE", fmt::format("{}: the device is offline", kWhat),
                 fmt::format("operation {0} stays queued: litefleet operation cancel {0}; then the same command again", before.id()));
  }
  return Error(absl::StatusCode::kAborted, "NOT_BEGUN",
               fmt::format("{}: operation {} ended as {}", kWhat, before.id(), Word(before.state())), "the same command again");
}

absl::StatusOr<v1::Operation> Start(const WaveItem& item, const std::string& request_id, int attempt, const v1::Operation* before) {
  if (before != nullptr && before->state() != v1::OPERATION_STATE_SUCCEEDED) return Failed(*before);
  if (before != nullptr && item.before_done) {
    LF_ASSIGN_OR_RETURN(std::optional<v1::Operation> found, item.before_done(*before));
    if (found.has_value()) return *std::move(found);
  }
  return item.start(WaveRequestId(request_id, item.name, attempt));
}

Begun Begin(const WaveItem& item, const std::string& request_id) {
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<v1::Operation> operation = absl::UnknownError("not begun");
    if (item.before) {
      operation = item.before(WaveRequestId(request_id, item.name, attempt) + "-b");
      if (!operation.ok()) return {attempt, operation, false};
      if (!HasEnded(*operation)) return {attempt, operation, true};
      if (EndedBadly(*operation) && attempt < kMaxAttempts) continue;
    }
    operation = Start(item, request_id, attempt, item.before ? &*operation : nullptr);
    if (!operation.ok() || !EndedBadly(*operation) || attempt == kMaxAttempts) return {attempt, operation, false};
  }
}

}  // namespace

absl::Status StartOrFindAll(Session& session, std::span<const WaveItem> items, const WaveOptions& options,
                            std::vector<absl::StatusOr<v1::Operation>>& begun, std::vector<v1::Operation>& waited) {
  std::vector<Begun> all;
  for (const WaveItem& item : items) all.push_back(Begin(item, options.request_id));
  for (const Begun& one : all) {
    if (one.before) waited.push_back(*one.operation);
  }
  if (!waited.empty()) {
    absl::StatusOr<std::vector<v1::Operation>> ended = options.wait_for_all(session, waited, options.wait);
    if (!ended.ok()) {
      for (const Begun& one : all) {
        if (!one.before && one.operation.ok() && !HasEnded(*one.operation)) waited.push_back(*one.operation);
      }
      return ended.status();
    }
    waited = *std::move(ended);
  }
  size_t next = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].before) all[i].operation = Start(items[i], options.request_id, all[i].attempt, &waited[next++]);
    begun.push_back(std::move(all[i].operation));
  }
  waited.clear();
  return absl::OkStatus();
}

std::string WaveRequestId(const std::string& request_id, const std::string& name, int attempt) {
  return fmt::format("{}-{}-{}", request_id, ToHex(format::Sha256(AsBytes(name))).substr(0, kHashDigits), attempt);
}

absl::Status RunWaves(Session& session, const std::vector<WaveItem>& items, const WaveOptions& options, WaveResult& result) {
  const size_t size = options.size == 0 ? items.size() : options.size;
  for (size_t begin = 0; begin < items.size(); begin += size) {
    const size_t end = std::min(items.size(), begin + size);
    const size_t before = result.operations.size();
    std::vector<absl::StatusOr<v1::Operation>> begun;
    std::vector<v1::Operation> waited;
    const absl::Status started = StartOrFindAll(session, std::span(items).subspan(begin, end - begin), options, begun, waited);
    if (!started.ok()) {
      result.operations.insert(result.operations.end(), waited.begin(), waited.end());
      return started;
    }
    for (size_t i = begin; i < end; ++i) {
      absl::StatusOr<v1::Operation>& operation = begun[i - begin];
      if (operation.ok()) {
        result.operations.push_back(*std::move(operation));
      } else {
        result.refused.push_back(session.Report(Annotate(operation.status(), items[i].name)));
      }
    }
    if (end == items.size()) break;
    std::vector<v1::Operation> wave(result.operations.begin() + static_cast<std::ptrdiff_t>(before), result.operations.end());
    LF_ASSIGN_OR_RETURN(wave, options.wait_for_all(session, std::move(wave), options.wait));
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
