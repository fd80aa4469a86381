// The reason of a gap whose states are there, and of which the device found that its database was something else
// (ChainCatalog::kChainDiffers).
#ifndef LITEFLEET_CONTROLLER_CLI_CHAIN_H_
#define LITEFLEET_CONTROLLER_CLI_CHAIN_H_

#include <string_view>

namespace litefleet::cli {

inline constexpr std::string_view kChainDiffers = "CHAIN_DIFFERS";

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_CHAIN_H_
