#include "controller/rebuild/store_records.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/base/crash_point.h"
#include "common/base/status.h"

namespace litefleet::rebuild {
namespace {

constexpr int kAtOnce = 1000;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

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
      LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(type, AsBytes(bytes)));
      // Records of an epoch that ended are lost; the Sync below says so, and all of them are written again.
      epoch = epoch == 0 ? placed.epoch : std::min(epoch, placed.epoch);
    }
    LF_RETURN_IF_ERROR(store_.Sync(epoch));
    LF_CRASH_POINT("records.after_sync");
    LF_RETURN_IF_ERROR(catalog_.Written(due));
    if (due.size() < kAtOnce) return absl::OkStatus();
  }
}

}  // namespace litefleet::rebuild
