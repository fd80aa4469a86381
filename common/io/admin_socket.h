// Where the admin socket of a data directory is: the one place that the controller and the CLI agree on.
//
// Thread safety: pure functions but for the working directory, which makes a relative `data` absolute. Errors: none.
#ifndef LITEFLEET_COMMON_IO_ADMIN_SOCKET_H_
#define LITEFLEET_COMMON_IO_ADMIN_SOCKET_H_

#include <string>
#include <string_view>

namespace litefleet::io {

// What a socket's address holds without its final NUL (unix(7)).
inline constexpr size_t kMaxSocketPath = 107;
inline constexpr char kDefaultDataDirectory[] = "/var/lib/litefleet";

// DATA/admin.sock; where that is longer than kMaxSocketPath: /run/litefleet/HASH.sock, HASH being the first 16 hexadecimal digits of the
// SHA-256 of DATA's path, absolute and without symbolic links, "." or "..".
std::string AdminSocketPath(std::string_view data);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_ADMIN_SOCKET_H_
