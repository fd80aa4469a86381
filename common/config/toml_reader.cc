#include "common/config/toml_reader.h"

#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/nearest.h"
#include "common/base/status.h"
#include "common/io/named_file.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;

struct Problem {
  uint32_t line;
  std::string message;
  std::string hint;
  bool is_absence = false;
};

// What went wrong, in the order of the file.
struct Problems {
  std::string file;
  std::vector<Problem> list;

  void Add(const toml::node& node, std::string message, std::string hint) {
    list.push_back({static_cast<uint32_t>(node.source().begin.line), std::move(message), std::move(hint), false});
  }
  void AddAbsence(const toml::node& table, std::string message, std::string hint) {
    Add(table, std::move(message), std::move(hint));
    list.back().is_absence = true;
  }
  void Add(uint32_t line, std::string message, std::string hint) { list.push_back({line, std::move(message), std::move(hint), false}); }
};

std::string_view TypeName(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

std::string Join(const std::vector<std::string_view>& items) {
  std::string text;
  for (const std::string_view item : items) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", item);
  return text;
}

class TableImpl final : public TomlTable {
 public:
  TableImpl(const toml::table& table, std::string name, Problems& problems) : table_(table), name_(std::move(name)), problems_(problems) {}

  std::string String(std::string_view key, std::string_view fallback) override {
    return OptionalString(key).value_or(std::string(fallback));
  }

  std::string RequiredString(std::string_view key) override {
    if (Find(key) == nullptr) {
      problems_.AddAbsence(table_, fmt::format("\"{}\" is missing{}", key, name_.empty() ? "" : fmt::format(" in [{}]", name_)),
                           fmt::format("add {} = \"...\"", key));
      return {};
    }
    return OptionalString(key).value_or("");
  }

  std::optional<std::string> OptionalString(std::string_view key) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return std::nullopt;
    if (const auto* text = node->as_string()) return text->get();
    WrongType(key, *node, "a string");
    return std::nullopt;
  }

  std::string Choice(std::string_view key, const std::vector<std::string_view>& choices, std::string_view fallback) override {
    const auto text = OptionalString(key);
    if (!text.has_value()) return std::string(fallback);
    if (std::find(choices.begin(), choices.end(), *text) != choices.end()) return *text;
    Reject(key, fmt::format("\"{}\" is not one of {}", *text, Join(choices)), "");
    return std::string(fallback);
  }

  bool Bool(std::string_view key, bool fallback) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return fallback;
    if (const auto* value = node->as_boolean()) return value->get();
    WrongType(key, *node, "true or false");
    return fallback;
  }

  int64_t Integer(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return fallback;
    const auto* value = node->as_integer();
    if (value == nullptr) {
      WrongType(key, *node, "an integer");
      return fallback;
    }
    if (value->get() < minimum || value->get() > maximum) {
      Reject(key, fmt::format("{} is not between {} and {}", value->get(), minimum, maximum), "");
      return fallback;
    }
    return value->get();
  }

  std::chrono::milliseconds Duration(std::string_view key, std::chrono::milliseconds fallback, std::chrono::milliseconds minimum,
                                     std::chrono::milliseconds maximum) override {
    return OptionalDuration(key, minimum, maximum).value_or(fallback);
  }

  std::optional<std::chrono::milliseconds> OptionalDuration(std::string_view key, std::chrono::milliseconds minimum,
                                                            std::chrono::milliseconds maximum) override {
    const auto text = OptionalString(key);
    if (!text.has_value()) return std::nullopt;
    const auto value = ParseDuration(*text);
    if (!value.ok()) {
      Reject(key, MessageOf(value.status()), HintOf(value.status()));
      return std::nullopt;
    }
    if (*value < minimum || *value > maximum) {
      Reject(key, fmt::format("{} is not between {} and {}", *text, FormatDuration(minimum), FormatDuration(maximum)), "");
      return std::nullopt;
    }
    return *value;
  }

  int64_t Size(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return fallback;
    int64_t value = 0;
    if (const auto* number = node->as_integer()) {
      value = number->get();
    } else if (const auto* text = node->as_string()) {
      const auto parsed = ParseSize(text->get());
      if (!parsed.ok()) {
        Reject(key, MessageOf(parsed.status()), HintOf(parsed.status()));
        return fallback;
      }
      value = *parsed;
    } else {
      WrongType(key, *node, "a size such as \"64MiB\"");
      return fallback;
    }
    if (value < minimum || value > maximum) {
      Reject(key, fmt::format("{} bytes are not between {} and {}", value, minimum, maximum), "");
      return fallback;
    }
    return value;
  }

  std::vector<std::string> Strings(std::string_view key) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return {};
    const auto* array = node->as_array();
    std::vector<std::string> result;
    for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const auto* text = (*array)[i].as_string();
      if (text == nullptr) {
        WrongType(key, (*array)[i], "a list of strings");
        return {};
      }
      result.push_back(text->get());
    }
    if (array == nullptr) WrongType(key, *node, "a list of strings");
    return result;
  }

  TomlTable* Table(std::string_view key) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return nullptr;
    if (const auto* table = node->as_table()) return Child(*table, key);
    WrongType(key, *node, fmt::format("a table: [{}]", key));
    return nullptr;
  }

  std::vector<TomlTable*> Tables(std::string_view key) override {
    const toml::node* node = Find(key);
    if (node == nullptr) return {};
    const auto* array = node->as_array();
    std::vector<TomlTable*> result;
    for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const auto* table = (*array)[i].as_table();
      if (table == nullptr) {
        WrongType(key, (*array)[i], fmt::format("tables: [[{}]]", key));
        return {};
      }
      result.push_back(Child(*table, key));
    }
    if (array == nullptr) WrongType(key, *node, fmt::format("tables: [[{}]]", key));
    return result;
  }

  void Reject(std::string_view key, std::string_view why, std::string_view hint) override {
    const toml::node* node = table_.get(key);
    problems_.Add(node == nullptr ? static_cast<const toml::node&>(table_) : *node, fmt::format("{}: {}", key, why), std::string(hint));
  }

  bool Has(std::string_view key) const override { return table_.contains(key); }

  void ReportUnknown() {
    const std::vector<std::string> known(known_.begin(), known_.end());
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (known_.count(name) != 0) continue;
      const std::string nearest = Nearest(name, known);
      std::string all;
      for (const std::string& each : known) all += (all.empty() ? "" : ", ") + each;
      problems_.Add(static_cast<uint32_t>(key.source().begin.line),
                    fmt::format("unknown key \"{}\"{}", name, name_.empty() ? "" : fmt::format(" in [{}]", name_)),
                    nearest.empty() ? fmt::format("known here: {}", all) : fmt::format("did you mean \"{}\"?", nearest));
    }
    for (const auto& child : children_) child->ReportUnknown();
  }

 private:
  const toml::node* Find(std::string_view key) {
    known_.insert(std::string(key));
    return table_.get(key);
  }
  TomlTable* Child(const toml::table& table, std::string_view key) {
    children_.push_back(std::make_unique<TableImpl>(table, name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key), problems_));
    return children_.back().get();
  }
  void WrongType(std::string_view key, const toml::node& node, std::string_view wanted) {
    problems_.Add(node, fmt::format("{} is {}, expected {}", key, TypeName(node), wanted), "");
  }

  const toml::table& table_;
  const std::string name_;
  Problems& problems_;
  std::set<std::string> known_;
  std::vector<std::unique_ptr<TableImpl>> children_;
};

}  // namespace

