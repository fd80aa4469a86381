#include "tests/model/model.h"

#include <sstream>

#include "fmt/format.h"

namespace litefleet::model {
namespace {

constexpr size_t kLastEvents = 60;

std::vector<unsigned> Pages(std::istringstream& in) {
  std::vector<unsigned> pages;
  unsigned page;
  while (in >> page) pages.push_back(page);
  return pages;
}

}  // namespace

std::string PagesText(const std::vector<unsigned>& pages) { return fmt::format("{}", fmt::join(pages, " ")); }

void Model::Apply(const std::string& line) {
  last.push_back(line.substr(0, 120));
  if (last.size() > kLastEvents) last.erase(last.begin());
  std::istringstream in(line);
  std::string what, text;
  size_t device = 0;
  in >> what;
  if (what == "now" || what == "begin" || what == "ack" || what == "drop" || what == "lose" || what == "forgetting" ||
      what == "forgotten") {
    in >> device;
    Device& its = devices.at(device);
    if (what == "now") {
      its.now.pages = Pages(in);
    } else if (what == "begin") {
      in >> its.session;
      its.session_state = {.page_size = its.now.page_size, .pages = Pages(in)};
    } else if (what == "ack") {
      in >> text;
      // A repeated commit is answered with the snapshot that there is.
      if (snapshots.try_emplace(text, Snapshot{.device = static_cast<int>(device), .state = its.session_state}).second)
        order.push_back(text);
      its.base = text;
      its.base_state = its.session_state;
      its.session.clear();
    } else if (what == "forgetting" || what == "forgotten") {
      its.forgetting = what == "forgetting";
      if (!its.forgetting) ++forgotten;
      if (in >> text) its.id = DeviceId(text);
      its.session.clear();
      its.base.clear();
    } else if (what == "drop") {
      its.session.clear();
    } else {
      its.base.clear();
    }
    return;
  }
  if (what == "violation") {
    violation = line.substr(10);
  } else if (what == "end") {
    ended = true;
  } else if (what == "rebuilt") {
    outdated = false;
  } else if (what == "scrubbed") {
    flipped.clear();
  } else if (what == "counted") {
    ++counted;
  } else if (what == "clock") {
    int64_t by = 0;
    in >> by;
    clock_ms += by;
  } else if (in >> text) {
    if (what == "flip") {
      flipped.insert(text);
      ever_flipped = true;
      return;
    }
    Snapshot& snapshot = snapshots.at(text);
    if (what == "open") snapshot.fate = Fate::kOpen;
    if (what == "alive") snapshot.fate = Fate::kAlive;
    if (what == "gone") snapshot.fate = Fate::kGone;
    if (what == "harm") snapshot.harmed = true;
    if (what == "whole") snapshot.harmed = false;
    if (what == "pin") {
      int pinned = 0;
      in >> pinned;
      snapshot.pinned = pinned != 0;
      snapshot.pinned_until = 0;
      in >> snapshot.pinned_until;
    }
  }
}

}  // namespace litefleet::model
