#include "common/dump/check_clauses.h"

#include <sqlite3.h>

#include <algorithm>

namespace litefleet::dump {
namespace {

bool IsOfWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         static_cast<signed char>(c) < 0;
}

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Where what begins at `at` ends: a comment, something in quotes, a word, or one character.
size_t EndOfPiece(std::string_view sql, size_t at) {
  const auto behind = [&](std::string_view end, size_t from) {
    const size_t found = sql.find(end, from);
    return found == std::string_view::npos ? sql.size() : found + end.size();
  };
  if (sql.substr(at, 2) == "--") return behind("\n", at);
  if (sql.substr(at, 2) == "/*") return behind("*/", at + 2);
  const char first = sql[at];
  if (first == '[') return behind("]", at);
  if (first == '\'' || first == '"' || first == '`') {
    // A doubled one is two texts without anything between them, which ends at the same place.
    return behind(std::string_view(&first, 1), at + 1);
  }
  if (!IsOfWord(first)) return at + 1;
  return static_cast<size_t>(std::find_if_not(sql.begin() + static_cast<std::ptrdiff_t>(at), sql.end(), IsOfWord) - sql.begin());
}

}  // namespace

std::string BrokenChecks(std::string_view sql) {
  std::string broken;
  int depth = 0;
  bool announced = false;  // by the word CHECK, of which only space and comments have come since
  size_t begin = std::string_view::npos;
  for (size_t at = 0, end = 0; at < sql.size(); at = end) {
    end = EndOfPiece(sql, at);
    const std::string_view token = sql.substr(at, end - at);
    if (IsBlank(token[0]) || token.starts_with("--") || token.starts_with("/*")) continue;
    if (token == "(") {
      if (announced) begin = at;
      ++depth;
    } else if (token == ")") {
      --depth;
      if (depth == 1 && begin != std::string_view::npos) {
        broken += (broken.empty() ? "" : " OR ") + std::string(sql.substr(begin, end - begin)) + " IS FALSE";
        begin = std::string_view::npos;
      }
    }
    announced = depth == 1 && token.size() == 5 && sqlite3_strnicmp(token.data(), "check", 5) == 0;
  }
  return broken;
}

}  // namespace litefleet::dump
