// Reads an example configuration as it is shipped, for tests that hold it against the parser.
#ifndef LITEFLEET_TESTS_UNIT_EXAMPLE_CONFIG_H_
#define LITEFLEET_TESTS_UNIT_EXAMPLE_CONFIG_H_

#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

namespace litefleet::testing_config {

// `path` is relative to the top of the source tree.
inline std::string ReadSource(const std::string& path) {
  std::ifstream file(std::string(LITEFLEET_SOURCE_DIR) + "/" + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// "#key = value" becomes "key = value"; "# text" stays.
inline std::string Uncommented(const std::string& text) { return std::regex_replace(text, std::regex("(^|\n)#([a-z_]+ = |\\[)"), "$1$2"); }

inline std::set<std::string> AllOf(const std::string& text, const std::string& pattern) {
  std::set<std::string> found;
  const std::regex regex(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), regex); at != std::sregex_iterator(); ++at) found.insert((*at)[1]);
  return found;
}

// Keys and tables that a parser asks for, from its source.
inline std::set<std::string> KeysOfParser(const std::string& source) {
  return AllOf(source, R"re((?:String|Choice|Bool|Integer|Duration|Size|Strings|Table|Tables)\("([a-z_]+)")re");
}

// Keys and tables of an example, commented out or not.
inline std::set<std::string> KeysOfExample(const std::string& text) {
  std::set<std::string> keys = AllOf(text, "(?:^|\n)#?([a-z_]+) = ");
  keys.merge(AllOf(text, "\n#?\\[+(?:[a-z_]+\\.)?([a-z_]+)\\]"));
  return keys;
}

}  // namespace litefleet::testing_config

#endif  // LITEFLEET_TESTS_UNIT_EXAMPLE_CONFIG_H_
