#include "controller/cli/json.h"

#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const size_t length = Utf8Length(text.substr(at));
    if (length == 0) {
      out += "\\ufffd";
      ++at;
      continue;
    }
    if (length > 1) {
      out += text.substr(at, length);
    } else if (byte == '"' || byte == '\\') {
      out += '\\';
      out += static_cast<char>(byte);
    } else if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += static_cast<char>(byte);
    }
    at += length;
  }
  return out + '"';
}

}  // namespace

Json::Json(std::string_view text) : text_(Quoted(text)) {}

Json Json::Number(double value) {
  Json number;
  number.text_ = fmt::format("{:.6g}", value);
  return number;
}

Json& Json::Set(std::string_view key, Json value) {
  members_.emplace_back(Quoted(key), std::move(value));
  return *this;
}

Json& Json::Add(Json value) {
  members_.emplace_back(std::string(), std::move(value));
  return *this;
}

std::string Json::Text() const {
  std::string out;
  Append(out);
  return out;
}

void Json::Append(std::string& out) const {
  if (kind_ == Kind::kScalar) {
    out += text_;
    return;
  }
  out += kind_ == Kind::kObject ? '{' : '[';
  for (size_t i = 0; i < members_.size(); ++i) {
    if (i != 0) out += ',';
    if (kind_ == Kind::kObject) out += members_[i].first + ':';
    members_[i].second.Append(out);
  }
  out += kind_ == Kind::kObject ? '}' : ']';
}

}  // namespace litefleet::cli
