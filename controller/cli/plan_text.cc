#include "controller/cli/plan_text.h"

#include <cstdint>

#include "controller/cli/exit_code.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_resources.pb.h"

namespace litefleet::cli {
namespace {

// Lines behind the first begin where the text does.
std::string Hanging(std::string begin, std::string_view words, size_t width) {
  const std::string printable = Printable(words);
  std::string text;
  for (const std::string_view line : BrokenLines(printable, width > begin.size() ? width - begin.size() : SIZE_MAX)) {
    text += fmt::format("{}{}\n", begin, line);
    begin.assign(begin.size(), ' ');
  }
  return text;
}

}  // namespace

std::string PlanText(const std::string& title, Facts facts, const v1::RestorePlan& plan, size_t width) {
  const int64_t needed = plan.staging_bytes() + plan.undo_bytes() + plan.journal_bytes() + plan.reserve_bytes();
  facts.Add("  space", fmt::format("{} needed (staging {}, undo {}, journal {}, reserve {}), {} free", SizeText(needed),
                                   SizeText(plan.staging_bytes()), SizeText(plan.undo_bytes()), SizeText(plan.journal_bytes()),
                                   SizeText(plan.reserve_bytes()), SizeText(plan.free_bytes())));
  if (plan.from_device()) {
    facts.Add("  in use", plan.in_use() ? "yes, other processes have it open" : "no other process has it open");
    facts.Add("  writers wait", plan.has_expected_stall() && Millis(plan.expected_stall()).count() > 0
                                    ? "about " + DurationText(Millis(plan.expected_stall()))
                                    : "no");
  }
  for (const std::string& hook : plan.hooks()) facts.Add("  hook", Printable(hook));
  std::string text = title + "\n" + facts.Text(width);
  for (const std::string& step : plan.steps()) text += Hanging("  * ", step, width);
  for (const v1::ErrorDetail& obstacle : plan.obstacles()) {
    text += Hanging("  ", fmt::format("it would be refused: {} ({})", obstacle.message(), obstacle.info().reason()), width);
    if (!obstacle.info().hint().empty()) text += Hanging("    ", "hint: " + obstacle.info().hint(), width);
  }
  if (!plan.from_device()) text += "  the device did not answer: this is from the catalog alone\n";
  return text;
}

int ExitCodeOf(const v1::RestorePlan& plan) {
  if (plan.obstacles_size() == 0) return kDone;
  v1::Operation refused;
  refused.set_state(v1::OPERATION_STATE_FAILED);
  *refused.mutable_error() = plan.obstacles(0);
  return ExitCodeOf(refused);
}

}  // namespace litefleet::cli
