#include "controller/catalog/identity_catalog.h"

#include <cstdint>

#include "common/base/status.h"
#include "controller/catalog/identity_rows.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

absl::Status DeviceRevoked(std::string_view device) {
  return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED",
               fmt::format("device {} is unknown, was revoked, or was given to another machine", device),
               "an operator can enrol it anew with `litefleet token create --for-device`");
}

}  // namespace

CertificateRow ReadCertificate(const Statement& row) {
  CertificateRow certificate;
  certificate.serial = std::string(row.Text(0));
  certificate.device = DeviceId(std::string(row.Text(1)));
  certificate.operator_name = std::string(row.Text(2));
  certificate.role = std::string(row.Text(3));
  certificate.key_hash = ToKeyHash(row.Blob(4));
  certificate.issued_at = FromUnixMillis(row.Int(5));
  certificate.not_after = FromUnixMillis(row.Int(6));
  certificate.revoked = row.Int(7) != 0;
  certificate.used = row.Int(8) != 0;
  return certificate;
}

absl::Status RevokeCertificates(sqlite3* db, std::string_view device, int64_t before, int64_t now_ms,
                                std::vector<CertificateRow>& changed) {
  LF_ASSIGN_OR_RETURN(Statement revoke,
                      Statement::Prepare(db, fmt::format("update certificate set revoked_ms = ? where device_id = ? and number < ? and"
                                                         " revoked_ms is null returning {}",
                                                         kCertificateColumns)));
  revoke.Bind(1, now_ms).Bind(2, device).Bind(3, before);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, revoke.Step());
    if (!row) return absl::OkStatus();
    changed.push_back(ReadCertificate(revoke));
  }
}

absl::StatusOr<v1::Device> ReadDevice(sqlite3* db, std::string_view id) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(
          db,
          "select name, state, enrolled_ms, last_seen_ms, version, sqlite_version, platform, clock_offset_ms, uptime_ms, free_bytes,"
          " (select max(not_after_ms) from certificate where device_id = device.id and revoked_ms is null), policy_version, policy_problems"
          " from device where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, id).Step());
  if (!found) {
    return Error(absl::StatusCode::kNotFound, "DEVICE_NOT_FOUND", fmt::format("there is no device {}", id),
                 "`litefleet device list` shows the devices");
  }
  v1::Device device;
  device.set_id(std::string(id));
  device.set_name(std::string(get.Text(0)));
  device.set_state(static_cast<v1::DeviceState>(get.Int(1)));
  SetTime(get.Int(2), device.mutable_enrolled_at());
  if (!get.IsNull(3)) SetTime(get.Int(3), device.mutable_last_seen_at());
  device.set_version(std::string(get.Text(4)));
  device.set_sqlite_version(std::string(get.Text(5)));
  device.set_platform(std::string(get.Text(6)));
  device.set_clock_offset_ms(get.Int(7));
  device.mutable_uptime()->set_seconds(get.Int(8) / 1000);
  device.mutable_uptime()->set_nanos(static_cast<int32_t>(get.Int(8) % 1000) * 1'000'000);
  device.set_free_bytes(get.Int(9));
  if (!get.IsNull(10)) SetTime(get.Int(10), device.mutable_certificate_expires_at());
  device.set_policy_acknowledged(get.Int(11));
  for (std::string_view rest = get.Text(12); !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    device.add_policy_problems(std::string(line));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from device_label where device_id = ?"));
  labels.Bind(1, id);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, labels.Step());
    if (!row) return device;
    (*device.mutable_labels())[std::string(labels.Text(0))] = std::string(labels.Text(1));
  }
}

absl::Status IdentityCatalog::WriteCertificates(absl::FunctionRef<absl::Status(sqlite3*, std::vector<CertificateRow>&)> change) {
  std::vector<CertificateRow> changed;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) { return change(db, changed); }));
  if (observer_ != nullptr && !changed.empty()) observer_->OnCertificates(changed);
  return absl::OkStatus();
}

