// Sizes, times and words as people read them. Pure functions, but for the local time zone (TZ, /etc/localtime).
#ifndef LITEFLEET_CONTROLLER_CLI_TEXT_H_
#define LITEFLEET_CONTROLLER_CLI_TEXT_H_

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"

namespace litefleet::cli {

// "0 B", "999 B", "1.0 KiB", "12.3 MiB", "123 MiB".
std::string SizeText(int64_t bytes);
// "320 ms", "3.2 s", "2 min 5 s", "3 h 20 min", "2 d 4 h".
std::string DurationText(std::chrono::milliseconds duration);
// "12 s ago", "3 min ago", "5 h ago", "12 d ago"; "in 5 h" for what is to come.
std::string AgeText(SystemTime then, SystemTime now);
// "2026-11-22 14:03:05+01:00": local time with its offset, as `--at` takes it back.
std::string LocalTimeText(SystemTime time);
// "2026-11-22T13:03:05Z", or with milliseconds where there are any.
std::string Rfc3339Text(SystemTime time);

// Bytes of the first character of `text`: 1 to 4; 0 where it is not UTF-8 or `text` is empty. Source: RFC 3629.
size_t Utf8Length(std::string_view text);
// Characters; what is not UTF-8 counts as one a byte.
size_t Columns(std::string_view text);
// At most `columns` characters, cut in the middle around `ellipsis`, and without control characters: it goes to a terminal.
std::string Cut(std::string_view text, size_t columns, std::string_view ellipsis);
// Lines of at most `columns` characters, broken at spaces, else behind a slash or comma, else anywhere. Nothing of it is left out.
std::vector<std::string_view> BrokenLines(std::string_view text, size_t columns);
// One line of others' words: what would drive the terminal (control characters, what turns the direction of text or has no width) is
// escaped as in JSON, ends of lines and tabs are spaces.
std::string Printable(std::string_view text);
// The same for a whole output, which may also be JSON: ends of lines and tabs stay, and so do `colours`.
std::string PrintableLines(std::string_view text, std::span<const std::string_view> colours);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_TEXT_H_
