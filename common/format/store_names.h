// The names of a store's files, made and parsed here alone. FORMAT.md lists them. Thread safety: pure functions.
#ifndef LITEFLEET_COMMON_FORMAT_STORE_NAMES_H_
#define LITEFLEET_COMMON_FORMAT_STORE_NAMES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace litefleet::format {

inline constexpr std::string_view kPacksDirectory = "packs";
inline constexpr std::string_view kCatalogBackupsDirectory = "catalog";

struct PackFileName {
  uint64_t id = 0;
  bool sealed = false;
};

// "00000000000000a7.pack", or ".open" while it may grow.
std::string MakePackFileName(uint64_t id, bool sealed);
// Nothing for any other name.
std::optional<PackFileName> ParsePackFileName(std::string_view name);

struct CatalogBackupName {
  uint64_t id = 0;
  bool finished = false;
};

// "000000000000001c.catalog", or ".writing" until it is whole.
std::string MakeCatalogBackupName(uint64_t id, bool finished);
std::optional<CatalogBackupName> ParseCatalogBackupName(std::string_view name);

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_STORE_NAMES_H_
