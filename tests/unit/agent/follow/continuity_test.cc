#include "agent/follow/continuity.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace litefleet::follow {
namespace {

using capture::WalPlace;

WalPlace Place(uint32_t generation, uint32_t frame, uint32_t checksum = 0) {
  WalPlace place;
  StoreLittleEndian<uint32_t>(0, place.salts.data());
  for (int i = 0; i < 4; ++i) place.salts[static_cast<size_t>(i)] = static_cast<std::byte>(generation >> (24 - 8 * i));
  place.frame = frame;
  place.checksum = {frame == 0 ? 0 : generation * 1000 + frame + checksum, 7};
  place.page_size = 4096;
  place.page_count = frame;
  return place;
}

Sight See(const WalPlace& now) { return {now, true, capture::WalBytes(now.page_size, now.frame)}; }

Judgement Judged(const WalPlace& shipped, const Held& held, const WalPlace& now) { return Judge(shipped, held, See(now)); }

TEST(ContinuityTest, OneTestForEachRowOfTheTable) {
  const WalPlace shipped = Place(5, 3);
  const Held above{shipped, false};
  const Held mark0{shipped, true};
  Sight replaced = See(shipped);
  replaced.same_file = false;
  EXPECT_EQ(Judge(shipped, mark0, replaced).reason, "DATABASE_REPLACED");
  WalPlace other_pages = Place(5, 4);
  other_pages.page_size = 512;
  EXPECT_EQ(Judged(shipped, mark0, other_pages).reason, "PAGE_SIZE_CHANGED");
  EXPECT_EQ(Judged(shipped, mark0, Place(5, 2)).reason, "FRAMES_LOST");
  EXPECT_EQ(Judged(shipped, above, shipped).verdict, Verdict::kUnchanged);
  EXPECT_EQ(Judged(shipped, above, Place(5, 3, 1)).reason, "WAL_REWRITTEN");
  EXPECT_EQ(Judged(Place(5, 0), above, Place(5, 0)).verdict, Verdict::kUnchanged);
  EXPECT_EQ(Judged(shipped, above, Place(5, 9)).verdict, Verdict::kGrown);
  Sight cut = See(Place(5, 9));
  cut.wal_bytes -= 1;
  EXPECT_EQ(Judge(shipped, above, cut).reason, "WAL_SHORTER");
  EXPECT_EQ(Judged(shipped, above, Place(6, 1)).reason, "RESET_UNDER_READER");
  EXPECT_EQ(Judged(shipped, Held{Place(5, 2), true}, Place(6, 1)).reason, "RESET_UNDER_READER");
  EXPECT_EQ(Judged(shipped, Held{Place(5, 4), true}, Place(6, 1)).reason, "RESET_UNDER_READER");
  // Nothing of a generation was shipped, and the reader that began in it has something.
  EXPECT_EQ(Judged(Place(5, 0), Held{Place(5, 2), true}, Place(6, 1)).reason, "RESET_UNDER_READER");
  EXPECT_EQ(Judged(Place(5, 0), Held{Place(4, 2), true}, Place(6, 1)).verdict, Verdict::kResetOnce);
  EXPECT_EQ(Judged(shipped, mark0, Place(6, 1)).verdict, Verdict::kResetOnce);
  EXPECT_EQ(Judged(shipped, mark0, Place(6, 0)).verdict, Verdict::kResetOnce);
  // A TRUNCATE, and a writer that had not started a WAL over before: both salts are random.
  EXPECT_EQ(Judged(shipped, mark0, Place(0x7a000000, 1)).verdict, Verdict::kResetOnce);
  EXPECT_EQ(Judged(shipped, mark0, Place(4, 3)).reason, "SALTS_UNEXPECTED");
  EXPECT_EQ(Judged(Place(500, 3), Held{Place(500, 3), true}, Place(500 - kTakenBack, 3)).reason, "SALTS_UNEXPECTED");
  Sight short_after = See(Place(6, 2));
  short_after.wal_bytes = 100;
  EXPECT_EQ(Judge(shipped, mark0, short_after).reason, "WAL_SHORTER");
  // Salt-1 passes zero.
  EXPECT_EQ(Judged(Place(UINT32_MAX, 3), Held{Place(UINT32_MAX, 3), true}, Place(0, 1)).verdict, Verdict::kResetOnce);
  // The same salt-1 with another salt-2: a WAL that was made anew.
  WalPlace made_anew = Place(5, 3);
  made_anew.salts[7] = std::byte{1};
  EXPECT_EQ(Judged(shipped, mark0, made_anew).reason, "SALTS_UNEXPECTED");
}

// SQLite's WAL with the agent beside it, every order of every step up to a depth: what SQLite may do while the agent holds is never in
// doubt, and what is judged as grown or reset is just what was committed.
//
// The rules of SQLite: a commit appends; a checkpoint copies up to the lowest mark that is held, and nothing while mark 0 is; the WAL is
// started over only where everything is copied and no mark above 0 is held.
struct World {
  // SQLite.
  uint32_t generation = 1;
  uint32_t frames = 0;
  uint32_t copied = 0;
  uint32_t commits = 0;  // ever
  // The agent.
  WalPlace held;
  bool mark0 = true;
  WalPlace shipped = Place(1, 0);
  uint32_t shipped_commits = 0;
  bool looked = true;  // since the hold began

