// Cuts a stream of SQL text into statements, as the sqlite3 CLI does: at semicolons that are not in quotes, comments or the body of a
// trigger.
//
// Thread safety: none. Memory: one statement. For the helper process: plain C++.
// Source: https://www.sqlite.org/c3ref/complete.html
#ifndef LITEFLEET_COMMON_DUMP_STATEMENT_SPLITTER_H_
#define LITEFLEET_COMMON_DUMP_STATEMENT_SPLITTER_H_

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace litefleet::dump {

class StatementSplitter {
 public:
  // False ends the splitting. The text includes its semicolon.
  using Take = std::function<bool(const std::string& statement)>;
  StatementSplitter(size_t max_bytes, Take take) : max_bytes_(max_bytes), take_(std::move(take)) {}

  // False: a statement is too long, or `take` has said so.
  bool Add(std::string_view text);
  // No text comes any more: what has begun and not ended is a statement too, or will turn out to be none. Comments and blanks are not.
  bool Finish();
  bool too_long() const { return too_long_; }

 private:
  enum class Inside { kNothing, kText, kLine, kBlock };
  void EndWord();
  void Token(char c);

  const size_t max_bytes_;
  const Take take_;
  std::string statement_;
  Inside inside_ = Inside::kNothing;
  char quote_ = 0;    // that ends the text
  char before_ = 0;   // '-', '/' or, in a block comment, '*': one more character decides
  std::string word_;  // lower case, cut off where it is longer than any that counts
  size_t words_ = 0;  // tokens of the statement so far
  bool explain_ = false;
  bool create_ = false;
  bool trigger_ = false;
  bool end_after_semicolon_ = false;  // of a trigger: "; end" was read
  bool after_semicolon_ = false;
  bool too_long_ = false;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_STATEMENT_SPLITTER_H_
