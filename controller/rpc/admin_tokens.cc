#include <algorithm>

#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr int kMaxUses = 100'000;
constexpr std::chrono::seconds kMaxTtl = std::chrono::hours(24 * 366);

}  // namespace

absl::StatusOr<v1::CreateTokenResponse> AdminHandlers::CreateToken(const v1::CreateTokenRequest& request) const {
  TokenWish wish;
  if (request.uses() < 0 || request.uses() > kMaxUses) {
    return Invalid("USES_OUT_OF_RANGE", fmt::format("uses is {}, it must be 1 to {}", request.uses(), kMaxUses));
  }
  wish.uses = std::max(request.uses(), 1);
  LF_ASSIGN_OR_RETURN(wish.ttl,
                      CheckedDuration(request.has_ttl(), request.ttl(), std::chrono::seconds(1), kMaxTtl, std::chrono::hours(1), "ttl"));
  for (const auto& [key, value] : request.labels()) {
    LF_RETURN_IF_ERROR(CheckLabel(key, value));
    wish.labels.emplace(key, value);
  }
  if (!request.for_device().empty()) {
    if (wish.uses != 1) {
      return Invalid("USES_OUT_OF_RANGE",
                     fmt::format("a token for device {} can be used once, not {} times", request.for_device(), wish.uses));
    }
    if (!wish.labels.empty()) {
      return Invalid("LABELS_NOT_ALLOWED", fmt::format("device {} keeps its labels when it enrols anew", request.for_device()),
                     "change them with `litefleet device label`");
    }
    LF_ASSIGN_OR_RETURN(const v1::Device device, deps_.identities->ResolveDevice(request.for_device()));
    wish.for_device = DeviceId(device.id());
  }
  return deps_.issue_token(wish);
}

absl::StatusOr<v1::ListTokensResponse> AdminHandlers::ListTokens(const v1::ListTokensRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Token> page, deps_.identities->ListTokens(page_size, request.page_token()));
  v1::ListTokensResponse response;
  for (v1::Token& token : page.items) *response.add_tokens() = std::move(token);
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::RevokeTokenResponse> AdminHandlers::RevokeToken(const v1::RevokeTokenRequest& request) const {
  if (request.token().empty())
    return Invalid("TOKEN_REFERENCE_EMPTY", "the id of the token is missing", "`litefleet token list` shows the ids");
  if (request.token().rfind("lft1.", 0) == 0) {
    return Invalid("TOKEN_REFERENCE_INVALID", "this is the secret of a token, not its id", "`litefleet token list` shows the ids");
  }
  LF_ASSIGN_OR_RETURN(v1::Token token, deps_.identities->RevokeToken(request.token()));
  v1::RevokeTokenResponse response;
  *response.mutable_token() = std::move(token);
  return response;
}

}  // namespace litefleet::rpc