absl::Status IdentityCatalog::AddCertificate(const CertificateRow& certificate, const std::string& earlier) {
  LF_RETURN_IF_ERROR(WriteCertificates([&](sqlite3* db, std::vector<CertificateRow>& changed) -> absl::Status {
    const std::string& device = certificate.device.value();
    if (!device.empty()) {
      LF_ASSIGN_OR_RETURN(Statement update,
                          Statement::Prepare(db,
                                             "update device set key_hash = ?1 where id = ?2 and state = ?3 and case when ?4 = '' then"
                                             " key_hash = ?1 else exists (select 1 from certificate where serial = ?4 and device_id = ?2"
                                             " and revoked_ms is null) end"));
      update.BindBlob(1, View(certificate.key_hash)).Bind(2, device).Bind(3, int64_t{v1::DEVICE_STATE_ACTIVE}).Bind(4, earlier);
      LF_RETURN_IF_ERROR(update.Run());
      if (sqlite3_changes(db) != 1) return DeviceRevoked(device);
    } else {
      LF_ASSIGN_OR_RETURN(
          Statement find,
          Statement::Prepare(db, "select 1 from certificate where operator_name = ? and revoked_ms is null and not_after_ms > ?"));
      LF_ASSIGN_OR_RETURN(const bool exists, find.Bind(1, certificate.operator_name).Bind(2, ToUnixMillis(certificate.issued_at)).Step());
      if (exists) {
        return Error(absl::StatusCode::kAlreadyExists, "OPERATOR_EXISTS",
                     fmt::format("there is an operator {} already", certificate.operator_name),
                     "choose another name, or run `litefleet-controller operator revoke` first");
      }
    }
    LF_ASSIGN_OR_RETURN(Statement insert,
                        Statement::Prepare(db,
                                           "insert into certificate (serial, device_id, operator_name, role, key_hash, issued_ms,"
                                           " not_after_ms) values (?,?,?,?,?,?,?)"));
    insert.Bind(1, certificate.serial);
    if (device.empty()) {
      insert.BindNull(2).Bind(3, certificate.operator_name);
    } else {
      insert.Bind(2, device).BindNull(3);
    }
    LF_RETURN_IF_ERROR(insert.Bind(4, certificate.role)
                           .BindBlob(5, View(certificate.key_hash))
                           .Bind(6, ToUnixMillis(certificate.issued_at))
                           .Bind(7, ToUnixMillis(certificate.not_after))
                           .Run());
    changed.push_back(certificate);
    return absl::OkStatus();
  }));
  return WriteRecords();
}

absl::Status IdentityCatalog::CertificateUsed(const std::string& serial, SystemTime now) {
  const absl::Status status = WriteCertificates([&](sqlite3* db, std::vector<CertificateRow>& changed) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement use,
                        Statement::Prepare(db, fmt::format("update certificate set used_ms = ? where serial = ? and used_ms is null and"
                                                           " revoked_ms is null returning number, {}",
                                                           kCertificateColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, use.Bind(1, ToUnixMillis(now)).Bind(2, serial).Step());
    if (!found) return absl::OkStatus();
    const int64_t number = use.Int(0);
    const std::string device(use.Text(2));
    LF_RETURN_IF_ERROR(use.Run());
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {} from certificate where serial = ?", kCertificateColumns)));
    LF_RETURN_IF_ERROR(get.Bind(1, serial).Step().status());
    changed.push_back(ReadCertificate(get));
    get.Reset();
    if (device.empty()) return absl::OkStatus();
    return RevokeCertificates(db, device, number, ToUnixMillis(now), changed);
  });
  WriteRecords().IgnoreError();  // it stays due
  return status;
}

absl::Status IdentityCatalog::RevokeOperator(const std::string& name, SystemTime now) {
  const absl::Status status = WriteCertificates([&](sqlite3* db, std::vector<CertificateRow>& changed) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement revoke,
                        Statement::Prepare(db, fmt::format("update certificate set revoked_ms = ?1 where operator_name = ?2 and"
                                                           " revoked_ms is null and not_after_ms > ?1 returning {}",
                                                           kCertificateColumns)));
    revoke.Bind(1, ToUnixMillis(now)).Bind(2, name);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, revoke.Step());
      if (!row) break;
      changed.push_back(ReadCertificate(revoke));
    }
    if (!changed.empty()) return absl::OkStatus();
    return Error(absl::StatusCode::kNotFound, "OPERATOR_NOT_FOUND", fmt::format("there is no operator {} with a valid certificate", name));
  });
  WriteRecords().IgnoreError();
  return status;
}

absl::StatusOr<std::optional<CertificateRow>> IdentityCatalog::FindCertificate(const std::string& serial) const {
  std::optional<CertificateRow> result;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {} from certificate where serial = ?", kCertificateColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, serial).Step());
    if (found) result = ReadCertificate(get);
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<std::vector<CertificateRow>> IdentityCatalog::ListCertificates(SystemTime now) const {
  std::vector<CertificateRow> result;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db, fmt::format("select {} from certificate where not_after_ms > ? order by number", kCertificateColumns)));
    list.Bind(1, ToUnixMillis(now));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      result.push_back(ReadCertificate(list));
    }
  }));
  return result;
}

}  // namespace litefleet::catalog
