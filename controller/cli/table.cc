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

// Bytes of the first `columns` characters.
size_t BytesOf(std::string_view text, size_t columns) {
  size_t at = 0;
  for (; columns > 0 && at < text.size(); --columns) at += std::max<size_t>(1, Utf8Length(text.substr(at)));
  return std::min(at, text.size());
}

// Lines of at most `columns` characters, broken at spaces, else behind a slash or comma, else anywhere. Nothing of it is left out.
std::vector<std::string_view> Lines(std::string_view text, size_t columns) {
  std::vector<std::string_view> lines;
  while (Columns(text) > columns) {
    const std::string_view fits = text.substr(0, BytesOf(text, columns));
    const size_t space = text[fits.size()] == ' ' ? fits.size() : fits.rfind(' ');
    const size_t mark = fits.find_last_of("/,");
    const bool at_space = space != std::string_view::npos && space > 0;
    const size_t end = at_space ? space : mark != std::string_view::npos ? mark + 1 : fits.size();
    lines.push_back(text.substr(0, end));
    text.remove_prefix(at_space ? end + 1 : end);
  }
  lines.push_back(text);
  return lines;
}

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
      cells.push_back(Lines(text_of(i), widths[i]));
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
