// TOML files read strictly: every key must be asked for, every value must have the right type, and an error names file, line, and the
// nearest known name.
//
//   LF_ASSIGN_OR_RETURN(TomlReader reader, TomlReader::ReadFile("/etc/litefleet/agent.toml", "write one"));
//   TomlTable& root = reader.root();
//   config.state = root.String("state", "/var/lib/litefleet-agent");
//   if (TomlTable* log = root.Table("log")) config.level = log->String("level", "info");
//   for (TomlTable* database : root.Tables("database")) { ... database->RequiredString("name") ... }
//   LF_RETURN_IF_ERROR(reader.Finish());   // the first error, unknown keys included; only now are the values worth anything
//
// Thread safety: none. Ownership: tables belong to the reader. Errors: kInvalidArgument CONFIG_INVALID (exit 2), those of
// io::ReadNamedFile.
#ifndef LITEFLEET_COMMON_CONFIG_TOML_READER_H_
#define LITEFLEET_COMMON_CONFIG_TOML_READER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace litefleet::config {

class TomlTable;

class TomlReader {
 public:
  // The program's --config. `remedy` is for a user whose file is missing.
  static absl::StatusOr<TomlReader> ReadFile(const std::string& path, std::string_view remedy);
  // `name` stands in errors for the file.
  static absl::StatusOr<TomlReader> Parse(std::string_view text, std::string name);
  TomlReader(TomlReader&&) noexcept;
  TomlReader& operator=(TomlReader&&) noexcept;
  ~TomlReader();

  TomlTable& root();
  // The first error by line, missing keys after all others; asks every table for keys that nobody asked for.
  absl::Status Finish();

 private:
  struct Rep;
  explicit TomlReader(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
  friend class TomlTable;
};

// One table. Getters return the fallback where the key is missing or wrong; what was wrong is reported by Finish.
class TomlTable {
 public:
  virtual ~TomlTable() = default;

  virtual std::string String(std::string_view key, std::string_view fallback) = 0;
  virtual std::string RequiredString(std::string_view key) = 0;
  virtual std::optional<std::string> OptionalString(std::string_view key) = 0;
  // One of `choices`; the error lists them.
  virtual std::string Choice(std::string_view key, const std::vector<std::string_view>& choices, std::string_view fallback) = 0;
  virtual bool Bool(std::string_view key, bool fallback) = 0;
  virtual int64_t Integer(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) = 0;
  // "90s", "15m", "1h", "7d", "250ms".
  virtual std::chrono::milliseconds Duration(std::string_view key, std::chrono::milliseconds fallback, std::chrono::milliseconds minimum,
                                             std::chrono::milliseconds maximum) = 0;
  virtual std::optional<std::chrono::milliseconds> OptionalDuration(std::string_view key, std::chrono::milliseconds minimum,
                                                                    std::chrono::milliseconds maximum) = 0;
  // "64MiB", "1.5GiB", "4096", 4096.
  virtual int64_t Size(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) = 0;
  virtual std::vector<std::string> Strings(std::string_view key) = 0;
  // Null where there is none.
  virtual TomlTable* Table(std::string_view key) = 0;
  // [[key]]; empty where there is none.
  virtual std::vector<TomlTable*> Tables(std::string_view key) = 0;

  // Reports a value that has the right type and is wrong all the same; `hint` says what is right.
  virtual void Reject(std::string_view key, std::string_view why, std::string_view hint) = 0;
  virtual bool Has(std::string_view key) const = 0;
};

// kInvalidArgument CONFIG_INVALID without file and line.
absl::StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text);
absl::StatusOr<int64_t> ParseSize(std::string_view text);
// As ParseDuration takes it, in the largest unit that says it exactly: "82s", "90m", "366d"; "0s".
std::string FormatDuration(std::chrono::milliseconds duration);

}  // namespace litefleet::config

#endif  // LITEFLEET_COMMON_CONFIG_TOML_READER_H_
