#include "controller/rebuild/store_records.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "controller/store/put_twice.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::rebuild {
namespace {

constexpr int kAtOnce = 1000;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// Without this record an older one would count, and who was shut out would be let in again, or what is kept be thinned or dropped.
bool TakesRightsAway(const catalog::DueRecord& due) {
  if (const auto* device = std::get_if<storage::v1::DeviceRecord>(&due.record)) {
    const auto& certificates = device->certificates();
    return device->forgotten() || device->state() == v1::DEVICE_STATE_REVOKED ||
           std::any_of(certificates.begin(), certificates.end(), [](const auto& each) { return each.revoked_at_ms() != 0; });
  }
  if (const auto* database = std::get_if<storage::v1::DatabaseRecord>(&due.record)) return !database->gone().empty();
  return std::holds_alternative<storage::v1::OperatorRecord>(due.record) || std::holds_alternative<storage::v1::PolicyRecord>(due.record) ||
         std::holds_alternative<storage::v1::RetentionHoldRecord>(due.record);
}

}  // namespace

absl::Status StoreRecords::WriteDue() {
  const Turn::Holder turn(turn_);
  return Annotate(WriteAll(), "write the records of devices, operators, timelines and policies into the store");
}

absl::Status StoreRecords::WriteAll() {
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::DueRecord> due, catalog_.Due(clock_.Now(), kAtOnce));
    if (due.empty()) return absl::OkStatus();
    uint64_t epoch = 0;
    std::vector<std::pair<format::RecordType, std::string>> again;
    const auto put = [&](const absl::StatusOr<store::Placed>& placed) -> absl::Status {
      // Records of an epoch that ended are lost; the Sync below says so, and all of them are written again.
      if (placed.ok()) epoch = epoch == 0 ? placed->epoch : std::min(epoch, placed->epoch);
      return placed.status();
    };
    for (const catalog::DueRecord& next : due) {
      const format::RecordType type =
          std::visit(Overloaded{[](const storage::v1::DeviceRecord&) { return format::RecordType::kDevice; },
                                [](const storage::v1::DatabaseRecord&) { return format::RecordType::kDatabase; },
                                [](const storage::v1::OperatorRecord&) { return format::RecordType::kOperator; },
                                [](const storage::v1::PolicyRecord&) { return format::RecordType::kPolicy; },
                                [](const storage::v1::RetentionHoldRecord&) { return format::RecordType::kRetentionHold; },
                                [](const storage::v1::GapRecord&) { return format::RecordType::kGap; }},
                     next.record);
      const std::string bytes = std::visit([](const auto& record) { return record.SerializeAsString(); }, next.record);
      LF_RETURN_IF_ERROR(put(store_.PutRecord(type, AsBytes(bytes))));
      if (TakesRightsAway(next)) again.emplace_back(type, bytes);
    }
    if (!again.empty()) LF_RETURN_IF_ERROR(put(store::PutSpacer(store_)));
    for (const auto& [type, bytes] : again) LF_RETURN_IF_ERROR(put(store_.PutRecord(type, AsBytes(bytes))));
    LF_RETURN_IF_ERROR(store_.Sync(epoch));
    LF_CRASH_POINT("records.after_sync");
    LF_RETURN_IF_ERROR(catalog_.Written(due));
    if (due.size() < kAtOnce) return absl::OkStatus();
  }
}

}  // namespace litefleet::rebuild
