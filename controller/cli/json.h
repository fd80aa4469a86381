// A JSON value that is built and printed once; members keep the order in which they were set.
//
// Not a parser. Thread safety: values. Numbers are whole ones of 64 bits; text that is not UTF-8 gets U+FFFD for what does not fit.
// Source: RFC 8259.
#ifndef LITEFLEET_CONTROLLER_CLI_JSON_H_
#define LITEFLEET_CONTROLLER_CLI_JSON_H_

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace litefleet::cli {

class Json {
 public:
  Json() : text_("null") {}
  Json(std::nullptr_t) : Json() {}                       // NOLINT(google-explicit-constructor)
  Json(bool value) : text_(value ? "true" : "false") {}  // NOLINT(google-explicit-constructor)
  template <std::integral T>
  requires(!std::same_as<T, bool> && !std::same_as<T, char>) Json(T value)
      : text_(std::to_string(value)) {}                            // NOLINT(google-explicit-constructor)
  Json(std::string_view text);                                     // NOLINT(google-explicit-constructor)
  Json(const std::string& text) : Json(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  Json(const char* text) : Json(std::string_view(text)) {}         // NOLINT(google-explicit-constructor)

  static Json Object() { return Json(Kind::kObject); }
  static Json Array() { return Json(Kind::kArray); }
  // With six digits behind the point at most.
  static Json Number(double value);
  // Null where `text` is empty.
  static Json OrNull(std::string_view text) { return text.empty() ? Json() : Json(text); }

  // REQUIRES: an object; a key is set once.
  Json& Set(std::string_view key, Json value);
  // REQUIRES: an array.
  Json& Add(Json value);

  // One line, without a final newline.
  std::string Text() const;

 private:
  enum class Kind { kScalar, kObject, kArray };
  explicit Json(Kind kind) : kind_(kind) {}
  void Append(std::string& out) const;

  Kind kind_ = Kind::kScalar;
  std::string text_;                                   // scalars, as they are printed
  std::vector<std::pair<std::string, Json>> members_;  // keys as they are printed; empty keys in arrays
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_JSON_H_
