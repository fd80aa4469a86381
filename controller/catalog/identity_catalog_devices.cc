#include <algorithm>
#include <cstdint>

#include "common/base/status.h"
#include "controller/catalog/device_origins.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/identity_rows.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

struct Label {
  std::string key, value;
};

// "k=v,k2=v2"
absl::StatusOr<std::vector<Label>> ParseSelector(std::string_view selector) {
  std::vector<Label> labels;
  while (!selector.empty()) {
    const size_t comma = selector.find(',');
    const std::string_view item = selector.substr(0, comma);
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return Error(absl::StatusCode::kInvalidArgument, "SELECTOR_INVALID", fmt::format("\"{}\" is no selector", item),
                   "write key=value,key2=value2");
    }
    labels.push_back({std::string(item.substr(0, equals)), std::string(item.substr(equals + 1))});
    selector = comma == std::string_view::npos ? std::string_view() : selector.substr(comma + 1);
  }
  return labels;
}

absl::Status NotFound(std::string_view reference) {
  return Error(absl::StatusCode::kNotFound, "DEVICE_NOT_FOUND", fmt::format("there is no device {}", reference),
               "`litefleet device list` shows the devices");
}

constexpr std::string_view kNotRecorded = "but its record is not in the store yet, and will be once that works again";

int64_t Millis(const google::protobuf::Duration& duration) { return duration.seconds() * 1000 + duration.nanos() / 1'000'000; }

}  // namespace

absl::StatusOr<v1::Device> IdentityCatalog::ResolveDevice(const std::string& reference) const {
  v1::Device device;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    if (reference.empty()) return NotFound("\"\"");
    // A name wins over an id that begins like it.
    LF_ASSIGN_OR_RETURN(Statement find,
                        Statement::Prepare(db,
                                           "select id, name, name = ?1 from device where name = ?1 or substr(id, 1, length(?1)) = lower(?1)"
                                           " order by name = ?1 desc, id limit 6"));
    find.Bind(1, reference);
    std::string id, candidates;
    int count = 0;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, find.Step());
      if (!row) break;
      if (count++ == 0) id = std::string(find.Text(0));
      if (find.Int(2) != 0) {
        find.Reset();
        count = 1;
        break;
      }
      candidates += fmt::format("{}{} ({})", candidates.empty() ? "" : ", ", find.Text(1), find.Text(0));
    }
    if (count == 0) return NotFound(reference);
    if (count > 1) {
      return Error(absl::StatusCode::kFailedPrecondition, "AMBIGUOUS", fmt::format("{} fits several devices: {}", reference, candidates),
                   "write the name, or more of the id");
    }
    LF_ASSIGN_OR_RETURN(device, ReadDevice(db, id));
    return absl::OkStatus();
  }));
  return device;
}

absl::StatusOr<Page<v1::Device>> IdentityCatalog::ListDevices(const std::string& selector, int page_size,
                                                              const std::string& page_token) const {
  LF_ASSIGN_OR_RETURN(const std::vector<Label> labels, ParseSelector(selector));
  Page<v1::Device> page;
  const auto limit = static_cast<size_t>(BoundedPageSize(page_size));
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    std::string sql = "select id from device where name > ?1";
    for (size_t i = 0; i < labels.size(); ++i) {
      sql += fmt::format(" and exists (select 1 from device_label where device_id = device.id and key = ?{} and value = ?{})", 3 + 2 * i,
                         4 + 2 * i);
    }
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, sql + " order by name limit ?2"));
    list.Bind(1, page_token).Bind(2, static_cast<int64_t>(limit) + 1);
    for (size_t i = 0; i < labels.size(); ++i)
      list.Bind(static_cast<int>(3 + 2 * i), labels[i].key).Bind(static_cast<int>(4 + 2 * i), labels[i].value);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      if (page.items.size() == limit) {
        page.next_token = page.items.back().name();
        return absl::OkStatus();
      }
      LF_ASSIGN_OR_RETURN(v1::Device device, ReadDevice(db, list.Text(0)));
      page.items.push_back(std::move(device));
    }
  }));
  return page;
}

absl::StatusOr<v1::Device> IdentityCatalog::UpdateDevice(const DeviceId& id, const std::optional<std::string>& name,
                                                         const std::map<std::string, std::string>& set_labels,
                                                         const std::vector<std::string>& remove_labels) {
  v1::Device device;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    if (name.has_value()) {
      LF_ASSIGN_OR_RETURN(Statement taken, Statement::Prepare(db, "select 1 from device where name = ? and id <> ?"));
      LF_ASSIGN_OR_RETURN(const bool is_taken, taken.Bind(1, *name).Bind(2, id.value()).Step());
      if (is_taken) {
        return Error(absl::StatusCode::kAlreadyExists, "DEVICE_NAME_TAKEN", fmt::format("there is a device named {} already", *name),
                     "choose another name");
      }
      LF_ASSIGN_OR_RETURN(Statement rename, Statement::Prepare(db, "update device set name = ? where id = ?"));
      LF_RETURN_IF_ERROR(rename.Bind(1, *name).Bind(2, id.value()).Run());
    }
    LF_ASSIGN_OR_RETURN(device, ReadDevice(db, id.value()));
    for (const std::string& key : remove_labels) {
      LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, "delete from device_label where device_id = ? and key = ?"));
      LF_RETURN_IF_ERROR(remove.Bind(1, id.value()).Bind(2, key).Run());
    }
    for (const auto& [key, value] : set_labels) {
      LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "insert or replace into device_label values (?,?,?)"));
      LF_RETURN_IF_ERROR(set.Bind(1, id.value()).Bind(2, key).Bind(3, value).Run());
    }
    LF_ASSIGN_OR_RETURN(device, ReadDevice(db, id.value()));
    return absl::OkStatus();
  }));
  LF_RETURN_IF_ERROR(WriteRecords());
  return device;
}

