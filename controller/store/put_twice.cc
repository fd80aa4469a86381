#include "controller/store/put_twice.h"

#include <algorithm>
#include <string>

#include "common/base/status.h"

namespace litefleet::store {

absl::StatusOr<Placed> PutSpacer(Store& store) {
  // Snapshot marks without any, and a field that readers pass over: number 15, so many zeros.
  std::string payload("\x7a\x80\x40", 3);
  static_assert(kSpacerBytes == 0x40 << 7, "as the length above says");
  payload.resize(payload.size() + kSpacerBytes);
  return store.PutRecord(format::RecordType::kSnapshotMarks, AsBytes(payload));
}

absl::StatusOr<Placed> PutTwice(Store& store, format::RecordType type, ByteView payload) {
  LF_ASSIGN_OR_RETURN(Placed first, store.PutRecord(type, payload));
  LF_ASSIGN_OR_RETURN(const Placed between, PutSpacer(store));
  LF_ASSIGN_OR_RETURN(const Placed second, store.PutRecord(type, payload));
  first.epoch = std::min({first.epoch, between.epoch, second.epoch});
  return first;
}

}  // namespace litefleet::store
