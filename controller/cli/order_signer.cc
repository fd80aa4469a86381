#include "controller/cli/order_signer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/named_file.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::cli {
namespace {

// As the controller's order says it: what was checked here counts before what the device said.
bool IsKnownDamaged(const v1::Snapshot& snapshot) {
  if (snapshot.check() == v1::CHECK_STATE_OK || snapshot.check() == v1::CHECK_STATE_CANNOT_TELL) return false;
  return snapshot.check() == v1::CHECK_STATE_DAMAGED || snapshot.source_check() == v1::CHECK_STATE_DAMAGED;
}

}  // namespace

absl::StatusOr<OrderSigner> OrderSigner::Open(const std::string& key_file, uint64_t counter, SystemTime now) {
  struct stat st {};
  constexpr io::NamedBy kNamed{"--sign", "name the private key that `litefleet key create` has written"};
  if (stat(key_file.c_str(), &st) != 0) return io::NamedFileError(ErrnoError(errno, "look at " + key_file), key_file, kNamed);
  if ((st.st_mode & 077) != 0) {
    return Error(absl::StatusCode::kPermissionDenied, "KEY_FILE_UNSAFE", fmt::format("others may read or write {}", key_file),
                 fmt::format("chmod 600 {}", key_file));
  }
  LF_ASSIGN_OR_RETURN(const std::string pem, io::ReadNamedFile(key_file, kNamed, 64 << 10));
  absl::StatusOr<crypto::Key> key = crypto::OrderKeyFromPem(pem);
  if (!key.ok()) return Annotate(key.status(), key_file);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  return OrderSigner(*std::move(key), counter != 0 ? counter : static_cast<uint64_t>(micros));
}

absl::StatusOr<v1::OrderSignature> OrderSigner::Sign(const std::string& device_id, const std::string& database,
                                                     const v1::Snapshot& snapshot, const v1::RestoreTarget& restore, SystemTime expires) {
  storage::v1::SignedRestoreOrder order;
  order.set_format(crypto::kOrderFormat);
  order.set_device_id(device_id);
  order.set_database(database);
  order.set_root_digest(snapshot.root_digest());
  order.set_mode(restore.mode());
  order.set_check_override(restore.check_override());
  order.set_content(snapshot.content());
  order.set_journal_mode(snapshot.journal_mode());
  order.set_part(snapshot.part());
  order.set_damaged(IsKnownDamaged(snapshot));
  order.set_expires_at_ms(ToUnixMillis(expires));
  order.set_counter(counter_++);
  v1::OrderSignature signature;
  signature.set_payload(order.SerializeAsString());
  LF_ASSIGN_OR_RETURN(*signature.mutable_signature(), crypto::SignOrder(*key_, signature.payload()));
  return signature;
}

}  // namespace litefleet::cli
