// Signs restore orders by an operator's key, for devices that believe no controller (push_restore = "signed").
//
// What is signed is what the operator was shown, and how it is to be restored; with an expiry, and a counter that grows by the time.
// Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_ORDER_SIGNER_H_
#define LITEFLEET_CONTROLLER_CLI_ORDER_SIGNER_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/crypto/x509.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

class OrderSigner {
 public:
  // `counter`: of the first order; 0: microseconds since 1970. kInvalidArgument KEY_INVALID; kPermissionDenied KEY_FILE_UNSAFE where others
  // may read the file.
  static absl::StatusOr<OrderSigner> Open(const std::string& key_file, uint64_t counter, SystemTime now);

  // That `snapshot` is restored into the database as `restore` says.
  absl::StatusOr<v1::OrderSignature> Sign(const std::string& device_id, const std::string& database, const v1::Snapshot& snapshot,
                                          const v1::RestoreTarget& restore, SystemTime expires);

 private:
  OrderSigner(crypto::Key key, uint64_t counter) : key_(std::move(key)), counter_(counter) {}

  crypto::Key key_;
  uint64_t counter_;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_ORDER_SIGNER_H_
