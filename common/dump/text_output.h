// Text on its way out, gathered into pieces of 64 KiB.
//
// Thread safety: none. After a failed write everything else is dropped, and failed() says so. For the helper process: plain C++.
#ifndef LITEFLEET_COMMON_DUMP_TEXT_OUTPUT_H_
#define LITEFLEET_COMMON_DUMP_TEXT_OUTPUT_H_

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace litefleet::dump {

class TextOutput {
 public:
  // False: it cannot be written, nobody reads.
  using Write = std::function<bool(std::string_view)>;
  explicit TextOutput(Write write) : write_(std::move(write)) { buffer_.reserve(kPiece); }

  void Put(std::string_view text) {
    if (buffer_.size() + text.size() <= kPiece) {
      buffer_ += text;
      return;
    }
    Flush();
    if (text.size() >= kPiece) {
      failed_ = failed_ || !write_(text);
    } else {
      buffer_ += text;
    }
  }
  void Put(char c) { Put(std::string_view(&c, 1)); }
  void Flush() {
    if (!buffer_.empty()) failed_ = failed_ || !write_(buffer_);
    buffer_.clear();
  }
  bool failed() const { return failed_; }

 private:
  static constexpr size_t kPiece = 64 << 10;
  const Write write_;
  std::string buffer_;
  bool failed_ = false;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_TEXT_OUTPUT_H_
