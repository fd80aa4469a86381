// Reads an archive of files and hands it on as frames (common/files/entry.h). The archive is foreign bytes: in programs it runs in the
// helper process without rights alone.
//
// tar and its pax extensions, without compression, and nothing else of libarchive. Taken are files, directories and symbolic links;
// anything that libarchive complains of ends it. Whoever takes the frames decides what a name may be. Thread safety: none. Memory: 128 KiB,
// and what libarchive has for an entry's headers.
#ifndef LITEFLEET_COMMON_ARCHIVE_UNPACK_H_
#define LITEFLEET_COMMON_ARCHIVE_UNPACK_H_

#include <functional>
#include <string>
#include <string_view>

namespace litefleet::archive {

// The next bytes, valid until the next call; empty at the end. False: they cannot be read.
using ReadArchive = std::function<bool(std::string_view& piece)>;

// Why it is no archive of ours, for people; empty: it was read to its end. `take` gets whole frames; false ends it.
std::string Unpack(const ReadArchive& read, const std::function<bool(std::string_view frame)>& take);

}  // namespace litefleet::archive

#endif  // LITEFLEET_COMMON_ARCHIVE_UNPACK_H_
