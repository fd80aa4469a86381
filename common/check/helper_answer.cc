#include "common/check/helper_answer.h"

#include <charconv>

#include "common/base/utf8.h"

namespace litefleet::check {
namespace {

constexpr size_t kMaxLine = 1024;
constexpr size_t kMaxMessages = 64;

}  // namespace

bool HelperAnswer::Take(std::string_view piece) {
  for (const char c : piece) {
    if (c != '\n') {
      if (line_.size() >= kMaxLine) return false;
      line_ += c;
      continue;
    }
    if (!TakeLine(line_)) return false;
    line_.clear();
  }
  return true;
}

bool HelperAnswer::TakeLine(std::string_view line) {
  const size_t blank = line.find(' ');
  if (!verdict_.empty() || blank == std::string_view::npos) return false;
  const std::string_view kind = line.substr(0, blank);
  const std::string_view rest = line.substr(blank + 1);
  if (kind == "progress") {
    int64_t bytes = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), bytes);
    if (error != std::errc() || bytes < 0) return false;
    if (progress_) progress_(bytes);
    return true;
  }
  if (kind == "message") {
    if (messages_.size() >= kMaxMessages) return false;
    messages_.push_back(CleanUtf8(rest, kMaxLine));
    return true;
  }
  if (kind != "verdict" || rest.empty()) return false;
  verdict_ = rest;
  return true;
}

std::string HelperAnswer::Text() const {
  std::string text;
  for (const std::string& message : messages_) text += (text.empty() ? "" : "; ") + message;
  return text;
}

}  // namespace litefleet::check
