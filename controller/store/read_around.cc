#include "controller/store/read_around.h"

#include <algorithm>
#include <optional>

#include "common/base/status.h"

namespace litefleet::store {
namespace {

constexpr uint64_t kPiece = 4096;  // what a disk loses at once
// So many bad ones in a row are a region, of which the end is looked for: each piece may take the disk seconds, and of a lost head there
// are tens of thousands.
constexpr uint64_t kRegion = 16;
constexpr uint64_t kLongestStep = 64;

bool CannotBeRead(const absl::Status& status) { return ReasonOf(status) == "IO_ERROR"; }

// One call. Places are those of the file.
class Reading {
 public:
  Reading(File& file, uint64_t begin, std::span<std::byte> out, absl::FunctionRef<bool()> answers, Gaps& gaps)
      : file_(file), begin_(begin), end_(begin + out.size()), out_(out), answers_(answers), gaps_(gaps) {}

  absl::StatusOr<size_t> Run() {
    for (uint64_t at = begin_; at < end_;) {
      if (gaps_.end != at) gaps_.run = 0;
      if (gaps_.run >= kRegion) {
        LF_ASSIGN_OR_RETURN(at, BehindSome(at));
        continue;
      }
      LF_ASSIGN_OR_RETURN(std::optional<size_t> got, Try(at));
      if (!got.has_value() && gaps_.run == 0) {
        LF_ASSIGN_OR_RETURN(got, Try(at));
      }
      if (!got.has_value()) {
        LF_RETURN_IF_ERROR(Bad(at, at + PieceAt(at)));
        ++gaps_.run;
        gaps_.step = 2;
        got = PieceAt(at);
      }
      const bool short_one = *got < PieceAt(at);
      at += *got;
      if (short_one) return static_cast<size_t>(at - begin_);
    }
    return out_.size();
  }

 private:
  uint64_t PieceAt(uint64_t at) const { return std::min(kPiece - at % kPiece, end_ - at); }
  std::span<std::byte> Out(uint64_t from, uint64_t size) const {
    return out_.subspan(static_cast<size_t>(from - begin_), static_cast<size_t>(size));
  }
  // How much there is of the piece; nothing where the disk cannot read it.
  absl::StatusOr<std::optional<size_t>> Try(uint64_t at) {
    const absl::StatusOr<size_t> got = file_.ReadAt(at, Out(at, PieceAt(at)));
    if (got.ok()) return *got;
    if (!CannotBeRead(got.status())) return got.status();
    why_ = got.status();
    return std::nullopt;
  }
  absl::Status Bad(uint64_t from, uint64_t to) {
    if (!asked_ && !answers_()) return why_;
    asked_ = true;
    const std::span<std::byte> zeros = Out(from, to - from);
    std::fill(zeros.begin(), zeros.end(), std::byte{0});
    gaps_.any = true;
    gaps_.end = to;
    return absl::OkStatus();
  }
  // In a region: looks a step ahead, and from a sound piece back to where they begin. Returns where to go on.
  absl::StatusOr<uint64_t> BehindSome(uint64_t at) {
    const uint64_t last = end_ - 1 - (end_ - 1) % kPiece;
    const uint64_t ahead = std::min(at + (gaps_.step - 1) * kPiece, std::max(at, last));
    LF_ASSIGN_OR_RETURN(std::optional<size_t> got, Try(ahead));
    if (!got.has_value()) {
      LF_RETURN_IF_ERROR(Bad(at, ahead + PieceAt(ahead)));
      gaps_.step = std::min(gaps_.step * 2, kLongestStep);
      return ahead + PieceAt(ahead);
    }
    uint64_t sound = ahead;
    for (uint64_t bad = at; bad < sound;) {
      const uint64_t middle = bad + (sound - bad) / kPiece / 2 * kPiece;
      LF_ASSIGN_OR_RETURN(got, Try(middle));
      got.has_value() ? sound = middle : bad = middle + kPiece;
    }
    if (sound > at) LF_RETURN_IF_ERROR(Bad(at, sound));
    gaps_.run = 0;
    return sound;
  }

  File& file_;
  const uint64_t begin_;
  const uint64_t end_;
  const std::span<std::byte> out_;
  const absl::FunctionRef<bool()> answers_;
  Gaps& gaps_;
  bool asked_ = false;
  absl::Status why_;
};

}  // namespace

absl::StatusOr<size_t> ReadAround(File& file, uint64_t offset, std::span<std::byte> out, absl::FunctionRef<bool()> answers, Gaps& gaps) {
  if (gaps.end != offset || gaps.run < kRegion) {
    absl::StatusOr<size_t> whole = file.ReadAt(offset, out);
    if (whole.ok() || !CannotBeRead(whole.status())) return whole;
  }
  LF_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), offset < size ? size - offset : 0)));
  return Reading(file, offset, out, answers, gaps).Run();
}

}  // namespace litefleet::store
