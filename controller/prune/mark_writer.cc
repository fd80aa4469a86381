#include "controller/prune/mark_writer.h"

#include <string>
#include <vector>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "controller/store/put_twice.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::prune {
namespace {

constexpr int kMarksARecord = 1000;  // about 150 bytes each

}  // namespace

absl::Status MarkWriter::WriteDue() {
  const Turn::Holder turn(turn_);
  return Annotate(WriteAll(), "write what became of snapshots into the store");
}

absl::Status MarkWriter::WriteAll() {
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::DeletionCatalog::DueMark> due, catalog_.DueMarks(kMarksARecord));
    if (due.empty()) return absl::OkStatus();
    storage::v1::SnapshotMarksRecord record;
    record.set_written_at_ms(ToUnixMillis(clock_.Now()));
    for (const auto& mark : due) *record.add_marks() = mark.mark;
    LF_ASSIGN_OR_RETURN(const store::Placed placed,
                        store::PutTwice(store_, format::RecordType::kSnapshotMarks, AsBytes(record.SerializeAsString())));
    LF_RETURN_IF_ERROR(store_.Sync(placed.epoch));
    LF_CRASH_POINT("delete.after_mark");
    LF_RETURN_IF_ERROR(catalog_.MarksWritten(due));
    if (due.size() < static_cast<size_t>(kMarksARecord)) return absl::OkStatus();
  }
}

}  // namespace litefleet::prune
