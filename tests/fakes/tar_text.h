// An archive that libarchive writes into a string. Thread safety: none.
#ifndef LITEFLEET_TESTS_FAKES_TAR_TEXT_H_
#define LITEFLEET_TESTS_FAKES_TAR_TEXT_H_

#include <archive.h>
#include <archive_entry.h>

#include <string>

namespace litefleet::fakes {

class TarText {
 public:
  // Else GNU's format.
  explicit TarText(bool pax = true) {
    pax ? archive_write_set_format_pax(archive_) : archive_write_set_format_gnutar(archive_);
    archive_write_set_bytes_in_last_block(archive_, 1);
    archive_write_open(
        archive_, &text_, nullptr,
        [](struct archive*, void* to, const void* data, size_t bytes) {
          static_cast<std::string*>(to)->append(static_cast<const char*>(data), bytes);
          return static_cast<la_ssize_t>(bytes);
        },
        nullptr);
  }
  ~TarText() { archive_write_free(archive_); }
  TarText(const TarText&) = delete;
  TarText& operator=(const TarText&) = delete;

  // Takes the entry.
  void Add(archive_entry* entry, const std::string& content) {
    archive_write_header(archive_, entry);
    archive_write_data(archive_, content.data(), content.size());
    archive_entry_free(entry);
  }
  std::string Finish() {
    archive_write_close(archive_);
    return text_;
  }

 private:
  std::string text_;
  struct archive* const archive_ = archive_write_new();
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_TAR_TEXT_H_
