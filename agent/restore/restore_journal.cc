#include "agent/restore/restore_journal.h"

#include <filesystem>
#include <sstream>
#include <system_error>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint64_t kMostBytes = 1 << 20;  // of a file
constexpr uint64_t kMostAgeBytes = 4096;
constexpr std::chrono::milliseconds kAgeStep = std::chrono::minutes(10);
constexpr std::string_view kSuffix = ".state";
constexpr std::string_view kUndoPrefix = "undo-";

absl::Status CheckId(const std::string& id) {
  if (IsName(id)) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_NAME",
               fmt::format("'{}' is no id of an operation and no name of a database", id));
}

template <class Message>
absl::StatusOr<std::optional<Message>> Read(const std::string& path) {
  const auto text = io::ReadFile(path, kMostBytes);
  if (!text.ok()) {
    if (text.status().code() == absl::StatusCode::kNotFound) return std::nullopt;
    return text.status();
  }
  Message message;
  if (!message.ParseFromString(*text) || message.version() == 0) {
    return Error(absl::StatusCode::kDataLoss, "STATE_DAMAGED", fmt::format("{} cannot be read as the state of a restore", path),
                 "look at the database and at the files beside it by hand, then remove this file");
  }
  if (message.version() > kVersion) {
    return Error(absl::StatusCode::kFailedPrecondition, "STATE_TOO_NEW", fmt::format("{} was written by a newer version", path),
                 "run the newer version again to finish the restore");
  }
  return message;
}

// What could not be read again would be forgotten by the next start.
template <class Message>
absl::Status Write(const std::string& path, Message message) {
  message.set_version(kVersion);
  const std::string text = message.SerializeAsString();
  if (text.size() <= kMostBytes) return io::WriteFileAtomic(path, text);
  return Error(absl::StatusCode::kInvalidArgument, "STATE_TOO_LARGE",
               fmt::format("{} would have {} bytes, {} are allowed", path, text.size(), kMostBytes),
               "look at what the order names: such an order is none of litefleet's");
}

// What cannot be read is told in `skipped`.
template <class Message>
absl::StatusOr<std::vector<Message>> ReadAll(const std::string& folder, bool undo, std::vector<std::string>& skipped) {
  std::vector<Message> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename();
    if (!name.ends_with(kSuffix) || name.starts_with(kUndoPrefix) != undo) continue;
    const auto message = Read<Message>(at->path());
    if (message.ok() && message->has_value()) found.push_back(**message);
    if (!message.ok()) skipped.push_back(MessageOf(message.status()));
  }
  if (error) return ErrnoError(error.value(), "list " + folder);
  return found;
}

}  // namespace

absl::StatusOr<RestoreJournal> RestoreJournal::Open(const std::string& folder) {
  LF_RETURN_IF_ERROR(io::MakeDirectory(folder));
  return RestoreJournal(folder);
}

absl::StatusOr<std::optional<storage::v1::RestoreState>> RestoreJournal::Load(const std::string& operation_id) const {
  LF_RETURN_IF_ERROR(CheckId(operation_id));
  return Read<storage::v1::RestoreState>(StateFile(operation_id));
}

absl::Status RestoreJournal::Save(const storage::v1::RestoreState& state) const {
  LF_RETURN_IF_ERROR(CheckId(state.operation_id()));
  return Write(StateFile(state.operation_id()), state);
}

absl::Status RestoreJournal::Remove(const std::string& operation_id) const {
  LF_RETURN_IF_ERROR(CheckId(operation_id));
  LF_RETURN_IF_ERROR(io::RemoveFile(ExtentsFile(operation_id)));
  return io::RemoveFile(StateFile(operation_id));
}

absl::StatusOr<std::vector<storage::v1::RestoreState>> RestoreJournal::List(std::vector<std::string>& skipped) const {
  return ReadAll<storage::v1::RestoreState>(folder_, false, skipped);
}

absl::StatusOr<std::optional<storage::v1::UndoRecord>> RestoreJournal::LoadUndo(const std::string& database) const {
  LF_RETURN_IF_ERROR(CheckId(database));
  return Read<storage::v1::UndoRecord>(UndoFile(database));
}

absl::Status RestoreJournal::SaveUndo(const storage::v1::UndoRecord& record) const {
  LF_RETURN_IF_ERROR(CheckId(record.database()));
  return Write(UndoFile(record.database()), record);
}

absl::Status RestoreJournal::RemoveUndo(const std::string& database) const {
  LF_RETURN_IF_ERROR(CheckId(database));
  LF_RETURN_IF_ERROR(io::RemoveFile(UndoFile(database)));
  return io::RemoveFile(AgeFile(database));
}

std::chrono::milliseconds RestoreJournal::AgeOfUndo(const storage::v1::UndoRecord& record, const Clock& clock) const {
  const std::string boot = BootId().empty() ? "-" : BootId();
  const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(clock.SinceBoot()).count();
  std::string operation, boot_then;
  int64_t then = 0, age = 0;
  std::istringstream kept(io::ReadFile(AgeFile(record.database()), kMostAgeBytes).value_or(""));
  kept >> operation >> boot_then >> then >> age;
  const bool known = !kept.fail() && operation == record.operation_id();
  const bool same_boot = known && boot_then == boot && then <= now;
  const int64_t passed = !known ? 0 : same_boot ? now - then : now;
  if (!known) age = 0;
  // What ran since the last write is lost with the power: devices may run for minutes at a time.
  if (!same_boot || passed >= kAgeStep.count()) {
    static_cast<void>(
        io::WriteFileAtomic(AgeFile(record.database()), fmt::format("{} {} {} {}\n", record.operation_id(), boot, now, age + passed)));
  }
  return std::chrono::milliseconds(age + passed);
}

absl::StatusOr<std::vector<storage::v1::UndoRecord>> RestoreJournal::ListUndos() const {
  std::vector<std::string> skipped;
  return ReadAll<storage::v1::UndoRecord>(folder_, true, skipped);
}

}  // namespace litefleet::restore
