// Records that nothing else in the store says again, such as a deletion, are written twice: damage of one place does not take them back
// (common/format/FORMAT.md, "Deletion").
//
// Thread safety: as the store's. Errors: the store's.
#ifndef LITEFLEET_CONTROLLER_STORE_PUT_TWICE_H_
#define LITEFLEET_CONTROLLER_STORE_PUT_TWICE_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "controller/store/store.h"

namespace litefleet::store {

// Between the two, more than a disk loses with a sector.
inline constexpr size_t kSpacerBytes = 8 << 10;

// A record that says nothing and takes room.
absl::StatusOr<Placed> PutSpacer(Store& store);

// The record, a spacer, the record again. Of what is returned the epoch is the oldest of the three, so a Sync with it covers all.
absl::StatusOr<Placed> PutTwice(Store& store, format::RecordType type, ByteView payload);

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_PUT_TWICE_H_