struct TomlReader::Rep {
  toml::table table;
  Problems problems;
  std::unique_ptr<TableImpl> root;
};

TomlReader::TomlReader(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
TomlReader::TomlReader(TomlReader&&) noexcept = default;
TomlReader& TomlReader::operator=(TomlReader&&) noexcept = default;
TomlReader::~TomlReader() = default;

absl::StatusOr<TomlReader> TomlReader::ReadFile(const std::string& path, std::string_view remedy) {
  LF_ASSIGN_OR_RETURN(const std::string text, io::ReadNamedFile(path, {"--config", remedy}, kMaxFileBytes));
  return Parse(text, path);
}

absl::StatusOr<TomlReader> TomlReader::Parse(std::string_view text, std::string name) {
  auto rep = std::make_unique<Rep>();
  try {
    rep->table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                 fmt::format("{}:{}: {}", name, error.source().begin.line, error.description()), "the file is TOML: see toml.io");
  }
  rep->problems.file = std::move(name);
  rep->root = std::make_unique<TableImpl>(rep->table, "", rep->problems);
  return TomlReader(std::move(rep));
}

TomlTable& TomlReader::root() { return *rep_->root; }

absl::Status TomlReader::Finish() {
  rep_->root->ReportUnknown();
  auto& list = rep_->problems.list;
  if (list.empty()) return absl::OkStatus();
  // What is there and wrong comes before what is not there: a mistyped key is why another one is missing.
  const auto first = std::min_element(list.begin(), list.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.is_absence, a.line) < std::pair(b.is_absence, b.line);
  });
  return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
               fmt::format("{}:{}: {}", rep_->problems.file, std::max(first->line, 1u), first->message), first->hint);
}

}  // namespace litefleet::config
