// JSON as the agent's own commands print it: a few members in a fixed order. Pure functions. Source: RFC 8259.
#ifndef LITEFLEET_AGENT_JSON_TEXT_H_
#define LITEFLEET_AGENT_JSON_TEXT_H_

#include <string>
#include <string_view>

#include "fmt/format.h"

namespace litefleet {

// With its quotes.
inline std::string JsonText(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

inline std::string JsonTextOrNull(std::string_view text) { return text.empty() ? "null" : JsonText(text); }

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_JSON_TEXT_H_