absl::StatusOr<RevokedDevice> IdentityCatalog::RevokeDevice(const DeviceId& id) {
  v1::Device device;
  const int64_t now_ms = ToUnixMillis(RealClock().Now());
  LF_RETURN_IF_ERROR(WriteCertificates([&](sqlite3* db, std::vector<CertificateRow>& changed) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement revoke, Statement::Prepare(db, "update device set state = ? where id = ?"));
    LF_RETURN_IF_ERROR(revoke.Bind(1, int64_t{v1::DEVICE_STATE_REVOKED}).Bind(2, id.value()).Run());
    LF_RETURN_IF_ERROR(RevokeCertificates(db, id.value(), INT64_MAX, now_ms, changed));
    LF_ASSIGN_OR_RETURN(device, ReadDevice(db, id.value()));
    return absl::OkStatus();
  }));
  const absl::Status recorded = Annotate(WriteRecords(), fmt::format("device {} is revoked, {}", device.name(), kNotRecorded));
  return RevokedDevice{std::move(device), recorded};
}

absl::Status IdentityCatalog::ForgetDevice(const DeviceId& id) {
  v1::Device device;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(device, ReadDevice(db, id.value()));
    if (device.state() != v1::DEVICE_STATE_REVOKED) {
      return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_ACTIVE", fmt::format("device {} is active", device.name()),
                   fmt::format("revoke it first: litefleet device revoke {}", device.name()));
    }
    for (const std::string_view sql : {"delete from token_use where device_id = ?", "delete from token where for_device = ?",
                                       "delete from certificate where device_id = ?", "delete from device where id = ?"}) {
      LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, sql));
      const absl::Status status = remove.Bind(1, id.value()).Run();
      if (!status.ok() && (sqlite3_extended_errcode(db) & 0xff) == SQLITE_CONSTRAINT) {
        return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_HAS_SNAPSHOTS",
                     fmt::format("device {} still has data in the catalog", device.name()), "forget it with --delete-snapshots");
      }
      LF_RETURN_IF_ERROR(status);
    }
    return absl::OkStatus();
  }));
  return Annotate(WriteRecords(), fmt::format("device {} is forgotten, {}", device.name(), kNotRecorded));
}

absl::StatusOr<IdentityCatalog::Contact> IdentityCatalog::LastContact(const DeviceId& device) const {
  Contact contact;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select clock_offset_ms, seen_before_ms from device where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Step());
    if (!found) return NotFound(device.value());
    contact.clock_offset_ms = get.Int(0);
    if (!get.IsNull(1)) contact.seen_before = FromUnixMillis(get.Int(1));
    return absl::OkStatus();
  }));
  return contact;
}

absl::Status IdentityCatalog::Seen(const DeviceId& device, SystemTime now, const v1::Hello* hello, int64_t clock_offset_ms,
                                   const v1::Health* health) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    if (hello != nullptr) {
      // As long as snapshots wait on the device, the gap in which they were taken goes on: a link that is cut while they arrive does not
      // end it.
      const bool spooled = std::any_of(hello->databases().begin(), hello->databases().end(),
                                       [](const v1::DatabaseHealth& database) { return database.spooled_snapshots() > 0; });
      LF_ASSIGN_OR_RETURN(Statement keep, Statement::Prepare(db, spooled ? "update device set seen_before_ms = coalesce(seen_before_ms, "
                                                                           "last_seen_ms) where id = ?"
                                                                         : "update device set seen_before_ms = last_seen_ms where id = ?"));
      LF_RETURN_IF_ERROR(keep.Bind(1, device.value()).Run());
      LF_RETURN_IF_ERROR(NoteOrigin(db, device.value(), now, *hello));
    }
    LF_ASSIGN_OR_RETURN(Statement seen, Statement::Prepare(db, "update device set last_seen_ms = ?, clock_offset_ms = ? where id = ?"));
    LF_RETURN_IF_ERROR(seen.Bind(1, ToUnixMillis(now)).Bind(2, clock_offset_ms).Bind(3, device.value()).Run());
    if (hello != nullptr) {
      LF_ASSIGN_OR_RETURN(
          Statement set,
          Statement::Prepare(db, "update device set version = ?, sqlite_version = ?, platform = ?, uptime_ms = ? where id = ?"));
      set.Bind(1, hello->agent_version()).Bind(2, hello->sqlite_version()).Bind(3, hello->platform()).Bind(4, Millis(hello->uptime()));
      LF_RETURN_IF_ERROR(set.Bind(5, device.value()).Run());
    }
    if (health != nullptr) {
      LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update device set uptime_ms = ?, free_bytes = ? where id = ?"));
      LF_RETURN_IF_ERROR(set.Bind(1, Millis(health->uptime())).Bind(2, health->free_bytes()).Bind(3, device.value()).Run());
    }
    const bool told = hello != nullptr || (health != nullptr && health->has_policy_version());
    if (told) {
      std::string problems;
      for (const std::string& problem : hello != nullptr ? hello->policy_problems() : health->policy_problems())
        problems += (problems.empty() ? "" : "\n") + problem;
      LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update device set policy_version = ?, policy_problems = ? where id = ?"));
      set.Bind(1, hello != nullptr ? hello->policy_version() : health->policy_version()).Bind(2, problems);
      LF_RETURN_IF_ERROR(set.Bind(3, device.value()).Run());
    }
    return absl::OkStatus();
  });
}

}  // namespace litefleet::catalog
