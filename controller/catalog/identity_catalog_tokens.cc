#include "common/base/status.h"
#include "controller/catalog/device_origins.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/identity_rows.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr std::string_view kTokenColumns = "id, created_ms, expires_ms, uses_left, uses_total, revoked, for_device";

v1::Token ReadToken(const Statement& row) {
  v1::Token token;
  token.set_id(std::string(row.Text(0)));
  SetTime(row.Int(1), token.mutable_created_at());
  SetTime(row.Int(2), token.mutable_expires_at());
  token.set_uses_left(static_cast<int32_t>(row.Int(3)));
  token.set_uses_total(static_cast<int32_t>(row.Int(4)));
  token.set_revoked(row.Int(5) != 0);
  token.set_for_device_id(std::string(row.Text(6)));
  return token;
}

absl::Status ReadLabels(sqlite3* db, v1::Token& token) {
  LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from token_label where token_id = ?"));
  labels.Bind(1, token.id());
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, labels.Step());
    if (!row) return absl::OkStatus();
    (*token.mutable_labels())[std::string(labels.Text(0))] = std::string(labels.Text(1));
  }
}

// Unknown, used, expired and revoked are not told apart: who guesses learns nothing.
absl::Status TokenInvalid() {
  return Error(absl::StatusCode::kUnauthenticated, "TOKEN_INVALID", "the token is not valid: unknown, used, expired or revoked",
               "make a new one with `litefleet token create`");
}

struct TokenRow {
  std::string id, for_device;
  int64_t expires_ms = 0, uses_left = 0;
  bool revoked = false;
};

absl::StatusOr<std::optional<TokenRow>> FindToken(sqlite3* db, const KeyHash& hash) {
  LF_ASSIGN_OR_RETURN(Statement find,
                      Statement::Prepare(db, "select id, for_device, expires_ms, uses_left, revoked from token where secret_hash = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, find.BindBlob(1, View(hash)).Step());
  if (!found) return std::nullopt;
  return TokenRow{std::string(find.Text(0)), std::string(find.Text(1)), find.Int(2), find.Int(3), find.Int(4) != 0};
}

// The device that this key got with this token; empty: none.
absl::StatusOr<std::string> DeviceOfUse(sqlite3* db, const std::string& token, const KeyHash& key) {
  LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select device_id from token_use where token_id = ? and key_hash = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, find.Bind(1, token).BindBlob(2, View(key)).Step());
  return found ? std::string(find.Text(0)) : std::string();
}

absl::StatusOr<EnrollmentResult> Repeat(sqlite3* db, const std::string& device, const KeyHash& key) {
  LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select name, state, key_hash from device where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, find.Bind(1, device).Step());
  // A device that has been given another key since is somebody else's now.
  if (!found || ToKeyHash(find.Blob(2)) != key) return TokenInvalid();
  if (find.Int(1) != v1::DEVICE_STATE_ACTIVE) {
    return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", fmt::format("device {} was revoked", find.Text(0)),
                 "an operator can enrol it anew with `litefleet token create --for-device`");
  }
  return EnrollmentResult{DeviceId(device), std::string(find.Text(0)), true};
}

