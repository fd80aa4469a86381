#include "agent/config/own_places.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "common/base/status.h"
#include "common/files/glob.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40;

struct Places {
  std::vector<std::string> links;  // on the way, each without a link before it
  std::string end;                 // where it leads
};

Places PlacesOf(const std::string& path) {
  Places places;
  fs::path at = "/";
  std::vector<fs::path> parts;  // the next one last
  const auto push = [&](const fs::path& more) {
    const std::vector<fs::path> list(more.begin(), more.end());
    parts.insert(parts.end(), list.rbegin(), list.rend());
  };
  push(fs::path(path).relative_path());
  while (!parts.empty()) {
    const fs::path part = parts.back();
    parts.pop_back();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      at = at.parent_path();
      continue;
    }
    std::error_code none;
    const fs::path link = fs::read_symlink(at / part, none);
    if (none || places.links.size() >= kMaxLinks) {
      at /= part;
      continue;
    }
    places.links.push_back((at / part).string());
    if (link.is_absolute()) at = "/";
    push(link.relative_path());
  }
  places.end = at.string();
  return places;
}

bool IsMeant(const DatabaseConfig& files, const std::string& path) {
  const std::string above = files.path == "/" ? "/" : files.path + "/";
  if (!path.starts_with(above)) return false;
  const files::GlobSet globs(files.files->include, files.files->exclude);
  const std::string_view name = std::string_view(path).substr(above.size());
  return globs.Takes(name) || globs.MayHold(name);
}

}  // namespace

std::vector<std::string> OwnPlaces(const AgentConfig& config) {
  std::vector<std::string> own = {config.state, config.hooks_directory, config.order_keys};
  if (!config.pause_hook.empty()) own.push_back(config.pause_hook);
  return own;
}

bool Touches(const DatabaseConfig& files, const std::string& own) {
  const Places places = PlacesOf(own);
  for (const std::string& path : {own, places.end}) {
    if (path == files.path || files.path.starts_with(path + "/") || IsMeant(files, path)) return true;
  }
  return std::any_of(places.links.begin(), places.links.end(), [&](const std::string& link) { return IsMeant(files, link); });
}

absl::Status CheckOwn(const DatabaseConfig& files, const AgentConfig& config, const std::string& config_path) {
  if (!files.files) return absl::OkStatus();
  std::vector<std::string> all = OwnPlaces(config);
  all.push_back(fs::absolute(config_path).string());
  for (const std::string& own : all) {
    if (!Touches(files, own)) continue;
    return Error(absl::StatusCode::kFailedPrecondition, "CONFIG_INVALID",
                 fmt::format("the agent's own {} is among the files of \"{}\", and a restore would change it", own, files.name),
                 kExcludeOwn);
  }
  return absl::OkStatus();
}

}  // namespace litefleet::config
