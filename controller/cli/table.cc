#include "controller/cli/table.h"

#include <algorithm>
#include <numeric>

#include "controller/cli/text.h"

namespace litefleet::cli {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 8;

}  // namespace

std::string Toned(std::string_view text, Tone tone, const Style& style) {
  if (!style.color || tone == Tone::kPlain || text.empty()) return std::string(text);
  const char* code = tone == Tone::kGood ? "32" : tone == Tone::kBad ? "31" : tone == Tone::kDoubtful ? "33" : "2";
  return std::string("\033[") + code + "m" + std::string(text) + "\033[0m";
}

std::string Table::Text(const Style& style) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = Columns(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, Columns(row[i].text));
    widths.push_back(width);
  }
  const auto total = [&] {
    return std::accumulate(widths.begin(), widths.end(), size_t{0}) + kGap * (widths.empty() ? 0 : widths.size() - 1);
  };
  while (style.width != 0 && total() > style.width) {
    size_t widest = columns_.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      const bool shrinkable = columns_[i].may_shrink && widths[i] > std::max(kNarrowest, Columns(columns_[i].title));
      if (shrinkable && (widest == columns_.size() || widths[i] > widths[widest])) widest = i;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
  }
  const std::string_view ellipsis = style.utf8 ? "\u2026" : "...";
  std::string out;
  const auto line = [&](const auto& text_of, const auto& tone_of) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string cut = Cut(text_of(i), widths[i], ellipsis);
      const std::string padding(widths[i] - std::min(widths[i], Columns(cut)), ' ');
      if (i != 0) text.append(kGap, ' ');
      text += columns_[i].right ? padding + Toned(cut, tone_of(i), style) : Toned(cut, tone_of(i), style) + padding;
    }
    while (text.ends_with(' ')) text.pop_back();
    out += text + '\n';
  };
  line([&](size_t i) { return std::string_view(columns_[i].title); }, [](size_t) { return Tone::kFaint; });
  for (const auto& row : rows_) {
    line([&](size_t i) { return std::string_view(row[i].text); }, [&](size_t i) { return row[i].tone; });
  }
  return out;
}

}  // namespace litefleet::cli
