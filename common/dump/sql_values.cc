#include "common/dump/sql_values.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "common/base/utf8.h"

namespace litefleet::dump {
namespace {

bool IsAlpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsPlain(char c) { return IsAlpha(c) || (c >= '0' && c <= '9') || c == '_'; }

// Something that stands for a character and is nowhere in the text: the CLI's choice, found in one pass over hostile text.
std::string MarkFor(std::string_view text, const char* first, const char* second) {
  if (text.find(first) == std::string_view::npos) return first;
  if (text.find(second) == std::string_view::npos) return second;
  const std::string begin = "(" + std::string(first);
  // Of the numbers that could be in the text one more than fit into it: one of them is free.
  std::vector<bool> used(text.size() / (begin.size() + 2) + 1);
  for (size_t at = text.find(begin); at != std::string_view::npos; at = text.find(begin, at + 1)) {
    const size_t digits = at + begin.size();
    size_t end = digits;
    size_t number = 0;
    for (; end < text.size() && text[end] >= '0' && text[end] <= '9' && number < used.size(); ++end)
      number = number * 10 + static_cast<size_t>(text[end] - '0');
    const bool padded = end > digits + 1 && text[digits] == '0';
    const bool whole = end > digits && end < text.size() && text[end] == ')';
    if (whole && !padded && number < used.size()) used[number] = true;
  }
  const auto least = std::find(used.begin(), used.end(), false) - used.begin();
  return begin + std::to_string(least) + ")";
}

// The value as a product of exact numbers: an integer, and divisions or multiplications by powers of two.
std::string ExactText(double value) {
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  const auto mantissa = static_cast<int64_t>(std::ldexp(fraction, 53));
  exponent -= 53;
  std::string text = (std::signbit(value) ? "(-" : "(") + std::to_string(mantissa) + ".0";
  constexpr int kStep = 52;
  const char* const sign = exponent < 0 ? "/" : "*";
  for (int left = std::abs(exponent); left > 0; left -= kStep) text += sign + std::to_string(int64_t{1} << std::min(left, kStep)) + ".0";
  return text + ")";
}

}  // namespace

std::string QuoteName(std::string_view name) {
  const bool plain = !name.empty() && (IsAlpha(name[0]) || name[0] == '_') && std::all_of(name.begin(), name.end(), IsPlain) &&
                     sqlite3_keyword_check(name.data(), static_cast<int>(name.size())) == 0;
  if (plain) return std::string(name);
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string QuoteText(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c;
  }
  return quoted + '\'';
}

void PutBlob(std::string_view blob, TextOutput& out) {
  constexpr char kDigits[] = "0123456789abcdef";
  out.Put("X'");
  std::array<char, 1024> piece{};
  while (!blob.empty()) {
    const size_t n = std::min(blob.size(), piece.size() / 2);
    for (size_t i = 0; i < n; ++i) {
      const auto byte = static_cast<unsigned char>(blob[i]);
      piece[2 * i] = kDigits[byte >> 4];
      piece[2 * i + 1] = kDigits[byte & 15];
    }
    out.Put(std::string_view(piece.data(), 2 * n));
    blob.remove_prefix(n);
  }
  out.Put('\'');
}

void PutText(std::string_view text, bool lossless, TextOutput& out) {
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos && !lossless) text = text.substr(0, nul);
  const bool nuls = lossless && nul != std::string_view::npos;
  const bool lines = text.find('\n') != std::string_view::npos;
  const bool returns = text.find('\r') != std::string_view::npos;
  std::string line_mark, return_mark, nul_mark;
  if (nuls) {
    out.Put("replace(");
    nul_mark = MarkFor(text, "\\000", "\\0000");
  }
  if (lines) {
    out.Put("replace(");
    line_mark = MarkFor(text, "\\n", "\\012");
  }
  if (returns) {
    out.Put("replace(");
    return_mark = MarkFor(text, "\\r", "\\015");
  }
  out.Put('\'');
  while (!text.empty()) {
    const size_t plain = text.find_first_of(std::string_view("\n\r'\0", 4));
    if (plain == std::string_view::npos) {
      out.Put(text);
      break;
    }
    out.Put(text.substr(0, plain));
    const char c = text[plain];
    out.Put(c == '\n'   ? std::string_view(line_mark)
            : c == '\r' ? std::string_view(return_mark)
            : c == '\'' ? "''"
                        : std::string_view(nul_mark));
    text.remove_prefix(plain + 1);
  }
  out.Put('\'');
  if (returns) out.Put(",'" + return_mark + "',char(13))");
  if (lines) out.Put(",'" + line_mark + "',char(10))");
  if (nuls) out.Put(",'" + nul_mark + "',char(0))");
}

FloatText::~FloatText() { sqlite3_finalize(cast_); }

bool FloatText::ReadsBack(const std::string& text, double value) {
  if (cast_ == nullptr && sqlite3_prepare_v2(db_, "select cast(? as real)", -1, &cast_, nullptr) != SQLITE_OK) return false;
  sqlite3_bind_text(cast_, 1, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  const bool same =
      sqlite3_step(cast_) == SQLITE_ROW && std::bit_cast<uint64_t>(sqlite3_column_double(cast_, 0)) == std::bit_cast<uint64_t>(value);
  sqlite3_reset(cast_);
  return same;
}

std::string FloatText::Of(double value, bool lossless) {
  if (std::isinf(value)) return value > 0 ? "1e999" : "-1e999";
  std::array<char, 64> text{};
  // As the CLI on machines where a number that is out of range becomes the smallest one.
  const int64_t whole = value >= -0x1p63 && value < 0x1p63 ? static_cast<int64_t>(value) : INT64_MIN;
  if (value == static_cast<double>(whole)) {
    if (value == 0 && std::signbit(value) && lossless) return "-0.0";
    sqlite3_snprintf(static_cast<int>(text.size()), text.data(), "%lld.0", static_cast<sqlite3_int64>(whole));
  } else {
    sqlite3_snprintf(static_cast<int>(text.size()), text.data(), "%!.20g", value);
  }
  std::string plain = text.data();
  if (!lossless || (value == 0 && !std::signbit(value)) || ReadsBack(plain, value)) return plain;
  return ExactText(value);
}

bool HasLoneSurrogate(const char16_t* text, size_t units) {
  for (size_t i = 0; i < units; ++i) {
    if (text[i] < 0xd800 || text[i] > 0xdfff) continue;
    const bool pair = text[i] < 0xdc00 && i + 1 < units && text[i + 1] >= 0xdc00 && text[i + 1] <= 0xdfff;
    if (!pair) return true;
    ++i;
  }
  return false;
}

bool IsLostInUtf16(std::string_view text) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0 || text.starts_with("\xef\xbf\xbe") || text.starts_with("\xef\xbf\xbf")) return true;
    text.remove_prefix(length);
  }
  return false;
}

}  // namespace litefleet::dump
