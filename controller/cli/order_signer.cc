#include "controller/cli/order_signer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::cli {

absl::StatusOr<OrderSigner> OrderSigner::Open(const std::string& key_file, uint64_t counter, SystemTime now) {
  struct stat st {};
  if (stat(key_file.c_str(), &st) != 0) return ErrnoError(errno, "look at " + key_file);
  if ((st.st_mode & 077) != 0) {
    return Error(absl::StatusCode::kPermissionDenied, "KEY_FILE_UNSAFE", fmt::format("others may read or write {}", key_file),
                 fmt::format("chmod 600 {}", key_file));
  }
  LF_ASSIGN_OR_RETURN(const std::string pem, io::ReadFile(key_file, 64 << 10));
  absl::StatusOr<crypto::Key> key = crypto::OrderKeyFromPem(pem);
  if (!key.ok()) return Annotate(key.status(), key_file);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  return OrderSigner(*std::move(key), counter != 0 ? counter : static_cast<uint64_t>(micros));
}

absl::StatusOr<v1::OrderSignature> OrderSigner::Sign(const std::string& device_id, const std::string& database,
                                                     const std::string& root_digest, SystemTime expires) {
  storage::v1::SignedRestoreOrder order;
  order.set_device_id(device_id);
  order.set_database(database);
  order.set_root_digest(root_digest);
  order.set_expires_at_ms(ToUnixMillis(expires));
  order.set_counter(counter_++);
  v1::OrderSignature signature;
  signature.set_payload(order.SerializeAsString());
  LF_ASSIGN_OR_RETURN(*signature.mutable_signature(), crypto::SignOrder(*key_, signature.payload()));
  return signature;
}

}  // namespace litefleet::cli
