#include "agent/state/state_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>
#include <system_error>

#include "common/base/bytes.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/unreadable.h"
#include "fmt/format.h"

namespace litefleet::state {
namespace {

constexpr uint32_t kFormat = 1;
constexpr std::string_view kTemporary = ".tmp";
constexpr std::string_view kDamaged = ".damaged";

absl::Status Damaged(const std::string& path) {
  return Error(absl::StatusCode::kDataLoss, "STATE_DAMAGED", fmt::format("{} cannot be read as what it should hold", path),
               "it was moved aside; look at the disk of this device");
}

absl::StatusOr<std::vector<std::string>> List(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), "list " + directory);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status RemoveMatching(const std::string& directory, const std::function<bool(const std::string&)>& matches) {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(directory));
  for (const std::string& name : names) {
    if (matches(name)) LF_RETURN_IF_ERROR(io::RemoveFile(directory + "/" + name));
  }
  return absl::OkStatus();
}

// A message with a format field. STATE_DAMAGED when it does not parse, STATE_TOO_NEW when a later version wrote it.
template <class Message>
absl::StatusOr<Message> Parse(const std::string& path) {
  const absl::StatusOr<std::string> content = io::ReadFile(path);
  if (io::IsUnreadable(content.status())) return Damaged(path);
  LF_RETURN_IF_ERROR(content.status());
  Message message;
  if (!message.ParseFromString(*content) || message.format() == 0) return Damaged(path);
  if (message.format() > kFormat) {
    return Error(absl::StatusCode::kFailedPrecondition, "STATE_TOO_NEW",
                 fmt::format("{} has format {}, this program knows {}", path, message.format(), kFormat),
                 "install the newer litefleet-agent again");
  }
  return message;
}

// What a confirmation of this order says. The order is parsed and serialized by one program before: its bytes are always the same.
std::string ConfirmationOf(const v1::Order& order) { return ToHex(crypto::HashOf(order.SerializeAsString())) + "\n"; }

absl::Status MoveAside(const std::string& path, std::vector<std::string>& damaged) {
  LF_RETURN_IF_ERROR(io::RenameFile(path, path + std::string(kDamaged)));
  damaged.push_back(fmt::format("{} could not be read and was moved aside", path));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StateDirectory> StateDirectory::Open(const std::string& path) {
  for (const char* below :
       {"", "/orders", "/results", "/databases", "/ledgers", "/restore", "/spool", "/gaps", "/confirmations", "/release"}) {
    if (const absl::Status made = io::MakeDirectory(path + below); !made.ok()) {
      return WithReason(Annotate(made, "the state directory (`state` of agent.toml, --state of enroll)"), "",
                        absl::IsPermissionDenied(made)
                            ? "run it as root or as the user that the agent runs as, or change the owner of the directory"
                            : "");
    }
  }
  return StateDirectory(path);
}

absl::StatusOr<io::ProcessLock> StateDirectory::Lock() const {
  LF_ASSIGN_OR_RETURN(io::ProcessLock lock, io::ProcessLock::Acquire(path_ + "/lock"));
  for (const char* below : {"", "/orders", "/results", "/databases", "/gaps"}) {
    LF_RETURN_IF_ERROR(RemoveMatching(path_ + below, [](const std::string& name) { return name.ends_with(kTemporary); }));
  }
  return lock;
}

absl::Status StateDirectory::ClearSpool() const {
  // Who asked for what was not taken does not wait any more. What was taken lasts until its time is over.
  LF_RETURN_IF_ERROR(RemoveMatching(path_ + "/release", [this](const std::string& name) {
    return !io::ReadFile(path_ + "/release/" + name, 64).value_or("").starts_with(kReleased);
  }));
  // What stands beside a name is another command's, which may be writing it now.
  LF_RETURN_IF_ERROR(
      RemoveMatching(path_ + "/confirmations", [this](const std::string& name) { return IsUlid(name) && !HasOperation(name); }));
  return RemoveMatching(path_ + "/spool", [](const std::string&) { return true; });
}

absl::StatusOr<std::vector<storage::v1::AgentOperation>> StateDirectory::ReadOperations(std::vector<std::string>& damaged) const {
  std::vector<storage::v1::AgentOperation> operations;
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(path_ + "/orders"));
  for (const std::string& name : names) {
    if (!IsUlid(name)) continue;
    const std::string file = path_ + "/orders/" + name;
    auto operation = Parse<storage::v1::AgentOperation>(file);
    v1::Order order;
    if (operation.ok() && (operation->operation_id() != name || !order.ParseFromString(operation->order()))) operation = Damaged(file);
    if (absl::IsDataLoss(operation.status())) {
      LF_RETURN_IF_ERROR(MoveAside(file, damaged));
      continue;
    }
    if (!operation.ok()) return operation.status();
    operations.push_back(*std::move(operation));
  }
  return operations;
}

