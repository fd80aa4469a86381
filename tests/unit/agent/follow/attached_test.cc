// The agent's own RESTART, with what an application does at each of its steps.
#include "agent/follow/attached.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet::follow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class AttachedTest : public capture::CaptureTest {
 protected:
  AttachedTest() : path_(Path("app.db")) {
    Sql(path_, "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'a')");
    for (std::unique_ptr<Application>* one : {&app_, &second_, &reader_}) {
      *one = std::make_unique<Application>(path_, 0);
      (*one)->Run("pragma wal_autocheckpoint=0; select count(*) from t");
    }
    app_->Run("insert into t values(2, 'b')");
  }
  void Open() {
    capture::UserDatabaseOptions options;
    options.path = path_;
    options.busy_timeout = milliseconds(100);
    auto opened = Attached::Open(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    attached_ = *std::move(opened);
    // Above mark 0.
    app_->Run("insert into t values(3, 'c')");
    ASSERT_TRUE(attached_->HandOver([](const capture::WalState&) {}).ok());
    ASSERT_FALSE(attached_->held().may_be_mark0);
    shipped_ = *Place();
  }
  absl::StatusOr<capture::WalPlace> Place() {
    const auto look = attached_->Look();
    if (!look.ok()) return look.status();
    return capture::PlaceOf(*look);
  }
  Verdict JudgeNow() {
    const auto look = attached_->Look();
    if (!look.ok()) return Verdict::kDoubt;
    const auto sight = attached_->SightOf(*look);
    return sight.ok() ? Judge(shipped_, attached_->held(), *sight).verdict : Verdict::kDoubt;
  }

  const std::string path_;
  std::unique_ptr<Application> app_, second_, reader_;
  std::unique_ptr<Attached> attached_;
  capture::WalPlace shipped_;
};

TEST_F(AttachedTest, ARestartTakesWhatIsNewWithTheWriteLockAndEndsOnMark0) {
  ASSERT_NO_FATAL_FAILURE(Open());
  app_->Run("insert into t values(4, 'd')");  // the hold is not on the newest frame
  int saves = 0;
  const auto done = attached_->Restart(seconds(30), [&] {
    ++saves;
    EXPECT_EQ(app_->Try("insert into t values(5, 'e')"), SQLITE_BUSY) << "nothing newer can be committed";
    EXPECT_EQ(JudgeNow(), saves == 1 ? Verdict::kGrown : Verdict::kUnchanged);
    shipped_ = *Place();
    return true;
  });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(*done);
  EXPECT_EQ(saves, 2) << "for the newest frame, and for mark 0";
  EXPECT_TRUE(attached_->held().may_be_mark0);
  EXPECT_EQ(attached_->held().begun, shipped_);
  // Whoever writes next starts the WAL over, and all of it is what is new.
  app_->Run("insert into t values(5, 'e')");
  EXPECT_EQ(JudgeNow(), Verdict::kResetOnce);
  EXPECT_LE(Place()->frame, 2u);
}

TEST_F(AttachedTest, ARestartWhoseFramesCannotBeTakenIsGivenUp) {
  ASSERT_NO_FATAL_FAILURE(Open());
  app_->Run("insert into t values(4, 'd')");
  // Not at the first of its two steps, and not at the second.
  for (const int refused : {1, 2}) {
    int saves = 0;
    const auto done = attached_->Restart(seconds(30), [&] {
      if (++saves == refused) return false;
      shipped_ = *Place();
      return true;
    });
    ASSERT_TRUE(done.ok()) << done.status();
    EXPECT_FALSE(*done);
    EXPECT_EQ(saves, refused);
    EXPECT_FALSE(attached_->held().may_be_mark0);
    app_->Run("insert into t values(null, 'after')");
    EXPECT_EQ(JudgeNow(), Verdict::kGrown) << "the hold has lasted";
  }
}

TEST_F(AttachedTest, ARestartGivesUpWhereAReaderOrAWriterIsInTheWay) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const auto save = [&] {
    shipped_ = *Place();
    return true;
  };
  reader_->Run("begin; select count(*) from t");
  app_->Run("insert into t values(4, 'd')");
  auto done = attached_->Restart(milliseconds(100), save);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_FALSE(*done) << "the reader is on a mark above 0";
  app_->Run("insert into t values(5, 'e')");
  EXPECT_EQ(JudgeNow(), Verdict::kGrown);
  reader_->Run("commit");
  app_->Run("begin immediate");
  int saves = 0;
  done = attached_->Restart(milliseconds(100), [&] { return ++saves > 0; });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_FALSE(*done);
  EXPECT_EQ(saves, 0) << "without the write lock nothing is advanced";
  app_->Run("insert into t values(6, 'f'); commit");
  EXPECT_EQ(JudgeNow(), Verdict::kGrown);
  done = attached_->Restart(seconds(30), save);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(*done);
}

// Another checkpointer than the agent's: an application's is refused at once, and that of the agent where an application is at it.
TEST_F(AttachedTest, ARestartAndACheckpointOfAnApplicationDoNotWaitForEachOther) {
  ASSERT_NO_FATAL_FAILURE(Open());
  app_->Run("insert into t values(4, 'd')");
  const auto done = attached_->Restart(seconds(30), [&] {
    shipped_ = *Place();
    second_->Run("pragma busy_timeout=100000; pragma wal_checkpoint(truncate)");  // says busy in its row
    return true;
  });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(*done);
  EXPECT_EQ(JudgeNow(), Verdict::kUnchanged);
}

}  // namespace
}  // namespace litefleet::follow
