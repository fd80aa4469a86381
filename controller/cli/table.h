// Tables for people: columns padded with spaces, broken to a width, coloured where that is wanted. Nothing is left out: what stands in a
// table may be needed for the next command.
//
// Not for programs (they take JSON). Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_TABLE_H_
#define LITEFLEET_CONTROLLER_CLI_TABLE_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet::cli {

enum class Tone { kPlain, kGood, kBad, kDoubtful, kFaint };

struct Cell {
  Cell(std::string words) : text(std::move(words)) {}  // NOLINT(google-explicit-constructor)
  Cell(const char* words) : text(words) {}             // NOLINT(google-explicit-constructor)
  Cell(std::string words, Tone how) : text(std::move(words)), tone(how) {}
  std::string text;
  Tone tone = Tone::kPlain;
};

struct Style {
  size_t width = 100;  // 0: as wide as it gets
  bool color = false;
  bool utf8 = false;
};

std::string Toned(std::string_view text, Tone tone, const Style& style);
// What Toned puts into text.
std::span<const std::string_view> Colours(const Style& style);

class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
    // Where the table is too wide, the widest of these gets more lines first.
    bool may_break = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // REQUIRES: one cell a column.
  void Add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  std::string Text(const Style& style) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_TABLE_H_
