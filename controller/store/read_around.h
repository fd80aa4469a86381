// Reads from a disk of which some places cannot be read any more.
//
// Thread safety: as the file's. Blocking: a bad place may take the disk many seconds.
#ifndef LITEFLEET_CONTROLLER_STORE_READ_AROUND_H_
#define LITEFLEET_CONTROLLER_STORE_READ_AROUND_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "controller/store/file_system.h"

namespace litefleet::store {

// What could not be read so far, over calls that follow each other.
struct Gaps {
  bool any = false;
  uint64_t end = 0;   // of the last one
  uint64_t run = 0;   // pieces in a row up to there, until they were taken for a region
  uint64_t step = 0;  // pieces that the next look in a region goes ahead
};

// As File::ReadAt; but 4 KiB that the disk twice cannot read, while `answers` says that it gives others, are zeros, and `gaps` knows of it.
// A disk that gives nothing says nothing about the data: that stays an error. Behind 64 KiB that cannot be read one piece in 256 KiB is
// tried at last, and the begin of what is sound is looked for from there: what stands between two of these that are bad is taken to be.
// Errors: the file's.
absl::StatusOr<size_t> ReadAround(File& file, uint64_t offset, std::span<std::byte> out, absl::FunctionRef<bool()> answers, Gaps& gaps);

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_READ_AROUND_H_
