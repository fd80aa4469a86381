#include "agent/follow/continuity.h"

#include "common/base/bytes.h"

namespace litefleet::follow {
namespace {

using capture::WalPlace;

constexpr Judgement Doubt(std::string_view reason) { return {Verdict::kDoubt, reason}; }

uint32_t Salt1(const WalPlace& place) { return LoadBigEndian<uint32_t>(place.salts.data()); }

bool FileHolds(const Sight& sight) { return sight.wal_bytes >= capture::WalBytes(sight.now.page_size, sight.now.frame); }

Judgement SameGeneration(const WalPlace& shipped, const Sight& sight) {
  const WalPlace& now = sight.now;
  if (now.frame < shipped.frame) return Doubt("FRAMES_LOST");
  if (now.frame > shipped.frame) return FileHolds(sight) ? Judgement{Verdict::kGrown} : Doubt("WAL_SHORTER");
  return now.frame == 0 || now.checksum == shipped.checksum ? Judgement{Verdict::kUnchanged} : Doubt("WAL_REWRITTEN");
}

Judgement OtherGeneration(const WalPlace& shipped, const Held& held, const Sight& sight) {
  // Who starts a WAL over adds one to salt-1; who then writes first, and has not started one over himself, makes both anew. So they say no
  // more than that it was started over, but where they stand still or go back: a WAL that was made anew, a recovery. Unsigned: they may
  // pass zero.
  const uint32_t advanced = Salt1(sight.now) - Salt1(shipped);
  if (advanced == 0 || advanced > UINT32_MAX - kTakenBack) return Doubt("SALTS_UNEXPECTED");
  if (!held.may_be_mark0) return Doubt("RESET_UNDER_READER");
  // A reset starts from the state that the reader on mark 0 has: all of that must have been shipped, and nothing can have come behind it.
  // Or the WAL was started over under this reader before, has been empty since, and was truncated again.
  const bool from_shipped = held.begun.salts == shipped.salts && held.begun.frame == shipped.frame;
  const bool empty_since = shipped.frame == 0 && held.begun.salts != shipped.salts;
  if (!from_shipped && !empty_since) return Doubt("RESET_UNDER_READER");
  return FileHolds(sight) ? Judgement{Verdict::kResetOnce} : Doubt("WAL_SHORTER");
}

}  // namespace

WalPlace BeforeFirstFrame(const WalPlace& shipped, const WalPlace& now) {
  WalPlace place;
  place.salts = now.salts;
  place.big_endian = now.big_endian;
  place.page_size = shipped.page_size;
  return place;
}

Judgement Judge(const WalPlace& shipped, const Held& held, const Sight& sight) {
  if (!sight.same_file) return Doubt("DATABASE_REPLACED");
  if (sight.now.frame != 0 && sight.now.page_size != shipped.page_size) return Doubt("PAGE_SIZE_CHANGED");
  return sight.now.salts == shipped.salts ? SameGeneration(shipped, sight) : OtherGeneration(shipped, held, sight);
}

Judgement JudgeAfterStandingAside(const WalPlace& shipped, const Sight& sight) {
  if (!sight.same_file) return Doubt("DATABASE_REPLACED");
  if (sight.now.frame != 0 && sight.now.page_size != shipped.page_size) return Doubt("PAGE_SIZE_CHANGED");
  if (sight.now.salts == shipped.salts) return SameGeneration(shipped, sight);
  if (Salt1(sight.now) - Salt1(shipped) != 1) return Doubt("SALTS_UNEXPECTED");
  if (!FileHolds(sight) || sight.wal_bytes < capture::WalBytes(shipped.page_size, shipped.frame)) return Doubt("WAL_SHORTER");
  if (sight.now.frame >= shipped.frame) return Doubt("END_OVERWRITTEN");
  return {Verdict::kResetOnce};
}

}  // namespace litefleet::follow
