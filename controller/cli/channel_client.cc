#include "controller/cli/channel_client.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/identity_file.h"
#include "common/rpc/status.h"
#include "fmt/format.h"

namespace litefleet::cli {

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const rpc::Address& address, const std::string& identity_file) {
  rpc::ChannelOptions options{.address = address, .identity = {}, .user_agent = "litefleet/" LITEFLEET_VERSION};
  if (!address.is_unix()) {
    if (identity_file.empty()) {
      return Error(absl::StatusCode::kInvalidArgument, "IDENTITY_MISSING",
                   fmt::format("{} is reached over TLS, which needs an operator's file", address.Text()),
                   "give --identity FILE (admin.pem of the controller's directory, or one of `litefleet-controller operator create`)");
    }
    LF_ASSIGN_OR_RETURN(options.identity, rpc::ReadIdentityFile(identity_file));
  }
  return rpc::MakeChannel(options);
}

absl::Status Explained(const grpc::Status& status, const rpc::Address& address) {
  absl::Status result = rpc::ToAbsl(status);
  if (result.ok() || !ReasonOf(result).empty()) return result;
  if (absl::IsUnavailable(result)) {
    return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE",
                 fmt::format("cannot reach the controller at {}: {}", address.Text(), status.error_message()),
                 address.is_unix() ? "check that litefleet-controller runs, and that --data or --server names its directory or socket"
                                   : "check the address, that litefleet-controller runs there, and that --identity is of its CA");
  }
  if (absl::IsDeadlineExceeded(result)) {
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_SLOW",
                 fmt::format("the controller at {} did not answer in time", address.Text()),
                 "try again; see the controller's log if it stays");
  }
  if (absl::IsUnimplemented(result)) {
    return Error(absl::StatusCode::kUnimplemented, "VERSION_MISMATCH",
                 fmt::format("the controller at {} does not know this call", address.Text()),
                 "compare `litefleet version`: the controller is older than this program");
  }
  return result;
}

absl::Status LookAtSocket(const rpc::Address& address) {
  if (!address.is_unix()) return absl::OkStatus();
  struct stat info = {};
  const std::string& path = address.path;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == EACCES) {
      return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION",
                   fmt::format("the directory of {} may not be entered by this user", path),
                   "run it as the controller's user, or use --server HOST:PORT with --identity FILE");
    }
    return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", fmt::format("there is no controller's socket at {}", path),
                 "start litefleet-controller, or name its directory by --data, or use --server HOST:PORT with --identity FILE");
  }
  if (!S_ISSOCK(info.st_mode)) {
    return Error(absl::StatusCode::kInvalidArgument, "NOT_A_SOCKET", fmt::format("{} is no socket", path),
                 "give the socket itself: --server unix:DIR/admin.sock");
  }
  if (access(path.c_str(), W_OK) != 0) {
    return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION", fmt::format("this user may not use {}", path),
                 "run it as the controller's user, or use --server HOST:PORT with --identity FILE");
  }
  return absl::OkStatus();
}

}  // namespace litefleet::cli
