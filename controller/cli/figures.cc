#include "controller/cli/figures.h"

#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

bool IsRestore(const v1::Operation& operation) { return operation.kind() == v1::OPERATION_KIND_RESTORE; }

Json OrNull(const std::optional<int64_t>& value) { return value.has_value() ? Json(*value) : Json(); }

// ", 1 byte for 2.4". Empty where nothing crossed the wire.
std::string RatioText(int64_t bytes, int64_t wire) {
  return bytes <= 0 || wire <= 0 ? std::string()
                                 : fmt::format(", 1 byte for {:.1f}", static_cast<double>(bytes) / static_cast<double>(wire));
}

}  // namespace

Figures FiguresOf(Session& session, const v1::Operation& operation) {
  Figures figures;
  const v1::Progress& progress = operation.progress();
  if (IsRestore(operation)) {
    figures.read_bytes = progress.read_bytes();
    figures.changed_bytes = progress.changed_bytes();
    return figures;
  }
  if (operation.kind() != v1::OPERATION_KIND_BACKUP || operation.snapshot_id().empty()) return figures;
  const auto client = session.Client();
  if (!client.ok()) return figures;
  v1::GetSnapshotRequest request;
  request.set_snapshot(operation.snapshot_id());
  const auto response = (*client)->GetSnapshot(request);
  // A backup that found nothing changed names the snapshot of another one, and has read nothing.
  if (!response.ok()) return figures;
  const v1::Snapshot& snapshot = response->snapshot();
  const bool made = snapshot.operation_id() == operation.id();
  figures.read_bytes = made ? snapshot.read_bytes() : 0;
  figures.stored_bytes = made ? snapshot.stored_bytes() : 0;
  if (!made) figures.changed_bytes = 0;
  if (made && snapshot.has_pages_changed()) figures.changed_bytes = int64_t{snapshot.pages_changed()} * snapshot.page_size();
  return figures;
}

void AddFigures(const v1::Operation& operation, const Figures& figures, Json& json) {
  const int64_t total = operation.progress().total_bytes();
  json.Set("read_bytes", OrNull(figures.read_bytes))
      .Set("changed_bytes", OrNull(figures.changed_bytes))
      .Set("stored_bytes", OrNull(figures.stored_bytes))
      .Set("ratio", total > 0 && figures.read_bytes.has_value()
                        ? Json::Number(static_cast<double>(operation.progress().wire_bytes()) / static_cast<double>(total))
                        : Json());
}

void AddFigures(const v1::Operation& operation, const Figures& figures, Facts& facts) {
  if (!figures.read_bytes.has_value()) return;
  const int64_t total = operation.progress().total_bytes();
  const int64_t wire = operation.progress().wire_bytes();
  facts.Add(IsRestore(operation) ? "read locally" : "read", SizeText(*figures.read_bytes));
  if (figures.changed_bytes.has_value()) facts.Add(IsRestore(operation) ? "differed" : "changed", SizeText(*figures.changed_bytes));
  facts.Add(IsRestore(operation) ? "fetched" : "sent", fmt::format("{}{} of the database", SizeText(wire), RatioText(total, wire)));
  if (figures.stored_bytes.has_value()) facts.Add("stored", SizeText(*figures.stored_bytes));
}

std::string FiguresText(const v1::Operation& operation, const Figures& figures) {
  if (!figures.changed_bytes.has_value() || operation.progress().total_bytes() <= 0 ||
      *figures.changed_bytes >= operation.progress().total_bytes())
    return {};
  return fmt::format("{} of it {}", SizeText(*figures.changed_bytes), IsRestore(operation) ? "differed" : "changed");
}

}  // namespace litefleet::cli
