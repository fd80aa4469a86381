#include "controller/cli/text.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>
#include <vector>

#include "fmt/format.h"

namespace litefleet::cli {

using std::chrono::milliseconds;

std::string SizeText(int64_t bytes) {
  if (bytes < 0) return "-" + SizeText(bytes == INT64_MIN ? INT64_MAX : -bytes);
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return value < 99.95 ? fmt::format("{:.1f} {}", value, kUnits[unit]) : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

std::string DurationText(milliseconds duration) {
  const int64_t ms = duration.count();
  if (ms < 0) return "-" + DurationText(-duration);
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 59'950) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  const int64_t seconds = (ms + 500) / 1000;
  if (seconds < 3600)
    return seconds % 60 == 0 ? fmt::format("{} min", seconds / 60) : fmt::format("{} min {} s", seconds / 60, seconds % 60);
  if (seconds < 86400)
    return seconds / 60 % 60 == 0 ? fmt::format("{} h", seconds / 3600) : fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
  return seconds / 3600 % 24 == 0 ? fmt::format("{} d", seconds / 86400) : fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string AgeText(SystemTime then, SystemTime now) {
  const auto difference = std::chrono::duration_cast<std::chrono::seconds>(now - then);
  const int64_t seconds = std::abs(difference.count());
  std::string text = seconds < 120      ? fmt::format("{} s", seconds)
                     : seconds < 7200   ? fmt::format("{} min", seconds / 60)
                     : seconds < 172800 ? fmt::format("{} h", seconds / 3600)
                                        : fmt::format("{} d", seconds / 86400);
  return difference.count() < 0 ? "in " + text : text + " ago";
}

std::string LocalTimeText(SystemTime time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(time));
  std::tm local = {};
  if (localtime_r(&seconds, &local) == nullptr) return Rfc3339Text(time);
  const long minutes = local.tm_gmtoff / 60;
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday,
                     local.tm_hour, local.tm_min, local.tm_sec, minutes < 0 ? '-' : '+', std::abs(minutes) / 60, std::abs(minutes) % 60);
}

std::string Rfc3339Text(SystemTime time) {
  std::string text = FormatRfc3339(time);
  if (text.ends_with(".000Z")) text.replace(text.size() - 5, 5, "Z");
  return text;
}

size_t Utf8Length(std::string_view text) {
  if (text.empty()) return 0;
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  const size_t length = first < 0x80                     ? 1
                        : first >= 0xc2 && first <= 0xdf ? 2
                        : (first & 0xf0) == 0xe0         ? 3
                        : first >= 0xf0 && first <= 0xf4 ? 4
                                                         : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  if ((first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) > 0x9f) || (first == 0xf0 && at(1) < 0x90) ||
      (first == 0xf4 && at(1) > 0x8f))
    return 0;
  return length;
}

size_t Columns(std::string_view text) {
  size_t columns = 0;
  for (size_t at = 0; at < text.size(); ++columns) at += std::max<size_t>(1, Utf8Length(text.substr(at)));
  return columns;
}

std::string Printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8Length(text.substr(at));
    const auto byte = static_cast<unsigned char>(text[at]);
    const bool control = length == 0 || (length == 1 && (byte < 0x20 || byte == 0x7f)) ||
                         (length == 2 && byte == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0);
    if (control) {
      out += '?';
    } else {
      out += text.substr(at, length);
    }
    at += std::max<size_t>(1, length);
  }
  return out;
}

std::string Cut(std::string_view text, size_t columns, std::string_view ellipsis) {
  const std::string clean = Printable(text);
  const size_t has = Columns(clean);
  if (has <= columns) return clean;
  const size_t room = columns - std::min(columns, Columns(ellipsis));
  const size_t tail = room / 3;
  const size_t head = room - tail;
  std::string out;
  size_t column = 0;
  for (size_t at = 0; at < clean.size(); ++column) {
    const size_t length = std::max<size_t>(1, Utf8Length(std::string_view(clean).substr(at)));
    if (column == head) out += ellipsis;
    if (column < head || column >= has - tail) out += clean.substr(at, length);
    at += length;
  }
  return out;
}

std::string Nearest(std::string_view typed, std::span<const std::string> names) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, typed.size() / 3) + 1;
  for (const std::string& name : names) {
    // Levenshtein's distance, with a swap of neighbours as one step, and no more than the beginning of a word as none.
    if (typed.size() >= 2 && name.starts_with(typed)) return name;
    std::vector<size_t> before(name.size() + 1), row(name.size() + 1), next(name.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < typed.size(); ++i) {
      next[0] = i + 1;
      for (size_t k = 0; k < name.size(); ++k) {
        next[k + 1] = std::min({row[k + 1] + 1, next[k] + 1, row[k] + (typed[i] == name[k] ? 0 : 1)});
        if (i > 0 && k > 0 && typed[i] == name[k - 1] && typed[i - 1] == name[k]) next[k + 1] = std::min(next[k + 1], before[k - 1] + 1);
      }
      before = row;
      std::swap(row, next);
    }
    if (row.back() < best_distance && row.back() < std::max(typed.size(), name.size())) {
      best_distance = row.back();
      best = name;
    }
  }
  return best;
}

}  // namespace litefleet::cli
