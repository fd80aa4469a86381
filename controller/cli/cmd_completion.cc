// litefleet completion bash|zsh|fish: from what the parser knows, so that it cannot fall behind.
#include <algorithm>

#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

// Words that may follow a command: its verbs, and its long options with those of the whole program.
struct Place {
  std::string path;                                        // "", "snapshot", "snapshot list"
  std::vector<std::pair<std::string, std::string>> words;  // with what they do
};

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

void Collect(const CLI::App& app, const std::string& path, const std::vector<std::pair<std::string, std::string>>& global,
             std::vector<Place>& places) {
  Place place{path, {}};
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    place.words.emplace_back(verb->get_name(), FirstLine(verb->get_description()));
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) place.words.emplace_back("--" + name, FirstLine(option->get_description()));
  }
  for (const auto& word : global) {
    if (std::find(place.words.begin(), place.words.end(), word) == place.words.end()) place.words.push_back(word);
  }
  places.push_back(place);
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    Collect(*verb, path.empty() ? verb->get_name() : path + " " + verb->get_name(), global, places);
  }
}

std::vector<Place> Places(const CLI::App& app) {
  std::vector<std::pair<std::string, std::string>> global;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (name != "version") global.emplace_back("--" + name, FirstLine(option->get_description()));
    }
  }
  std::vector<Place> places;
  Collect(app, "", global, places);
  return places;
}

std::string Quoted(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return "'" + out + "'";
}

// The words before the cursor that are no options decide; what follows an option is not looked at closely.
std::string Bash(const std::vector<Place>& places) {
  std::string cases;
  for (const Place& place : places) {
    std::string words;
    for (const auto& word : place.words) words += (words.empty() ? "" : " ") + word.first;
    cases += fmt::format("    {}) words={} ;;\n", Quoted(place.path), Quoted(words));
  }
  return fmt::format(
      R"(# bash completion of litefleet: source <(litefleet completion bash)
_litefleet() {{
  local word path='' words='' current="${{COMP_WORDS[COMP_CWORD]}}" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    case "$word" in
      -*) ;;
      *) _litefleet_words "${{path:+$path }}$word" && path="${{path:+$path }}$word" ;;
    esac
  done
  _litefleet_words "$path"
  case "${{COMP_WORDS[COMP_CWORD-1]}}" in
    -o) words='table wide json name' ;;
    --output|--identity|--data) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
_litefleet_words() {{
  case "$1" in
{}    *) return 1 ;;
  esac
}}
complete -F _litefleet litefleet
)",
      cases);
}

std::string Zsh(const std::vector<Place>& places) {
  std::string cases;
  for (const Place& place : places) {
    std::string words;
    for (const auto& [word, what] : place.words) {
      std::string text = what;
      std::replace(text.begin(), text.end(), ':', ',');
      words += " " + Quoted(word + ":" + text);
    }
    cases += fmt::format("    {}) found=({} ) ;;\n", Quoted(place.path), words);
  }
  return fmt::format(
      R"(#compdef litefleet
# zsh completion of litefleet: litefleet completion zsh > "${{fpath[1]}}/_litefleet"
_litefleet_words() {{
  case "$1" in
{}    *) return 1 ;;
  esac
}}
_litefleet() {{
  local word place=''
  local -a found
  for word in ${{words[2,CURRENT-1]}}; do
    case "$word" in
      -*) ;;
      *) _litefleet_words "${{place:+$place }}$word" && place="${{place:+$place }}$word" ;;
    esac
  done
  _litefleet_words "$place"
  case "${{words[CURRENT-1]}}" in
    -o) found=(table wide json name) ;;
    --output|--identity|--data) _files; return ;;
  esac
  _describe 'litefleet' found
}}
if [ "${{funcstack[1]}}" = _litefleet ]; then _litefleet "$@"; else compdef _litefleet litefleet; fi
)",
      cases);
}

std::string Fish(const std::vector<Place>& places) {
  std::string text =
      "# fish completion of litefleet: litefleet completion fish > ~/.config/fish/completions/litefleet.fish\n"
      "function __litefleet_at\n"
      "    set -l words (commandline -opc | string match -v -- '-*')\n"
      "    test (string join ' ' $words[2..-1] | string sub -l (string length -- $argv[1])) = $argv[1]; or return 1\n"
      "    test (count $words) -ge $argv[2]\n"
      "end\n"
      "complete -c litefleet -f\n"
      "complete -c litefleet -s o -x -a 'table wide json name'\n";
  for (const Place& place : places) {
    const auto depth = place.path.empty() ? 1 : 2 + std::count(place.path.begin(), place.path.end(), ' ');
    for (const auto& [word, what] : place.words) {
      const std::string condition =
          place.path.empty() ? "__fish_use_subcommand" : fmt::format("__litefleet_at \"{}\" {}", place.path, depth);
      if (word.starts_with("--")) {
        text += fmt::format("complete -c litefleet -n {} -l {} -d {}\n", Quoted(condition), word.substr(2), Quoted(what));
      } else {
        text += fmt::format("complete -c litefleet -n {} -a {} -d {}\n", Quoted(condition), word, Quoted(what));
      }
    }
  }
  return text;
}

}  // namespace

void AddCompletion(CLI::App& app, Session& session) {
  CLI::App* completion = AddNoun(app, "completion", "Print what a shell needs to complete commands");
  completion->footer(
      "Examples:\n  source <(litefleet completion bash)\n  litefleet completion fish > ~/.config/fish/completions/litefleet.fish");
  for (const auto& [shell, print] : {std::pair("bash", &Bash), std::pair("zsh", &Zsh), std::pair("fish", &Fish)}) {
    CLI::App* command = completion->add_subcommand(shell, std::string("For ") + shell);
    command->callback([&app, &session, print = print] {
      session.action = [&app, &session, print]() -> CommandResult {
        session.Print(print(Places(app)));
        return kDone;
      };
    });
  }
}

}  // namespace litefleet::cli
