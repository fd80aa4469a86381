// Devices, their certificates, tokens and operators in the catalog.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns.
// References ("name, id or unique id prefix") are resolved here: kNotFound DEVICE_NOT_FOUND, kFailedPrecondition AMBIGUOUS.
#ifndef LITEFLEET_CONTROLLER_CATALOG_IDENTITY_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_IDENTITY_CATALOG_H_

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/record_catalog.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

extern const std::string_view kIdentitySchema1;
extern const std::string_view kDevicePolicySchema;

template <class T>
struct Page {
  std::vector<T> items;
  std::string next_token;  // empty: the end
};

using KeyHash = std::array<std::byte, 32>;  // SHA-256 of the SubjectPublicKeyInfo

struct NewToken {
  std::string id;         // ULID
  KeyHash secret_hash{};  // SHA-256 of the secret
  SystemTime created_at;
  SystemTime expires_at;
  int uses = 1;
  std::map<std::string, std::string> labels;
  std::string for_device_id;  // empty: a new device
};

// What an operator may do, as the catalog keeps it: everything, or look (rpc/auth has the table).
inline constexpr std::string_view kAdminRole = "admin";
inline constexpr std::string_view kViewerRole = "viewer";

struct CertificateRow {
  std::string serial;         // hexadecimal, lower case
  DeviceId device;            // or
  std::string operator_name;  // an operator's
  std::string role;           // operators: one of the above; else "device"
  KeyHash key_hash{};
  SystemTime issued_at;
  SystemTime not_after;
  bool revoked = false;  // or superseded by one that was issued later and used
  bool used = false;     // by the device, in a call
};

// Told after the commit of every change of certificates, on the thread that made it, so maybe out of order: what was revoked stays so.
class CertificateObserver {
 public:
  virtual ~CertificateObserver() = default;
  virtual void OnCertificates(const std::vector<CertificateRow>& changed) = 0;
};

struct EnrollmentResult {
  DeviceId device;
  std::string name;
  bool repeated = false;  // the same key with the same token came again
};

struct RevokedDevice {
  v1::Device device;
  absl::Status recorded;  // an error: it is revoked, and its record is not in the packs yet
};

class IdentityCatalog {
 public:
  explicit IdentityCatalog(CatalogDb& db) : db_(db) {}

  // Before the first change; null for none. The observer outlives this.
  void SetObserver(CertificateObserver* observer) { observer_ = observer; }
  // The same. With one, what a changing call did is in the packs as well when it returns. A store that cannot be written fails it:
  // enrolments, renewals and changes of names and labels may be repeated; what takes something away counts all the same, and is written
  // when it works again.
  void SetRecords(RecordWriter* records) { records_ = records; }

  // ---- tokens
  absl::StatusOr<v1::Token> CreateToken(const NewToken& token);
  absl::StatusOr<Page<v1::Token>> ListTokens(int page_size, const std::string& page_token) const;
  absl::StatusOr<v1::Token> RevokeToken(const std::string& reference);

  // One transaction: the token is looked up by hash and spent (unless this key spent it before), the device is made or, for a token
  // of a device, taken over with its older certificates revoked; the name is `wanted_name`. A repeat with the key that the device still
  // has is answered also after the token has expired. Errors: kUnauthenticated TOKEN_INVALID, kAlreadyExists DEVICE_NAME_TAKEN,
  // kPermissionDenied DEVICE_REVOKED, kInvalidArgument DEVICE_NAME_INVALID, kFailedPrecondition DEVICE_BEING_FORGOTTEN.
  absl::StatusOr<EnrollmentResult> Enroll(const KeyHash& token_hash, const KeyHash& key_hash, const std::string& wanted_name,
                                          SystemTime now);

  // ---- certificates; every one that was issued is known here, or it is not valid
  // A device's key becomes the certificate's. `earlier` is the serial of the device's certificate that the caller was known by, which must
  // still be valid in the same transaction; empty: it was known by a token, and the key must be the one that the device has. So what an
  // older machine asked for before another one took the device over comes to nothing. kPermissionDenied DEVICE_REVOKED where that does not
  // hold or the device is not active (any more), kAlreadyExists OPERATOR_EXISTS for the name of an operator whose certificate is valid.
  absl::Status AddCertificate(const CertificateRow& certificate, const std::string& earlier = {});
  // The device has called with it: what was issued to the device before is void from now on.
  absl::Status CertificateUsed(const std::string& serial, SystemTime now);
  // All certificates of that name. kNotFound OPERATOR_NOT_FOUND where none is valid.
  absl::Status RevokeOperator(const std::string& name, SystemTime now);
  absl::StatusOr<std::optional<CertificateRow>> FindCertificate(const std::string& serial) const;
  // All that are not expired, for the authenticator's cache.
  absl::StatusOr<std::vector<CertificateRow>> ListCertificates(SystemTime now) const;

  // ---- devices; `connected` is filled by whoever knows
  absl::StatusOr<v1::Device> ResolveDevice(const std::string& reference) const;
  absl::StatusOr<Page<v1::Device>> ListDevices(const std::string& selector, int page_size, const std::string& page_token) const;
  absl::StatusOr<v1::Device> UpdateDevice(const DeviceId& device, const std::optional<std::string>& name,
                                          const std::map<std::string, std::string>& set_labels,
                                          const std::vector<std::string>& remove_labels);
  // With all its certificates.
  absl::StatusOr<RevokedDevice> RevokeDevice(const DeviceId& device);
  // kFailedPrecondition DEVICE_ACTIVE; DEVICE_HAS_SNAPSHOTS where other tables still refer to it. Where its record could not be written it
  // is forgotten nevertheless.
  absl::Status ForgetDevice(const DeviceId& device);
  struct Contact {
    int64_t clock_offset_ms = 0;            // controller time minus device time, as measured at hello
    std::optional<SystemTime> seen_before;  // when it was heard last before it connected this time
  };
  absl::StatusOr<Contact> LastContact(const DeviceId& device) const;
  // What hello and health told; not worth an fsync of its own, but it shares one.
  absl::Status Seen(const DeviceId& device, SystemTime now, const v1::Hello* hello, int64_t clock_offset_ms, const v1::Health* health);

 private:
  absl::Status WriteRecords() const { return records_ == nullptr ? absl::OkStatus() : records_->WriteDue(); }
  absl::Status WriteCertificates(absl::FunctionRef<absl::Status(sqlite3*, std::vector<CertificateRow>& changed)> change);

  CatalogDb& db_;
  CertificateObserver* observer_ = nullptr;
  RecordWriter* records_ = nullptr;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_IDENTITY_CATALOG_H_
