#include "common/dump/dump_options.h"

#include "common/base/utf8.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace litefleet::dump {
namespace {

constexpr size_t kLongest = 1000;

}  // namespace

std::string PartOf(const DumpOptions& options) {
  std::vector<std::string> words;
  const auto say = [&](const char* what, const std::vector<std::string>& tables) {
    if (!tables.empty()) words.push_back(fmt::format("{}{} {}", what, tables.size() == 1 ? "" : "s", fmt::join(tables, ", ")));
  };
  say("table", options.tables);
  say("without table", options.without);
  if (options.schema_only) words.emplace_back("schema only");
  if (options.data_only) words.emplace_back("data only");
  return CleanUtf8(fmt::format("{}", fmt::join(words, ", ")), kLongest);
}

}  // namespace litefleet::dump
