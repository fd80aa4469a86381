#include "controller/cli/table.h"

#include <algorithm>
#include <numeric>

#include "controller/cli/text.h"

namespace litefleet::cli {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 8;
constexpr std::string_view kPlainAgain = "\033[0m";
constexpr std::string_view kCodes[] = {"\033[32m", "\033[31m", "\033[33m", "\033[2m", kPlainAgain};

}  // namespace

std::string Toned(std::string_view text, Tone tone, const Style& style) {
  if (!style.color || tone == Tone::kPlain || text.empty()) return std::string(text);
  const std::string_view code = kCodes[tone == Tone::kGood ? 0 : tone == Tone::kBad ? 1 : tone == Tone::kDoubtful ? 2 : 3];
  return std::string(code) + std::string(text) + std::string(kPlainAgain);
}

std::span<const std::string_view> Colours(const Style& style) {
  return style.color ? std::span<const std::string_view>(kCodes) : std::span<const std::string_view>();
}

std::string Table::Text(const Style& style) const {
  std::vector<std::vector<std::string>> texts;
  for (const auto& row : rows_) {
    std::vector<std::string>& cells = texts.emplace_back();
    for (const Cell& cell : row) cells.push_back(Printable(cell.text));
  }
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = Columns(columns_[i].title);
    for (const auto& row : texts) width = std::max(width, Columns(row[i]));
    widths.push_back(width);
  }
  const auto total = [&] {
    return std::accumulate(widths.begin(), widths.end(), size_t{0}) + kGap * (widths.empty() ? 0 : widths.size() - 1);
  };
  while (style.width != 0 && total() > style.width) {
    size_t widest = columns_.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      const bool breakable = columns_[i].may_break && widths[i] > std::max(kNarrowest, Columns(columns_[i].title));
      if (breakable && (widest == columns_.size() || widths[i] > widths[widest])) widest = i;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
  }
  std::string out;
  const auto add = [&](const auto& text_of, const auto& tone_of) {
    std::vector<std::vector<std::string_view>> cells;
    size_t height = 1;
    for (size_t i = 0; i < columns_.size(); ++i) {
      cells.push_back(BrokenLines(text_of(i), widths[i]));
      height = std::max(height, cells.back().size());
    }
    for (size_t line = 0; line < height; ++line) {
      std::string text;
      for (size_t i = 0; i < columns_.size(); ++i) {
        const std::string_view part = line < cells[i].size() ? cells[i][line] : std::string_view();
        const std::string padding(widths[i] - std::min(widths[i], Columns(part)), ' ');
        if (i != 0) text.append(kGap, ' ');
        text += columns_[i].right ? padding + Toned(part, tone_of(i), style) : Toned(part, tone_of(i), style) + padding;
      }
      while (text.ends_with(' ')) text.pop_back();
      out += text + '\n';
    }
  };
  add([&](size_t i) { return std::string_view(columns_[i].title); }, [](size_t) { return Tone::kFaint; });
  for (size_t row = 0; row < rows_.size(); ++row) {
    add([&](size_t i) { return std::string_view(texts[row][i]); }, [&](size_t i) { return rows_[row][i].tone; });
  }
  return out;
}

}  // namespace litefleet::cli
