#include "controller/cli/selection.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/format/digest.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace litefleet::cli {
namespace {

constexpr size_t kBitsAName = 12;
constexpr size_t kMaxFilterBytes = 512;
constexpr size_t kNamed = 5;

size_t FilterBytes(size_t names) { return std::min(kMaxFilterBytes, (names * kBitsAName + 7) / 8); }

// The bits of a name among so many: 8 at 12 bits a name, and fewer where a filter has to do for more.
std::vector<size_t> BitsOf(const std::string& name, size_t filter_bytes, size_t names) {
  const auto digest = format::Sha256(AsBytes(name));
  const size_t filter_bits = 8 * filter_bytes;
  std::vector<size_t> bits(std::clamp<size_t>(filter_bits * 7 / 10 / std::max<size_t>(names, 1), 1, digest.size() / 4));
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = LoadBigEndian<uint32_t>(&digest[4 * i]) % filter_bits;
  return bits;
}

size_t CountOf(std::string_view word) { return std::strtoull(std::string(word).c_str(), nullptr, 10); }

// Who was certainly not there; nothing where the word has no filter.
std::vector<std::string> Came(std::string_view then, const std::set<std::string>& now) {
  const size_t dot = then.find('.');
  const std::optional<Bytes> filter = dot == std::string_view::npos ? std::nullopt : crypto::FromBase64Url(then.substr(dot + 1));
  std::vector<std::string> came;
  if (!filter.has_value() || filter->empty()) return came;
  for (const std::string& name : now) {
    const std::vector<size_t> bits = BitsOf(name, filter->size(), CountOf(then));
    const auto set = [&](size_t bit) { return ((*filter)[bit / 8] & std::byte{1} << bit % 8) != std::byte{0}; };
    if (!std::all_of(bits.begin(), bits.end(), set)) came.push_back(name);
  }
  return came;
}

}  // namespace

std::string SelectionWord(const std::set<std::string>& names) {
  Bytes filter(FilterBytes(names.size()));
  for (const std::string& name : names) {
    for (const size_t bit : BitsOf(name, filter.size(), names.size())) filter[bit / 8] |= std::byte{1} << bit % 8;
  }
  const std::string hash = ToHex(format::Sha256(AsBytes(absl::StrJoin(names, "\n")))).substr(0, 12);
  return fmt::format("{}-{}.{}", names.size(), hash, crypto::ToBase64Url(filter));
}

absl::Status CheckSelection(std::string_view then, const std::set<std::string>& now, std::string_view selector) {
  const std::string word = SelectionWord(now);
  // The number and the hash: older words have no more.
  if (then.substr(0, then.find('.')) == std::string_view(word).substr(0, word.find('.'))) return absl::OkStatus();
  const size_t count = CountOf(then);
  const std::vector<std::string> names = Came(then, now);
  const size_t came = std::max(names.size(), now.size() > count ? now.size() - count : 0);
  const size_t named = std::min(names.size(), kNamed);
  std::string news = now.size() == count ? ", and not the same ones" : "";
  if (came > 0) news = fmt::format(", of which at least {} came since", came);
  if (named > 0) news += fmt::format(": {}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(named), ", "));
  if (named > 0 && came > named) news += fmt::format(" and {} more", came - named);
  return Error(absl::StatusCode::kFailedPrecondition, "SELECTION_CHANGED",
               fmt::format("'{}' matched {} databases when the command began, and matches {} now{}", selector, count, now.size(), news),
               "name those that are meant in place of --selector, with the same --request-id and --at; or leave --selected out to restore "
               "all that match now");
}

}  // namespace litefleet::cli
