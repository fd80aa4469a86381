#include "controller/cli/text.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <iterator>
#include <utility>

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

namespace {

// The character at the beginning of `text`, of which `length` bytes are one.
char32_t Character(std::string_view text, size_t length) {
  static constexpr unsigned kLead[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  char32_t c = static_cast<unsigned char>(text.front()) & kLead[length];
  for (size_t i = 1; i < length; ++i) c = (c << 6) | (static_cast<unsigned char>(text[i]) & 0x3f);
  return c;
}

// Controls, and what has no width or turns the direction of the text. Source: Unicode 15, Cc, Cf, Zl, Zp.
bool Drives(char32_t c) {
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {{0, 0x1f},        {0x7f, 0x9f},       {0xad, 0xad},      {0x600, 0x605},
                                                              {0x61c, 0x61c},   {0x6dd, 0x6dd},     {0x70f, 0x70f},    {0x180e, 0x180e},
                                                              {0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},  {0xfeff, 0xfeff},
                                                              {0xfff9, 0xfffb}, {0x1d173, 0x1d17a}, {0xe0000, 0xe007f}};
  return std::any_of(std::begin(kRanges), std::end(kRanges), [c](const auto& range) { return c >= range.first && c <= range.second; });
}

// As JSON escapes it.
std::string Escaped(char32_t c) {
  if (c < 0x10000) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
  return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
}

// How many bytes of `text` pass as they are at this place, whatever they are.
template <class Passes>
std::string Clean(std::string_view text, Passes passes) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    size_t length = passes(rest);
    if (length > 0) {
      out += rest.substr(0, length);
    } else if (length = Utf8Length(rest); length == 0) {
      out += Escaped(0xfffd);
      length = 1;
    } else if (const char32_t c = Character(rest, length); Drives(c)) {
      out += Escaped(c);
    } else {
      out += rest.substr(0, length);
    }
    at += length;
  }
  return out;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string line(text);
  for (char& c : line) c = c == '\n' || c == '\t' ? ' ' : c;
  return Clean(line, [](std::string_view) { return size_t{0}; });
}

std::string PrintableLines(std::string_view text, std::span<const std::string_view> colours) {
  return Clean(text, [colours](std::string_view rest) -> size_t {
    if (rest.front() == '\n' || rest.front() == '\t') return 1;
    const auto own = std::find_if(colours.begin(), colours.end(), [&](std::string_view code) { return rest.starts_with(code); });
    return own != colours.end() ? own->size() : 0;
  });
}

namespace {

// Bytes of the first `columns` characters.
size_t BytesOf(std::string_view text, size_t columns) {
  size_t at = 0;
  for (; columns > 0 && at < text.size(); --columns) at += std::max<size_t>(1, Utf8Length(text.substr(at)));
  return std::min(at, text.size());
}

}  // namespace

std::vector<std::string_view> BrokenLines(std::string_view text, size_t columns) {
  std::vector<std::string_view> lines;
  while (Columns(text) > columns) {
    const std::string_view fits = text.substr(0, BytesOf(text, columns));
    const size_t space = text[fits.size()] == ' ' ? fits.size() : fits.rfind(' ');
    const size_t mark = fits.find_last_of("/,");
    const bool at_space = space != std::string_view::npos && space > 0;
    const size_t end = at_space ? space : mark != std::string_view::npos ? mark + 1 : fits.size();
    lines.push_back(text.substr(0, end));
    text.remove_prefix(at_space ? end + 1 : end);
  }
  lines.push_back(text);
  return lines;
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

}  // namespace litefleet::cli
