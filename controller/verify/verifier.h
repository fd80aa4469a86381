// SQLite's own checks on materialised copies of snapshots, one at a time, in the unprivileged helper process.
//
// Thread safety: all members may be called from any thread; Start blocks for a commit. Bounds: one check runs, the others wait in the
// catalog; scratch space is asked for before a copy is made.
#ifndef LITEFLEET_CONTROLLER_VERIFY_VERIFIER_H_
#define LITEFLEET_CONTROLLER_VERIFY_VERIFIER_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::verify {

class Verifier {
 public:
  virtual ~Verifier() = default;
  virtual absl::StatusOr<v1::Operation> Start(const SnapshotId& snapshot, const std::string& request_id, const std::string& ordered_by) = 0;
  // The same, and how long the restore took is recorded.
  virtual absl::StatusOr<v1::Operation> StartDrill(const SnapshotId& snapshot, const std::string& request_id,
                                                   const std::string& ordered_by) = 0;
};

}  // namespace litefleet::verify

#endif  // LITEFLEET_CONTROLLER_VERIFY_VERIFIER_H_