absl::StatusOr<EnrollmentResult> NewDevice(sqlite3* db, const TokenRow& token, const KeyHash& key, const std::string& name,
                                           int64_t now_ms) {
  if (!IsName(name)) {
    return Error(absl::StatusCode::kInvalidArgument, "DEVICE_NAME_INVALID", fmt::format("\"{}\" cannot be a device's name", name),
                 "use letters, digits, \".\", \"_\" and \"-\", at most 63");
  }
  LF_ASSIGN_OR_RETURN(Statement taken, Statement::Prepare(db, "select 1 from device where name = ?"));
  LF_ASSIGN_OR_RETURN(const bool is_taken, taken.Bind(1, name).Step());
  if (is_taken) {
    return Error(absl::StatusCode::kAlreadyExists, "DEVICE_NAME_TAKEN", fmt::format("there is a device named {} already", name),
                 "give another one with --name, or enrol that device anew with a token of `litefleet token create --for-device`");
  }
  const std::string id = NewUuid();
  LF_ASSIGN_OR_RETURN(
      Statement insert,
      Statement::Prepare(db, "insert into device (id, name, state, key_hash, enrolled_ms, free_bytes) values (?,?,?,?,?,-1)"));
  LF_RETURN_IF_ERROR(
      insert.Bind(1, id).Bind(2, name).Bind(3, int64_t{v1::DEVICE_STATE_ACTIVE}).BindBlob(4, View(key)).Bind(5, now_ms).Run());
  LF_ASSIGN_OR_RETURN(Statement labels,
                      Statement::Prepare(db, "insert into device_label select ?, key, value from token_label where token_id = ?"));
  LF_RETURN_IF_ERROR(labels.Bind(1, id).Bind(2, token.id).Run());
  return EnrollmentResult{DeviceId(id), name, false};
}

absl::StatusOr<EnrollmentResult> TakeOver(sqlite3* db, const std::string& device, const KeyHash& key, int64_t now_ms,
                                          std::vector<CertificateRow>& changed) {
  LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select name from device where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, find.Bind(1, device).Step());
  if (!found) return TokenInvalid();
  const std::string name(find.Text(0));
  // What it backed up would be part of what is going away.
  LF_ASSIGN_OR_RETURN(Statement forgotten, Statement::Prepare(db, "select 1 from database where device = ? and forgotten = 1 limit 1"));
  LF_ASSIGN_OR_RETURN(const bool being_forgotten, forgotten.Bind(1, device).Step());
  if (being_forgotten) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_BEING_FORGOTTEN",
                 fmt::format("device {} is being forgotten, which has not come to its end", name),
                 fmt::format("an operator ends it: litefleet device forget {} --delete-snapshots; then enrol with a new token", name));
  }
  LF_ASSIGN_OR_RETURN(Statement update, Statement::Prepare(db, "update device set state = ?, key_hash = ?, enrolled_ms = ? where id = ?"));
  LF_RETURN_IF_ERROR(update.Bind(1, int64_t{v1::DEVICE_STATE_ACTIVE}).BindBlob(2, View(key)).Bind(3, now_ms).Bind(4, device).Run());
  LF_RETURN_IF_ERROR(RevokeCertificates(db, device, INT64_MAX, now_ms, changed));
  LF_RETURN_IF_ERROR(ForgetOrigins(db, device));
  return EnrollmentResult{DeviceId(device), name, false};
}

}  // namespace

absl::StatusOr<v1::Token> IdentityCatalog::CreateToken(const NewToken& token) {
  v1::Token created;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement insert,
                        Statement::Prepare(db,
                                           "insert into token (id, secret_hash, created_ms, expires_ms, uses_total, uses_left, for_device)"
                                           " values (?,?,?,?,?,?,?)"));
    insert.Bind(1, token.id)
        .BindBlob(2, View(token.secret_hash))
        .Bind(3, ToUnixMillis(token.created_at))
        .Bind(4, ToUnixMillis(token.expires_at));
    LF_RETURN_IF_ERROR(insert.Bind(5, int64_t{token.uses}).Bind(6, int64_t{token.uses}).Bind(7, token.for_device_id).Run());
    for (const auto& [key, value] : token.labels) {
      LF_ASSIGN_OR_RETURN(Statement label, Statement::Prepare(db, "insert into token_label values (?,?,?)"));
      LF_RETURN_IF_ERROR(label.Bind(1, token.id).Bind(2, key).Bind(3, value).Run());
    }
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from token where id = ?", kTokenColumns)));
    LF_RETURN_IF_ERROR(get.Bind(1, token.id).Step().status());
    created = ReadToken(get);
    return ReadLabels(db, created);
  }));
  return created;
}

