// Values of SQLite as SQL literals: those of the sqlite3 CLI where they are lossless (or where compatible text is wanted), else expressions
// that any SQLite evaluates to the very value.
//
// Pure but for FloatText, which asks SQLite what it reads back. Memory: none that grows with a value. For the helper process: plain C++.
#ifndef LITEFLEET_COMMON_DUMP_SQL_VALUES_H_
#define LITEFLEET_COMMON_DUMP_SQL_VALUES_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "common/dump/text_output.h"

struct sqlite3;
struct sqlite3_stmt;

namespace litefleet::dump {

// A name as it stands in SQL: quoted where it has to be.
std::string QuoteName(std::string_view name);
// In single quotes, as %Q.
std::string QuoteText(std::string_view text);

// X'...', lower-case digits.
void PutBlob(std::string_view blob, TextOutput& out);
// 'text', with line ends (and NULs, where `lossless`) by way of replace(); without `lossless` it ends at a NUL.
void PutText(std::string_view text, bool lossless, TextOutput& out);

// Text in UTF-16 of this machine's order that is not what UTF-8 can say.
bool HasLoneSurrogate(const char16_t* text, size_t units);
// Text in UTF-8 that SQLite would not have again from UTF-16: no Unicode, and U+FFFE and U+FFFF, for which it has U+FFFD.
bool IsLostInUtf16(std::string_view text);

class FloatText {
 public:
  explicit FloatText(sqlite3* db) : db_(db) {}
  ~FloatText();
  FloatText(const FloatText&) = delete;
  FloatText& operator=(const FloatText&) = delete;

  std::string Of(double value, bool lossless);

 private:
  bool ReadsBack(const std::string& text, double value);

  sqlite3* const db_;
  sqlite3_stmt* cast_ = nullptr;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_SQL_VALUES_H_
