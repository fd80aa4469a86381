// Files that a person names, by a flag, a setting or a variable: whatever is wrong with one, the error says by which, and what to do.
//
//   LF_ASSIGN_OR_RETURN(const std::string token,
//                       io::ReadNamedFile(path, {"--token-file", "make a token by `litefleet token create`"}, 64 << 10));
//   // --token-file: there is no file /root/token
//   //   make a token by `litefleet token create`
//
// Not for files that are ours (state, store): nobody has named these. Thread safety: functions of their arguments.
#ifndef LITEFLEET_COMMON_IO_NAMED_FILE_H_
#define LITEFLEET_COMMON_IO_NAMED_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/io/file.h"

namespace litefleet::io {

struct NamedBy {
  std::string_view what;    // "--token-file", "`[restore] order_keys` of agent.toml"
  std::string_view remedy;  // where the file is missing
};

// Of reading `path`: kNotFound FILE_NOT_FOUND with the remedy; kPermissionDenied NO_PERMISSION, and who could read it; kInvalidArgument
// FILE_INVALID for a directory, and for what is larger than expected. Others keep code, reason and hint. OK stays OK.
absl::Status NamedFileError(const absl::Status& status, const std::string& path, const NamedBy& named);
// The content, as ReadFile, with these errors.
absl::StatusOr<std::string> ReadNamedFile(const std::string& path, const NamedBy& named, uint64_t limit = 16 << 20);
// Before something is made there: kNotFound DIRECTORY_NOT_FOUND and kPermissionDenied NO_PERMISSION where its directory does not allow it.
absl::Status CheckNamedOutput(const std::string& path, std::string_view what);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_NAMED_FILE_H_
