// What the helper says about its work, a line each: "progress BYTES", "message TEXT", and last "verdict WORD".
//
// It comes from a process that has read hostile input: anything else is nonsense, everything is bounded, and messages are UTF-8 ('?' for
// what is not). Thread safety: none.
#ifndef LITEFLEET_COMMON_CHECK_HELPER_ANSWER_H_
#define LITEFLEET_COMMON_CHECK_HELPER_ANSWER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet::check {

class HelperAnswer {
 public:
  explicit HelperAnswer(std::function<void(int64_t)> progress) : progress_(std::move(progress)) {}

  // Pieces as they arrive. False: nonsense.
  bool Take(std::string_view piece);
  // Empty until it was said.
  const std::string& verdict() const { return verdict_; }
  std::vector<std::string>& messages() { return messages_; }
  // All messages as one text.
  std::string Text() const;

 private:
  bool TakeLine(std::string_view line);

  const std::function<void(int64_t)> progress_;
  std::string line_;
  std::string verdict_;
  std::vector<std::string> messages_;
};

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_HELPER_ANSWER_H_