absl::Status StateDirectory::WriteOperation(const storage::v1::AgentOperation& operation) const {
  storage::v1::AgentOperation stored = operation;
  stored.set_format(kFormat);
  return io::WriteFileAtomic(path_ + "/orders/" + operation.operation_id(), stored.SerializeAsString());
}

absl::Status StateDirectory::RemoveOperation(const std::string& operation_id) const {
  return io::RemoveFile(path_ + "/orders/" + operation_id);
}

bool StateDirectory::HasOperation(const std::string& operation_id) const { return io::Exists(path_ + "/orders/" + operation_id); }

absl::StatusOr<std::vector<v1::OperationResult>> StateDirectory::ReadResults(std::vector<std::string>& damaged) const {
  std::vector<v1::OperationResult> results;
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(path_ + "/results"));
  for (const std::string& name : names) {
    if (!IsUlid(name)) continue;
    const std::string file = path_ + "/results/" + name;
    const auto stored = Parse<storage::v1::AgentResult>(file);
    if (!stored.ok() && !absl::IsDataLoss(stored.status())) return stored.status();
    v1::OperationResult result;
    if (!stored.ok() || !result.ParseFromString(stored->result()) || result.operation_id() != name) {
      LF_RETURN_IF_ERROR(MoveAside(file, damaged));
      continue;
    }
    results.push_back(std::move(result));
  }
  return results;
}

absl::Status StateDirectory::WriteResult(const v1::OperationResult& result) const {
  storage::v1::AgentResult stored;
  stored.set_format(kFormat);
  stored.set_result(result.SerializeAsString());
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(path_ + "/results/" + result.operation_id(), stored.SerializeAsString()));
  LF_CRASH_POINT("agent.result.persisted");
  return absl::OkStatus();
}

absl::Status StateDirectory::RemoveResult(const std::string& operation_id) const {
  return io::RemoveFile(path_ + "/results/" + operation_id);
}

absl::StatusOr<storage::v1::AgentDatabase> StateDirectory::ReadDatabase(const std::string& name) const {
  const std::string file = path_ + "/databases/" + name + ".state";
  storage::v1::AgentDatabase database;
  database.set_name(name);
  database.set_timeline(1);
  if (!io::Exists(file)) return database;
  LF_ASSIGN_OR_RETURN(database, Parse<storage::v1::AgentDatabase>(file));
  if (database.name() != name) return Damaged(file);
  if (database.timeline() == 0) database.set_timeline(1);
  return database;
}

absl::Status StateDirectory::WriteDatabase(const storage::v1::AgentDatabase& database) const {
  storage::v1::AgentDatabase stored = database;
  stored.set_format(kFormat);
  return io::WriteFileAtomic(path_ + "/databases/" + database.name() + ".state", stored.SerializeAsString());
}

