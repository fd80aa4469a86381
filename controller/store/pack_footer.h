// What the footer of a sealed pack proves where its header cannot be read: FORMAT.md, "Torn tails".
//
// Thread safety: as the file's.
#ifndef LITEFLEET_CONTROLLER_STORE_PACK_FOOTER_H_
#define LITEFLEET_CONTROLLER_STORE_PACK_FOOTER_H_

#include <cstdint>
#include <optional>

#include "controller/store/file_system.h"

namespace litefleet::store {

// The tag of the pack whose sealed file this is, by its last record: a footer that says where it stands itself. No device has written these
// bytes: a footer ends its file. Nothing where there is no such record, or where it cannot be read.
std::optional<uint64_t> TagFromFooter(File& file);

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_PACK_FOOTER_H_
