// What a backup or a restore read, changed, sent or fetched, and stored, and at what ratio: the same for all commands that show an
// operation.
//
// Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_FIGURES_H_
#define LITEFLEET_CONTROLLER_CLI_FIGURES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "controller/cli/command_support.h"
#include "controller/cli/json.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

struct Figures {
  std::optional<int64_t> read_bytes;     // of the database, on the device
  std::optional<int64_t> changed_bytes;  // pages that differ: of a backup from the one before, of a restore from what the device had
  std::optional<int64_t> stored_bytes;   // that the store has grown by
};

// Of a backup they are its snapshot's, for which the controller is asked; nothing where it made none, or where that cannot be had.
Figures FiguresOf(Session& session, const v1::Operation& operation);
// read_bytes, changed_bytes, stored_bytes and ratio (of what crossed the wire to the size of the database); null where unknown.
void AddFigures(const v1::Operation& operation, const Figures& figures, Json& json);
void AddFigures(const v1::Operation& operation, const Figures& figures, Facts& facts);
// "1.5 MiB of 1.0 GiB differed": for one line. Empty where nothing is known.
std::string FiguresText(const v1::Operation& operation, const Figures& figures);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_FIGURES_H_
