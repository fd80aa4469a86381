#include "agent/capture/files_source.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/digest.h"

namespace litefleet::capture {
namespace {

// File systems count in ticks of 4 to 10 ms; FAT in 2 s.
constexpr std::chrono::milliseconds kFilesSettled{2500};
constexpr size_t kHashedBytes = 64 << 10;

class FilesSource final : public TextSource {
 public:
  FilesSource(const FilesOptions& options, std::unique_ptr<files::PackProcess> process) : options_(options), process_(std::move(process)) {
    info_.pinned_at = options_.clock->Now();
    info_.pinned_since_boot = options_.clock->SinceBoot();
  }

  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<ByteView> Next() override {
    LF_RETURN_IF_ERROR(ended_);
    if (process_ == nullptr) return ByteView();
    absl::StatusOr<ByteView> piece = process_->Next();
    if (!piece.ok()) {
      ended_ = Annotate(piece.status(), options_.root);
      process_.reset();
      return ended_;
    }
    read_bytes_ += static_cast<int64_t>(piece->size());
    if (!piece->empty()) return piece;
    for (const std::string& note : process_->notes()) {
      if (files::TellsOfChange(note) || note.starts_with(files::kNothingNote)) damage_ += (damage_.empty() ? "" : "; ") + note;
    }
    if (options_.notes) options_.notes(process_->notes());
    process_.reset();
    return ByteView();
  }
  absl::Status Close() override {
    process_.reset();
    if (ended_.ok()) ended_ = Error(absl::StatusCode::kFailedPrecondition, "SOURCE_CLOSED", "the files were closed");
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_; }
  // Nobody is held up.
  std::chrono::nanoseconds pinned_for() const override { return std::chrono::nanoseconds(0); }
  int64_t read_bytes() const override { return read_bytes_; }

 private:
  const FilesOptions options_;
  SourceInfo info_;
  std::string damage_;
  absl::Status ended_;
  int64_t read_bytes_ = 0;
  std::unique_ptr<files::PackProcess> process_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextSource>> OpenFilesSource(const FilesOptions& options) {
  using What = files::PackProcess::What;
  LF_ASSIGN_OR_RETURN(
      std::unique_ptr<files::PackProcess> process,
      files::PackProcess::Start(options.helper, options.root, options.rules, options.tolerant ? What::kTolerant : What::kArchive));
  return std::make_unique<FilesSource>(options, std::move(process));
}

absl::StatusOr<FileFacts> FactsOfFiles(const FilesOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<files::PackProcess> process,
                      files::PackProcess::Start(options.helper, options.root, options.rules, files::PackProcess::What::kList));
  // In pieces of one size, whatever comes at a time.
  std::array<std::byte, format::kDigestBytes> sum{};
  Bytes piece(sum.begin(), sum.end());
  const auto fold = [&] {
    sum = format::Sha256(piece);
    piece.assign(sum.begin(), sum.end());
  };
  for (;;) {
    LF_ASSIGN_OR_RETURN(ByteView lines, process->Next());
    if (lines.empty()) break;
    while (!lines.empty()) {
      const size_t n = std::min(lines.size(), kHashedBytes - piece.size());
      piece.insert(piece.end(), lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(n));
      lines = lines.subspan(n);
      if (piece.size() == kHashedBytes) fold();
    }
  }
  fold();
  FileFacts facts;
  facts.text = "files;" + options.root + ";";
  for (const std::string& glob : options.rules.include) facts.text += "+" + glob + ";";
  for (const std::string& glob : options.rules.exclude) facts.text += "-" + glob + ";";
  facts.text += ToHex(sum);
  facts.settled = process->newest() + kFilesSettled <= options.clock->Now();
  return facts;
}

}  // namespace litefleet::capture
