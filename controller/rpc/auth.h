// Who calls, and whether they may: the first thing that every handler asks. Default deny.
//
// Thread safety: all members may be called from any thread. Reads cached state, never waits for the catalog's writer.
#ifndef LITEFLEET_CONTROLLER_RPC_AUTH_H_
#define LITEFLEET_CONTROLLER_RPC_AUTH_H_

#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/rpc/call_hold.h"

namespace litefleet::rpc {

// kViewer: an operator who may look at the fleet, but neither change anything nor read what is in a backup; kOperator may both.
enum class Role { kNone, kDevice, kViewer, kOperator };

// Whether who is `has` may call what demands `wanted`.
constexpr bool Suffices(Role has, Role wanted) { return has == wanted || (has == Role::kOperator && wanted == Role::kViewer); }

struct Caller {
  Role role = Role::kNone;
  DeviceId device;                 // for devices
  std::string name;                // operators: their name, "local" over the unix socket
  std::string certificate_serial;  // hexadecimal; empty over the unix socket
  std::string ordered_by() const { return "operator:" + name; }
  // Of a device's stream, for KeepUntilDone: until it is told of the call's end, or goes, revoking the device cancels the call.
  std::shared_ptr<CallHold> live_call;
};

// What a method ("/litefleet.v1.AgentService/Control") demands at least; kNone: enrol and health only. Methods that are not in the table
// are refused. A test walks the descriptors and holds this table to them.
absl::StatusOr<Role> RequiredRole(std::string_view method);

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // kUnauthenticated CERTIFICATE_REQUIRED, CERTIFICATE_REVOKED, CERTIFICATE_UNKNOWN, CERTIFICATE_EXPIRED; kPermissionDenied WRONG_ROLE,
  // METHOD_UNKNOWN.
  virtual absl::StatusOr<Caller> Authenticate(const grpc::ServerContextBase& context, std::string_view method) = 0;
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_AUTH_H_
