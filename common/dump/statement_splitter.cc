#include "common/dump/statement_splitter.h"

#include <algorithm>

namespace litefleet::dump {
namespace {

constexpr size_t kLongestWord = 10;  // "temporary" and one more

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || (c & 0x80) != 0;
}

}  // namespace

// A word has ended: what it says of the statement.
void StatementSplitter::EndWord() {
  if (word_.empty()) return;
  const bool ends = after_semicolon_ && word_ == "end";
  // EXPLAIN [QUERY PLAN] CREATE [TEMP | TEMPORARY] TRIGGER
  if (words_ == 0) {
    explain_ = word_ == "explain";
    create_ = word_ == "create";
  } else if (!trigger_) {
    if (create_) {
      trigger_ = word_ == "trigger";
      create_ = word_ == "temp" || word_ == "temporary";
    } else if (explain_) {
      create_ = word_ == "create";
      explain_ = word_ == "query" || word_ == "plan";
    }
  }
  ++words_;
  after_semicolon_ = false;
  end_after_semicolon_ = ends;
  word_.clear();
}

// Anything else but a word, a blank or a semicolon.
void StatementSplitter::Token(char) {
  EndWord();
  ++words_;
  create_ = explain_ = false;
  after_semicolon_ = end_after_semicolon_ = false;
}

bool StatementSplitter::Add(std::string_view text) {
  size_t kept = 0;  // what of `text` is in statement_ already
  const auto keep = [&](size_t end) {
    statement_.append(text.substr(kept, end - kept));
    kept = end;
    too_long_ = statement_.size() > max_bytes_;
    return !too_long_;
  };
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    switch (inside_) {
      case Inside::kText: {
        // Doubled quotes end a text and begin the next one, which is the same.
        const size_t end = text.find(quote_, at);
        at = std::min(end, text.size()) - (end == std::string_view::npos ? 1 : 0);
        if (end != std::string_view::npos) inside_ = Inside::kNothing;
        continue;
      }
      case Inside::kLine: {
        const size_t end = text.find('\n', at);
        at = std::min(end, text.size()) - (end == std::string_view::npos ? 1 : 0);
        if (end != std::string_view::npos) inside_ = Inside::kNothing;
        continue;
      }
      case Inside::kBlock:
        if (before_ == '*' && c == '/') {
          inside_ = Inside::kNothing;
          before_ = 0;
        } else {
          before_ = c == '*' ? '*' : 0;
        }
        continue;
      case Inside::kNothing:
        break;
    }
    if (before_ != 0) {
      const char first = before_;
      before_ = 0;
      if (first == '-' && c == '-') {
        inside_ = Inside::kLine;
        continue;
      }
      if (first == '/' && c == '*') {
        inside_ = Inside::kBlock;
        continue;
      }
      Token(first);
    }
    if (IsWord(c)) {
      if (word_.size() < kLongestWord) word_ += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      continue;
    }
    if (c == '-' || c == '/') {
      EndWord();
      before_ = c;
      continue;
    }
    if (IsBlank(c)) {
      EndWord();
      continue;
    }
    if (c == '\'' || c == '"' || c == '`' || c == '[') {
      Token(c);
      inside_ = Inside::kText;
      quote_ = c == '[' ? ']' : c;
      continue;
    }
    if (c != ';') {
      Token(c);
      continue;
    }
    EndWord();
    if (trigger_ && !end_after_semicolon_) {
      after_semicolon_ = true;
      continue;
    }
    if (!keep(at + 1)) return false;
    const bool empty = words_ == 0;
    words_ = 0;
    explain_ = create_ = trigger_ = after_semicolon_ = end_after_semicolon_ = false;
    const bool goes_on = empty || take_(statement_);
    statement_.clear();
    // A row of megabytes is no reason to keep as much.
    if (statement_.capacity() > (1 << 20)) std::string().swap(statement_);
    if (!goes_on) return false;
  }
  return keep(text.size());
}

bool StatementSplitter::Finish() {
  EndWord();
  const bool begun = words_ != 0 || before_ != 0 || inside_ == Inside::kText;
  return !begun || take_(statement_);
}

}  // namespace litefleet::dump