bool StateDirectory::IsConfirmed(const v1::Order& order) const {
  const std::string file = path_ + "/confirmations/" + order.operation_id();
  const auto fd = io::Open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) return false;
  struct stat st {};
  if (fstat(fd->get(), &st) != 0 || !S_ISREG(st.st_mode) || (st.st_uid != 0 && st.st_uid != geteuid())) return false;
  const std::string expected = ConfirmationOf(order);
  std::string content(expected.size(), '\0');
  if (static_cast<size_t>(st.st_size) != expected.size()) return false;
  return io::PreadAll(fd->get(), std::as_writable_bytes(std::span(content)), 0, file).ok() && content == expected;
}

absl::Status StateDirectory::WriteConfirmation(const v1::Order& order) const {
  // Root confirms for an agent that is somebody else: that one is to read it. Nobody gets through the directory but its owner.
  return io::WriteFileAtomic(path_ + "/confirmations/" + order.operation_id(), ConfirmationOf(order), 0644);
}

absl::Status StateDirectory::RemoveConfirmation(const std::string& operation_id) const {
  return io::RemoveFile(path_ + "/confirmations/" + operation_id);
}

absl::StatusOr<storage::v1::AgentOrderCounter> StateDirectory::ReadOrderCounter() const {
  absl::StatusOr<storage::v1::AgentOrderCounter> kept = Parse<storage::v1::AgentOrderCounter>(path_ + "/orders.counter");
  if (absl::IsNotFound(kept.status())) return storage::v1::AgentOrderCounter();
  return kept;
}

absl::Status StateDirectory::WriteOrderCounter(const storage::v1::AgentOrderCounter& counter) const {
  storage::v1::AgentOrderCounter written = counter;
  written.set_format(kFormat);
  return io::WriteFileAtomic(path_ + "/orders.counter", written.SerializeAsString());
}

absl::Status StateDirectory::WriteCaptures(const std::string& serialized) const {
  const std::string file = path_ + "/capture.state";
  {
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(file + std::string(kTemporary), O_WRONLY | O_CREAT | O_TRUNC));
    LF_RETURN_IF_ERROR(io::WriteAll(fd.get(), AsBytes(serialized), file));
  }
  if (rename((file + std::string(kTemporary)).c_str(), file.c_str()) != 0) return ErrnoError(errno, "rename " + file);
  return absl::OkStatus();
}

std::optional<storage::v1::AgentCaptures> StateDirectory::ReadCaptures() const {
  auto captures = Parse<storage::v1::AgentCaptures>(path_ + "/capture.state");
  if (!captures.ok()) return std::nullopt;
  return *std::move(captures);
}

std::optional<storage::v1::AgentConnection> StateDirectory::ReadConnection() const {
  auto connection = Parse<storage::v1::AgentConnection>(path_ + "/connection.state");
  if (!connection.ok()) return std::nullopt;
  return *std::move(connection);
}

absl::Status StateDirectory::WriteConnection(const storage::v1::AgentConnection& connection) const {
  storage::v1::AgentConnection stored = connection;
  stored.set_format(kFormat);
  return io::WriteFileAtomic(path_ + "/connection.state", stored.SerializeAsString());
}

absl::StatusOr<std::optional<v1::DevicePolicy>> StateDirectory::ReadPolicy() const {
  const std::string file = path_ + "/policy.state";
  if (!io::Exists(file)) return std::nullopt;
  const auto stored = Parse<storage::v1::AgentPolicy>(file);
  v1::DevicePolicy policy;
  if (stored.ok() && policy.ParseFromString(stored->policy())) return policy;
  if (!stored.ok() && !absl::IsDataLoss(stored.status())) return stored.status();
  std::vector<std::string> moved;
  LF_RETURN_IF_ERROR(MoveAside(file, moved));
  return Damaged(file);
}

absl::Status StateDirectory::WritePolicy(const v1::DevicePolicy& policy, SystemTime now) const {
  storage::v1::AgentPolicy stored;
  stored.set_format(kFormat);
  stored.set_policy(policy.SerializeAsString());
  stored.set_received_at_ms(ToUnixMillis(now));
  return io::WriteFileAtomic(path_ + "/policy.state", stored.SerializeAsString());
}

}  // namespace litefleet::state
