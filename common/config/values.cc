#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>

#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};

constexpr Unit kDurations[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
constexpr Unit kSizes[] = {{"KiB", int64_t{1} << 10},
                           {"MiB", int64_t{1} << 20},
                           {"GiB", int64_t{1} << 30},
                           {"TiB", int64_t{1} << 40},
                           {"kB", 1000},
                           {"MB", 1'000'000},
                           {"GB", 1'000'000'000},
                           {"TB", 1'000'000'000'000},
                           {"B", 1},
                           {"", 1}};

// A decimal number and a unit of the list; nothing where it is anything else or does not fit.
template <size_t N>
std::optional<int64_t> Parse(std::string_view text, const Unit (&units)[N]) {
  size_t digits = 0;
  while (digits < text.size() && ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.')) ++digits;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, number, std::chars_format::fixed);
  if (digits == 0 || error != std::errc() || end != text.data() + digits) return std::nullopt;
  const std::string_view name = text.substr(digits);
  const auto unit = std::find_if(std::begin(units), std::end(units), [&](const Unit& each) { return each.name == name; });
  if (unit == std::end(units)) return std::nullopt;
  const double value = std::round(number * static_cast<double>(unit->factor));
  if (!(value >= 0 && value < 9.0e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

}  // namespace

absl::StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  if (const auto value = Parse(text, kDurations); value.has_value()) return std::chrono::milliseconds(*value);
  return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", fmt::format("\"{}\" is no duration", text),
               "write a number and ms, s, m, h or d: 90s, 15m, 1h, 7d");
}

std::string FormatDuration(std::chrono::milliseconds duration) {
  const int64_t ms = duration.count();
  if (ms == 0) return "0s";
  const auto unit = std::find_if(std::rbegin(kDurations), std::rend(kDurations), [ms](const Unit& each) { return ms % each.factor == 0; });
  return fmt::format("{}{}", ms / unit->factor, unit->name);
}

absl::StatusOr<int64_t> ParseSize(std::string_view text) {
  if (const auto value = Parse(text, kSizes); value.has_value()) return *value;
  return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", fmt::format("\"{}\" is no size", text),
               "write bytes, or a number and KiB, MiB, GiB or TiB: 64MiB");
}

}  // namespace litefleet::config
