#include "common/io/admin_socket.h"

#include <openssl/sha.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "common/base/bytes.h"

namespace litefleet::io {

std::string AdminSocketPath(std::string_view data) {
  std::error_code error;
  const std::filesystem::path given(data);
  std::filesystem::path whole = std::filesystem::weakly_canonical(std::filesystem::absolute(given, error), error);
  if (error) whole = given.lexically_normal();
  std::string directory = whole.string();
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  std::string path = directory + "/admin.sock";
  if (path.size() <= kMaxSocketPath) return path;
  std::array<std::byte, SHA256_DIGEST_LENGTH> hash;
  SHA256(reinterpret_cast<const unsigned char*>(directory.data()), directory.size(), reinterpret_cast<unsigned char*>(hash.data()));
  return "/run/litefleet/" + ToHex(std::span(hash).first(8)) + ".sock";
}

}  // namespace litefleet::io