  auto Key() const {
    return std::tuple(generation, frames, copied, commits, held.salts, held.frame, mark0, shipped.salts, shipped.frame, shipped_commits,
                      looked);
  }
};

class Explorer {
 public:
  void Run(const World& world, int depth) {
    if (depth == 0 || testing::Test::HasFailure()) return;
    auto [at, fresh] = seen_.try_emplace(world.Key(), depth);
    if (!fresh && at->second >= depth) return;
    at->second = depth;
    ++states_;
    Commit(world, depth);
    Checkpoint(world, depth);
    Restart(world, depth, true);
    Restart(world, depth, false);
    LookAndShip(world, depth);
    HandOver(world, depth);
  }
  size_t states() const { return states_; }
  size_t resets() const { return resets_; }

 private:
  void Commit(World world, int depth) {
    if (world.frames == 3) return;
    ++world.frames;
    ++world.commits;
    Run(world, depth - 1);
  }
  void Checkpoint(World world, int depth) {
    if (world.mark0) return;  // mark 0 is shared by the agent
    world.copied = std::min(world.frames, world.held.frame);
    Run(world, depth - 1);
  }
  // By a writer that goes on to commit, or by a TRUNCATE that leaves it empty.
  void Restart(World world, int depth, bool commits) {
    if (!world.mark0 || world.copied != world.frames || (world.copied == 0 && commits) || world.generation > 6) return;
    ++world.generation;
    world.frames = world.copied = 0;
    if (commits) {
      ++world.frames;
      ++world.commits;
    }
    Run(world, depth - 1);
  }
  void LookAndShip(World world, int depth) {
    const WalPlace now = Place(world.generation, world.frames);
    const Judgement judgement = Judged(world.shipped, {world.held, world.mark0}, now);
    ASSERT_NE(judgement.verdict, Verdict::kDoubt) << judgement.reason;
    // What an agent that believes it has afterwards.
    const uint32_t added = judgement.verdict == Verdict::kUnchanged ? 0
                           : judgement.verdict == Verdict::kGrown   ? now.frame - world.shipped.frame
                                                                    : now.frame;
    ASSERT_EQ(world.shipped_commits + added, world.commits);
    if (judgement.verdict == Verdict::kResetOnce) ++resets_;
    world.shipped = now;
    world.shipped_commits += added;
    world.looked = true;
    Run(world, depth - 1);
  }
  // The next hold begins while the one before it lasts, and not before there was a look since that one began.
  void HandOver(World world, int depth) {
    if (!world.looked) return;
    const WalPlace now = Place(world.generation, world.frames);
    const Judgement judgement = Judged(world.shipped, {world.held, world.mark0}, now);
    ASSERT_NE(judgement.verdict, Verdict::kDoubt) << judgement.reason;
    if (judgement.verdict == Verdict::kResetOnce) world.shipped = BeforeFirstFrame(world.shipped, now);
    world.looked = false;
    world.held = now;
    world.mark0 = world.copied == world.frames;
    Run(world, depth - 1);
  }

  std::map<decltype(World().Key()), int> seen_;
  size_t states_ = 0;
  size_t resets_ = 0;
};

TEST(ContinuityTest, WhateverSqliteDoesUnderAHoldIsFollowed) {
  Explorer explorer;
  World world;
  world.held = Place(1, 0);
  explorer.Run(world, 16);
  EXPECT_GT(explorer.states(), 2000u);
  EXPECT_GT(explorer.resets(), 200u);
}

}  // namespace
}  // namespace litefleet::follow
