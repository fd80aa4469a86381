#include "common/format/store_names.h"

#include "fmt/format.h"

namespace litefleet::format {
namespace {

constexpr size_t kIdDigits = 16;
constexpr std::string_view kOpen = ".open";
constexpr std::string_view kSealed = ".pack";
constexpr std::string_view kFinished = ".catalog";
constexpr std::string_view kWriting = ".writing";
static_assert(kOpen.size() == kSealed.size() && kFinished.size() == kWriting.size());

// Exactly 16 lower-case digits, and not 0.
bool ParseId(std::string_view digits, uint64_t& id) {
  id = 0;
  for (const char c : digits) {
    uint64_t digit;
    if (c >= '0' && c <= '9')
      digit = static_cast<uint64_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<uint64_t>(c - 'a' + 10);
    else
      return false;
    id = id << 4 | digit;
  }
  return id != 0;
}

}  // namespace

std::string MakePackFileName(uint64_t id, bool sealed) { return fmt::format("{:016x}{}", id, sealed ? kSealed : kOpen); }

std::optional<PackFileName> ParsePackFileName(std::string_view name) {
  if (name.size() != kIdDigits + kOpen.size()) return std::nullopt;
  PackFileName result;
  if (!ParseId(name.substr(0, kIdDigits), result.id)) return std::nullopt;
  const std::string_view suffix = name.substr(kIdDigits);
  if (suffix == kSealed)
    result.sealed = true;
  else if (suffix != kOpen)
    return std::nullopt;
  return result;
}

std::string MakeCatalogBackupName(uint64_t id, bool finished) { return fmt::format("{:016x}{}", id, finished ? kFinished : kWriting); }

std::optional<CatalogBackupName> ParseCatalogBackupName(std::string_view name) {
  if (name.size() != kIdDigits + kFinished.size()) return std::nullopt;
  CatalogBackupName result;
  if (!ParseId(name.substr(0, kIdDigits), result.id)) return std::nullopt;
  const std::string_view suffix = name.substr(kIdDigits);
  if (suffix == kFinished)
    result.finished = true;
  else if (suffix != kWriting)
    return std::nullopt;
  return result;
}

}  // namespace litefleet::format
