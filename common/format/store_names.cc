#include "common/format/store_names.h"

#include "fmt/format.h"

namespace litefleet::format {
namespace {

constexpr size_t kIdDigits = 16;
constexpr std::string_view kOpen = ".open";
constexpr std::string_view kSealed = ".pack";

}  // namespace

std::string MakePackFileName(uint64_t id, bool sealed) { return fmt::format("{:016x}{}", id, sealed ? kSealed : kOpen); }

std::optional<PackFileName> ParsePackFileName(std::string_view name) {
  if (name.size() != kIdDigits + kOpen.size()) return std::nullopt;
  PackFileName result;
  for (const char c : name.substr(0, kIdDigits)) {
    uint64_t digit;
    if (c >= '0' && c <= '9')
      digit = static_cast<uint64_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<uint64_t>(c - 'a' + 10);
    else
      return std::nullopt;
    result.id = result.id << 4 | digit;
  }
  if (result.id == 0) return std::nullopt;
  const std::string_view suffix = name.substr(kIdDigits);
  if (suffix == kSealed)
    result.sealed = true;
  else if (suffix != kOpen)
    return std::nullopt;
  return result;
}

}  // namespace litefleet::format
