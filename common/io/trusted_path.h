// Whether a file is what root, or the program's own user, put there: what it says may then decide about what is run or allowed.
//
// Thread safety: a pure function. Between the look and the use of the path nobody else can replace it, if the answer was OK.
#ifndef LITEFLEET_COMMON_IO_TRUSTED_PATH_H_
#define LITEFLEET_COMMON_IO_TRUSTED_PATH_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"

namespace litefleet::io {

// Every directory and symbolic link on the way to the absolute `path`, the path itself, and all of the way that links lead, belong to root
// or to `user`, and nobody else may write to them; in a directory with the sticky bit others may. kPermissionDenied PATH_NOT_TRUSTED, which
// names what is wrong; those of looking at it.
absl::Status CheckTrustedPath(const std::string& path, uid_t user);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_TRUSTED_PATH_H_