absl::StatusOr<Page<v1::Token>> IdentityCatalog::ListTokens(int page_size, const std::string& page_token) const {
  Page<v1::Token> page;
  const auto limit = static_cast<size_t>(BoundedPageSize(page_size));
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db, fmt::format("select {} from token where ?1 = '' or id < ?1 order by id desc limit ?2", kTokenColumns)));
    list.Bind(1, page_token).Bind(2, static_cast<int64_t>(limit) + 1);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      if (page.items.size() == limit) {
        page.next_token = page.items.back().id();
        return absl::OkStatus();
      }
      page.items.push_back(ReadToken(list));
      LF_RETURN_IF_ERROR(ReadLabels(db, page.items.back()));
    }
  }));
  return page;
}

absl::StatusOr<v1::Token> IdentityCatalog::RevokeToken(const std::string& reference) {
  v1::Token token;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement find,
        Statement::Prepare(db,
                           fmt::format("select {} from token where substr(id, 1, length(?1)) = upper(?1) and ?1 <> '' order by id limit 6",
                                       kTokenColumns)));
    find.Bind(1, reference);
    std::vector<v1::Token> found;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, find.Step());
      if (!row) break;
      found.push_back(ReadToken(find));
    }
    if (found.empty()) {
      return Error(absl::StatusCode::kNotFound, "TOKEN_NOT_FOUND", fmt::format("there is no token {}", reference),
                   "`litefleet token list` shows the ids");
    }
    if (found.size() > 1) {
      std::string ids;
      for (const v1::Token& each : found) ids += (ids.empty() ? "" : ", ") + each.id();
      return Error(absl::StatusCode::kFailedPrecondition, "AMBIGUOUS", fmt::format("{} fits several tokens: {}", reference, ids),
                   "write more of the id");
    }
    token = found.front();
    LF_ASSIGN_OR_RETURN(Statement revoke, Statement::Prepare(db, "update token set revoked = 1 where id = ?"));
    LF_RETURN_IF_ERROR(revoke.Bind(1, token.id()).Run());
    token.set_revoked(true);
    return ReadLabels(db, token);
  }));
  return token;
}

absl::StatusOr<EnrollmentResult> IdentityCatalog::Enroll(const KeyHash& token_hash, const KeyHash& key_hash, const std::string& wanted_name,
                                                         SystemTime now) {
  const int64_t now_ms = ToUnixMillis(now);
  EnrollmentResult result;
  LF_RETURN_IF_ERROR(WriteCertificates([&](sqlite3* db, std::vector<CertificateRow>& changed) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const std::optional<TokenRow> token, FindToken(db, token_hash));
    if (!token.has_value() || token->revoked) return TokenInvalid();
    LF_ASSIGN_OR_RETURN(const std::string used_for, DeviceOfUse(db, token->id, key_hash));
    if (!used_for.empty()) {
      LF_ASSIGN_OR_RETURN(result, Repeat(db, used_for, key_hash));
      return absl::OkStatus();
    }
    if (token->uses_left <= 0 || token->expires_ms <= now_ms) return TokenInvalid();
    if (token->for_device.empty()) {
      LF_ASSIGN_OR_RETURN(result, NewDevice(db, *token, key_hash, wanted_name, now_ms));
    } else {
      LF_ASSIGN_OR_RETURN(result, TakeOver(db, token->for_device, key_hash, now_ms, changed));
    }
    LF_ASSIGN_OR_RETURN(Statement spend, Statement::Prepare(db, "update token set uses_left = uses_left - 1 where id = ?"));
    LF_RETURN_IF_ERROR(spend.Bind(1, token->id).Run());
    LF_ASSIGN_OR_RETURN(Statement use, Statement::Prepare(db, "insert into token_use values (?,?,?,?)"));
    return use.Bind(1, token->id).BindBlob(2, View(key_hash)).Bind(3, result.device.value()).Bind(4, now_ms).Run();
  }));
  return result;
}

}  // namespace litefleet::catalog
