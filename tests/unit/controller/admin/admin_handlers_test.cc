// The operators' calls over real catalogs.
#include "tests/unit/controller/admin/admin_fixture.h"

namespace litefleet::rpc {
namespace {

TEST_F(AdminTest, TokensAreValidated) {
  v1::CreateTokenRequest request;
  ASSERT_TRUE(admin_->CreateToken(request).ok());
  EXPECT_EQ(wish_.uses, 1);
  EXPECT_EQ(wish_.ttl, hours(1));
  request.set_uses(-1);
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "USES_OUT_OF_RANGE");
  request.set_uses(3);
  request.mutable_ttl()->set_seconds(0);
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "DURATION_OUT_OF_RANGE");
  request.mutable_ttl()->set_seconds(60);
  (*request.mutable_labels())["si te"] = "x";
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "LABEL_INVALID");
  request.clear_labels();
  request.set_for_device("nobody");
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "USES_OUT_OF_RANGE");
  request.set_uses(1);
  EXPECT_TRUE(absl::IsNotFound(admin_->CreateToken(request).status()));
  const DeviceId device = Enrol("kiosk", {}, {});
  request.set_for_device("kiosk");
  ASSERT_TRUE(admin_->CreateToken(request).ok());
  EXPECT_EQ(wish_.for_device, device);
  v1::RevokeTokenRequest revoke;
  revoke.set_token("lft1.secret");
  EXPECT_EQ(ReasonOf(admin_->RevokeToken(revoke).status()), "TOKEN_REFERENCE_INVALID");
}

TEST_F(AdminTest, SelectorsAndPages) {
  for (const char* selector : {"site", "site=", "=oslo", "a=b,", ",a=b", "a=b=c", "a b=c"}) {
    if (std::string(selector) == "site=") continue;  // an empty value is a value
    EXPECT_EQ(ReasonOf(CheckSelector(selector)), "SELECTOR_INVALID") << selector;
  }
  EXPECT_TRUE(CheckSelector("site=oslo,tier=edge").ok());
  EXPECT_EQ(CheckedPageSize(0).value(), 100);
  EXPECT_EQ(ReasonOf(CheckedPageSize(1001).status()), "PAGE_SIZE_INVALID");
  EXPECT_EQ(ReasonOf(CheckedPageSize(-1).status()), "PAGE_SIZE_INVALID");
  EXPECT_TRUE(CheckRequestId("01J9ZK").ok());
  EXPECT_EQ(ReasonOf(CheckRequestId(std::string(65, 'x'))), "REQUEST_ID_INVALID");
  EXPECT_EQ(ReasonOf(CheckRequestId("a\nb")), "REQUEST_ID_INVALID");
  for (int i = 0; i < 5; ++i) Enrol(fmt::format("d{}", i), {}, {});
  std::vector<std::string> names;
  v1::ListDevicesRequest request;
  request.set_page_size(2);
  do {
    const auto page = admin_->ListDevices(request);
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_LE(page->devices_size(), 2);
    for (const v1::Device& device : page->devices()) names.push_back(device.name());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, (std::vector<std::string>{"d0", "d1", "d2", "d3", "d4"}));
}

TEST_F(AdminTest, BackupsOfNamesAndSelectors) {
  const DeviceId oslo = Enrol("kiosk", {{"site", "oslo"}}, {"orders", "stock"});
  Enrol("other", {{"site", "bergen"}}, {"orders"});
  v1::StartBackupsRequest request;
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "BACKUP_TARGET_INVALID");
  request.add_databases("kiosk");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DATABASE_REFERENCE_INVALID");
  request.set_databases(0, "kiosk/nothing");
  EXPECT_TRUE(absl::IsNotFound(admin_->StartBackups(request, "operator:a").status()));
  request.set_databases(0, "kiosk/orders");
  request.add_databases(oslo.value() + "/orders");
  request.set_request_id("once");
  const auto started = admin_->StartBackups(request, "operator:a");
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(started->operations_size(), 1) << "the same database under two names is one order";
  EXPECT_EQ(started->operations(0).device_name(), "kiosk");
  EXPECT_EQ(fleet_.last_expire, hours(24));
  EXPECT_EQ(fleet_.last_request, "once");
  request.set_selector("site=oslo");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "BACKUP_TARGET_INVALID");
  request.clear_databases();
  ASSERT_TRUE(admin_->StartBackups(request, "operator:a").ok());
  EXPECT_EQ(fleet_.backups.size(), 2U);
  request.set_selector("site=paris");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "NOTHING_SELECTED");
  request.set_selector("site=oslo");
  request.set_method(v1::METHOD_CONTINUOUS);
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "METHOD_NOT_SUPPORTED");
  request.clear_method();
  request.mutable_dump()->add_tables("t");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DUMP_OPTIONS_INVALID");
  request.set_method(v1::METHOD_DUMP);
  ASSERT_TRUE(admin_->StartBackups(request, "operator:a").ok());
  ASSERT_FALSE(fleet_.backups.empty());
  EXPECT_EQ(fleet_.backups[0].method, v1::METHOD_DUMP);
  ASSERT_TRUE(fleet_.backups[0].dump.has_value());
  EXPECT_EQ(fleet_.backups[0].dump->tables(0), "t");
  request.mutable_dump()->set_schema_only(true);
  request.mutable_dump()->set_data_only(true);
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DUMP_OPTIONS_INVALID");
  request.clear_dump();
  request.clear_method();
  request.mutable_expire()->set_seconds(-5);
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DURATION_OUT_OF_RANGE");
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("kiosk");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  request.clear_expire();
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "NOTHING_SELECTED") << "revoked devices are not selected";
  request.clear_selector();
  request.add_databases("kiosk/orders");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DEVICE_REVOKED");
}

TEST_F(AdminTest, RestoreOrdersAreComplete) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  const SystemTime noon = clock_.Now();
  const std::string first = Snap(device, "orders", noon);
  clock_.Advance(hours(1));
  const std::string second = Snap(device, "orders", noon + hours(1));
  v1::RestoreTarget target;
  target.set_source("kiosk/orders");
  EXPECT_EQ(StartReason(target, "r1"), "");
  EXPECT_EQ(StartReason(target, "r1"), "");
  EXPECT_EQ(StartReason(target, "r2"), "");
  ASSERT_EQ(fleet_.restores.size(), 3U);
  const v1::RestoreOrder& order = fleet_.restores[0].second;
  EXPECT_EQ(fleet_.restores[0].first, device);
  EXPECT_EQ(order.database(), "orders");
  EXPECT_EQ(order.snapshot_id(), second);
  EXPECT_EQ(order.page_size(), 4096U);
  EXPECT_EQ(order.page_count(), 3U);
  EXPECT_EQ(order.root_digest(), std::string(32, '\x17'));
  EXPECT_EQ(order.root_version(), 1U);
  EXPECT_EQ(order.journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_EQ(order.check_state(), v1::CHECK_STATE_UNKNOWN);
  EXPECT_EQ(order.new_timeline(), 2U);
  EXPECT_EQ(fleet_.restores[1].second.new_timeline(), 2U) << "the same request has the same timeline";
  EXPECT_EQ(fleet_.restores[2].second.new_timeline(), 3U);

  *target.mutable_at() = ToProtoTime(noon + minutes(30));
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.snapshot_id(), first);
  EXPECT_FALSE(fleet_.last_request.empty());
  *target.mutable_at() = ToProtoTime(noon - hours(1));
  EXPECT_EQ(StartReason(target), "NO_SNAPSHOT_THEN");
  target.clear_at();
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(second), v1::CHECK_STATE_DAMAGED, "row 3 missing", clock_.Now()).ok());
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.check_state(), v1::CHECK_STATE_DAMAGED);
}

TEST_F(AdminTest, APartIsRestoredByItsIdAlone) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  const SystemTime noon = clock_.Now();
  const std::string whole = Snap(device, "orders", noon);
  clock_.Advance(hours(1));
  const std::string part = Snap(device, "orders", noon + hours(1), 1, "schema only");
  v1::RestoreTarget target;
  target.set_source("kiosk/orders");
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.snapshot_id(), whole);
  EXPECT_EQ(fleet_.restores.back().second.part(), "");
  *target.mutable_at() = ToProtoTime(noon + hours(2));
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.snapshot_id(), whole);
  target.clear_at();
  target.set_snapshot(part);
  EXPECT_EQ(Plan(target).snapshot().part(), "schema only");
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.snapshot_id(), part);
  EXPECT_EQ(fleet_.restores.back().second.part(), "schema only");
}

TEST_F(AdminTest, UndosNameTheRestoreAndGetATimeline) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  v1::StartUndoRequest request;
  request.set_database("kiosk/orders");
  request.set_request_id("u1");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(admin_->StartUndo(request, "operator:test").ok());
  ASSERT_EQ(fleet_.undos.size(), 2U);
  EXPECT_EQ(fleet_.undos[0].database(), "orders");
  EXPECT_EQ(fleet_.undos[0].new_timeline(), 2U);
  EXPECT_EQ(fleet_.undos[1].new_timeline(), 2U) << "the same request has the same timeline";
  EXPECT_EQ(fleet_.undos[0].restore_operation_id(), "");
  request.set_restore_operation("01JD00000000000000000000ZZ");
  EXPECT_EQ(ReasonOf(admin_->StartUndo(request, "operator:test").status()), "OPERATION_NOT_FOUND");
  request.clear_restore_operation();
  request.set_database("nobody/orders");
  EXPECT_EQ(ReasonOf(admin_->StartUndo(request, "operator:test").status()), "DEVICE_NOT_FOUND");

  v1::PlanUndoRequest ask;
  ask.set_database("kiosk/orders");
  absl::Status answered = absl::UnknownError("nobody called");
  admin_->PlanUndo(ask, [&](absl::StatusOr<v1::PlanUndoResponse> answer) {
    answered = answer.status();
    EXPECT_EQ(answer->target(), "kiosk/orders");
    EXPECT_TRUE(answer->plan().from_device());
  });
  EXPECT_TRUE(answered.ok()) << answered;
  EXPECT_EQ(fleet_.asked_undo.new_timeline(), 3U);
  EXPECT_EQ(snapshots_->HighestTimeline(device, "orders").value(), 2U) << "a plan reserves nothing";
}

TEST_F(AdminTest, DropsOfUndosAreBoundToARestore) {
  Enrol("kiosk", {}, {"orders"});
  v1::StartDropUndoRequest request;
  request.set_database("kiosk/orders");
  const auto reason = [&] { return ReasonOf(admin_->StartDropUndo(request, "operator:test").status()); };
  EXPECT_EQ(reason(), "RESTORE_UNNAMED");
  request.set_restore_operation("01JD");
  EXPECT_EQ(reason(), "OPERATION_NOT_FOUND") << "a part of an id that is not known here";
  // Of a restore that was begun on the device, and of the undo after its hook.
  for (const char* id : {"01JD00000000000000000000ZZ", "01JD00000000000000000000ZZ-undo"}) {
    request.set_restore_operation(id);
    ASSERT_EQ(reason(), "");
    EXPECT_EQ(fleet_.dropped_undos.back().database(), "orders");
    EXPECT_EQ(fleet_.dropped_undos.back().restore_operation_id(), id);
  }
  EXPECT_EQ(fleet_.dropped_undos.size(), 2U);
  EXPECT_TRUE(fleet_.undos.empty());
  request.set_database("nobody/orders");
  EXPECT_EQ(reason(), "DEVICE_NOT_FOUND");
}

TEST_F(AdminTest, RestoreTargetsAreResolved) {
  const DeviceId device = Enrol("kiosk", {}, {"orders", "stock"});
  const DeviceId spare = Enrol("spare", {}, {"orders"});
  const std::string snapshot = Snap(device, "orders", clock_.Now());
  v1::RestoreTarget target;
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.set_snapshot(snapshot.substr(0, 20));
  EXPECT_EQ(StartReason(target), "") << "the snapshot says whose it is";
  target.set_timeline(1);
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.set_timeline(0);
  *target.mutable_at() = ToProtoTime(clock_.Now());
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.clear_at();
  target.set_source("kiosk/stock");
  EXPECT_EQ(StartReason(target), "SNAPSHOT_OF_OTHER_DATABASE");
  target.set_source("kiosk/orders");
  target.set_target("spare/stock");
  EXPECT_EQ(StartReason(target), "DATABASE_NOT_FOUND");
  target.set_target("spare/orders");
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().first, spare);
  target.set_target("");
  target.set_snapshot("");
  target.set_source("spare/orders");
  EXPECT_EQ(StartReason(target), "NO_SNAPSHOT");
}

TEST_F(AdminTest, PlansComeFromTheDeviceOrElseFromTheCatalog) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  Snap(device, "orders", clock_.Now());
  v1::RestoreTarget target;
  target.set_source("kiosk/orders");
  v1::PlanRestoreResponse offline = Plan(target);
  EXPECT_FALSE(offline.plan().from_device());
  EXPECT_EQ(offline.plan().mode(), v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(offline.plan().size_bytes(), 3 * 4096);
  EXPECT_EQ(offline.plan().undo_bytes(), 5000);
  EXPECT_EQ(offline.target(), "kiosk/orders");
  EXPECT_EQ(snapshots_->HighestTimeline(device, "orders").value(), 1U) << "a plan reserves nothing";

  fleet_.connected.insert(device.value());
  fleet_.plan->set_mode(v1::RESTORE_MODE_NEW);
  EXPECT_EQ(Plan(target).plan().mode(), v1::RESTORE_MODE_NEW);
  EXPECT_TRUE(Plan(target).plan().from_device());
  EXPECT_EQ(fleet_.asked.new_timeline(), 2U);
  fleet_.plan = Error(absl::StatusCode::kFailedPrecondition, "RESTORE_REFUSED", "never");
  EXPECT_EQ(Plan(target).plan().obstacles(0).info().reason(), "RESTORE_REFUSED");
  fleet_.plan = absl::DeadlineExceededError("slow");
  EXPECT_FALSE(Plan(target).plan().from_device());
  absl::Status status;
  target.set_source("nobody/orders");
  Plan(target, &status);
  EXPECT_TRUE(absl::IsNotFound(status));
}

TEST_F(AdminTest, DevicesAreChangedRevokedAndForgotten) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}}, {"orders"});
  fleet_.connected.insert(device.value());
  v1::UpdateDeviceRequest update;
  update.set_device("kiosk");
  EXPECT_EQ(ReasonOf(admin_->UpdateDevice(update).status()), "NOTHING_TO_CHANGE");
  update.set_name("no/slash");
  EXPECT_EQ(ReasonOf(admin_->UpdateDevice(update).status()), "NAME_INVALID");
  update.set_name("till");
  update.add_remove_labels("site");
  (*update.mutable_set_labels())["tier"] = "edge";
  const auto updated = admin_->UpdateDevice(update);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->device().name(), "till");
  EXPECT_EQ(updated->device().labels().count("site"), 0U);
  v1::ForgetDeviceRequest forget;
  forget.set_device("till");
  EXPECT_EQ(ReasonOf(admin_->ForgetDevice(forget, "operator:local").status()), "DEVICE_ACTIVE");
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("till");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  EXPECT_TRUE(fleet_.connected.empty()) << "its streams end";
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok()) << "idempotent";
  ASSERT_TRUE(admin_->ForgetDevice(forget, "operator:local").ok());
  v1::GetDeviceRequest get;
  get.set_device("till");
  EXPECT_TRUE(absl::IsNotFound(admin_->GetDevice(get).status()));
  const DeviceId kept = Enrol("keeper", {}, {"orders"});
  Snap(kept, "orders", clock_.Now());
  revoke.set_device("keeper");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  forget.set_device("keeper");
  EXPECT_EQ(ReasonOf(admin_->ForgetDevice(forget, "operator:local").status()), "DEVICE_HAS_SNAPSHOTS");
  forget.set_delete_snapshots(true);
  const auto forgotten = admin_->ForgetDevice(forget, "operator:local");
  ASSERT_TRUE(forgotten.ok()) << forgotten.status();
  EXPECT_EQ(forgotten->snapshots_deleted(), 1);
  EXPECT_TRUE(snapshots_->List(kept, "", 10, "")->items.empty());
  EXPECT_TRUE(snapshots_->ListDatabases(DeviceId(), std::nullopt, 10, "")->items.empty());
  EXPECT_TRUE(absl::IsNotFound(admin_->GetDevice(get).status()));
}

TEST_F(AdminTest, ASnapshotGoesToTheTrashAndBack) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}}, {"orders"});
  const std::string first = Snap(device, "orders", clock_.Now());
  clock_.Advance(std::chrono::seconds(1));
  const std::string second = Snap(device, "orders", clock_.Now());
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(first), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  v1::DeleteSnapshotRequest remove;
  remove.set_snapshot(first);
  EXPECT_EQ(ReasonOf(admin_->DeleteSnapshot(remove, "operator:ann").status()), "NEWEST_CHECKED");
  remove.set_snapshot(second);
  v1::PinSnapshotRequest pin;
  pin.set_snapshot(second);
  ASSERT_TRUE(admin_->PinSnapshot(pin)->snapshot().pinned_by_operator());
  EXPECT_EQ(ReasonOf(admin_->DeleteSnapshot(remove, "operator:ann").status()), "SNAPSHOT_PINNED");
  v1::UnpinSnapshotRequest unpin;
  unpin.set_snapshot(second);
  ASSERT_FALSE(admin_->UnpinSnapshot(unpin)->snapshot().pinned_by_operator());
  const auto deleted = admin_->DeleteSnapshot(remove, "operator:ann");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->snapshot().state(), v1::SNAPSHOT_STATE_TRASH);
  ASSERT_TRUE(admin_->DeleteSnapshot(remove, "operator:ann").ok()) << "idempotent";
  EXPECT_EQ(ReasonOf(admin_->PinSnapshot(pin).status()), "SNAPSHOT_IN_TRASH");
  EXPECT_EQ(snapshots_->List(device, "", 10, "")->items.size(), 1U);
  EXPECT_EQ(snapshots_->Newest(device, "orders")->id(), first);
  EXPECT_EQ(snapshots_->GetDatabase(device, "orders")->snapshots(), 1);
  const auto trash = snapshots_->ListTrash(10, "");
  ASSERT_EQ(trash->items.size(), 1U);
  EXPECT_EQ(trash->items[0].trashed_by(), "operator:ann");
  remove.set_snapshot(first);
  remove.set_force(true);
  ASSERT_TRUE(admin_->DeleteSnapshot(remove, "operator:ann").ok());
  v1::RestoreTrashRequest back;
  back.set_snapshot(second);
  ASSERT_EQ(admin_->RestoreTrash(back)->snapshot().state(), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(ReasonOf(admin_->RestoreTrash(back).status()), "NOT_IN_TRASH");
  EXPECT_EQ(snapshots_->Newest(device, "orders")->id(), second);
  EXPECT_FALSE(snapshots_->GetDatabase(device, "orders")->has_newest_proven_at());
}

TEST_F(AdminTest, APolicyIsFollowedWhenTheDeviceSaysSo) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}}, {"orders"});
  v1::ApplyPolicyRequest apply;
  apply.set_text("name = \"oslo\"\nselector = \"site=oslo\"\n[backup]\nschedule = \"15m\"\n");
  const auto applied = admin_->ApplyPolicy(apply);
  ASSERT_TRUE(applied.ok()) << applied.status();
  EXPECT_EQ(fleet_.policies_changed, 1);
  EXPECT_EQ(applied->policy().devices(), 1);
  EXPECT_EQ(applied->policy().devices_acknowledged(), 0);
  EXPECT_EQ(applied->policy().carried().defaults().schedule(), "15m");
  v1::GetDeviceRequest get;
  get.set_device("kiosk");
  EXPECT_EQ(admin_->GetDevice(get)->device().policy(), "oslo");
  EXPECT_EQ(admin_->GetDevice(get)->device().policy_version(), applied->policy().version());
  EXPECT_EQ(admin_->GetDevice(get)->device().policy_acknowledged(), 0);
  v1::Health health;
  health.set_policy_version(applied->policy().version());
  health.add_policy_problems("one");
  health.add_policy_problems("two");
  ASSERT_TRUE(identities_->Seen(device, clock_.Now(), nullptr, 0, &health).ok());
  EXPECT_EQ(admin_->GetDevice(get)->device().policy_acknowledged(), applied->policy().version());
  EXPECT_EQ(admin_->GetDevice(get)->device().policy_problems_size(), 2);
  v1::GetPolicyRequest show;
  show.set_policy("oslo");
  EXPECT_EQ(admin_->GetPolicy(show)->policy().devices_acknowledged(), 1);
  // Without [retention] everything is kept.
  Snap(device, "orders", clock_.Now());
  Snap(device, "orders", clock_.Now());
  v1::ListPolicyVerdictsRequest simulate;
  simulate.set_policy("oslo");
  const auto verdicts = admin_->ListPolicyVerdicts(simulate);
  ASSERT_EQ(verdicts->verdicts_size(), 2);
  for (const v1::PolicyVerdict& verdict : verdicts->verdicts()) EXPECT_TRUE(verdict.keep());
  v1::UpdateDeviceRequest label;
  label.set_device("kiosk");
  (*label.mutable_set_labels())["site"] = "bergen";
  ASSERT_TRUE(admin_->UpdateDevice(label).ok());
  EXPECT_EQ(fleet_.policies_changed, 2);
  EXPECT_EQ(admin_->GetDevice(get)->device().policy(), "") << "another device now";
}

TEST_F(AdminTest, PoliciesAreAppliedByLabelAndTiesAreRefused) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}, {"tier", "gold"}}, {"orders"});
  for (int i = 0; i < 3; ++i) {
    Snap(device, "orders", clock_.Now());
    clock_.Advance(std::chrono::minutes(1));
  }
  v1::ApplyPolicyRequest apply;
  apply.set_text("name = \"oslo\"\nselector = \"site=oslo\"\n[retention]\nkeep_last = 1\n");
  const auto oslo = admin_->ApplyPolicy(apply);
  ASSERT_TRUE(oslo.ok()) << oslo.status();
  EXPECT_EQ(oslo->policy().databases(), 1);
  apply.set_text("name = \"gold\"\nselector = \"tier=gold\"\n[retention]\nkeep_last = 9\n");
  EXPECT_EQ(ReasonOf(admin_->ApplyPolicy(apply).status()), "POLICY_TIE");
  apply.set_text("name = \"gold\"\nselector = \"tier=gold,site=oslo\"\n[retention]\nkeep_last = 9\n");
  const auto gold = admin_->ApplyPolicy(apply);
  ASSERT_TRUE(gold.ok()) << gold.status();
  EXPECT_GT(gold->policy().version(), oslo->policy().version());
  v1::ListPolicyVerdictsRequest simulate;
  simulate.set_policy("oslo");
  EXPECT_TRUE(admin_->ListPolicyVerdicts(simulate)->verdicts().empty()) << "the more specific one rules it";
  v1::DeletePolicyRequest remove;
  remove.set_policy("gold");
  ASSERT_TRUE(admin_->DeletePolicy(remove).ok());
  EXPECT_EQ(ReasonOf(admin_->DeletePolicy(remove).status()), "POLICY_NOT_FOUND");
  const auto verdicts = admin_->ListPolicyVerdicts(simulate);
  ASSERT_EQ(verdicts->verdicts_size(), 3);
  EXPECT_TRUE(verdicts->verdicts(0).keep());
  EXPECT_FALSE(verdicts->verdicts(1).keep());
  apply.set_text("name = \"x\"\n[retention]\nkeep_lost = 1\n");
  EXPECT_EQ(ReasonOf(admin_->ApplyPolicy(apply).status()), "CONFIG_INVALID");
}

std::vector<std::string> Reasons(const v1::GetStatusResponse& status) {
  std::vector<std::string> reasons;
  for (const v1::Alarm& alarm : status.alarms()) {
    if (alarm.reason() != "DISK_LOW") reasons.push_back(alarm.reason() + " " + alarm.subject());
  }
  return reasons;
}

std::string WordsOf(const v1::GetStatusResponse& status, const std::string& reason) {
  for (const v1::Alarm& alarm : status.alarms()) {
    if (alarm.reason() == reason) return alarm.message();
  }
  return "";
}

TEST_F(AdminTest, StatusNamesWhatSomebodyShouldLookAt) {
  EXPECT_TRUE(Reasons(admin_->GetStatus({}).value()).empty());
  const DeviceId device = Enrol("kiosk", {}, {"orders", "stock"});
  fleet_.connected.insert(device.value());
  const std::string snapshot = Snap(device, "orders", clock_.Now());
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value()), (std::vector<std::string>{"NEVER_BACKED_UP kiosk/stock", "UNPROVEN kiosk/orders"}));
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(snapshot), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  Snap(device, "stock", clock_.Now());
  v1::DatabaseHealth failed;
  failed.set_name("stock");
  failed.mutable_last_error()->set_code(9);
  failed.mutable_last_error()->mutable_info()->set_reason("WRITER_STALL");
  ASSERT_TRUE(snapshots_->ReportDatabases(device, clock_.Now(), std::vector<v1::DatabaseHealth>{failed}).ok());
  const auto status = admin_->GetStatus({}).value();
  EXPECT_EQ(Reasons(status), (std::vector<std::string>{"BACKUP_FAILED kiosk/stock", "UNPROVEN kiosk/stock"})) << "the gravest first";
  v1::DatabaseHealth waiting;
  waiting.set_name("orders");
  waiting.set_waits_for("this device runs on its battery");
  *waiting.mutable_waits_since() = ToProtoTime(clock_.Now() - std::chrono::hours(20));
  ASSERT_TRUE(snapshots_->ReportDatabases(device, clock_.Now(), std::vector<v1::DatabaseHealth>{failed, waiting}).ok());
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value()).size(), 2u) << "a run may wait for a while";
  *waiting.mutable_waits_since() = ToProtoTime(clock_.Now() - std::chrono::hours(30));
  ASSERT_TRUE(snapshots_->ReportDatabases(device, clock_.Now(), std::vector<v1::DatabaseHealth>{failed, waiting}).ok());
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value()),
            (std::vector<std::string>{"BACKUP_FAILED kiosk/stock", "RUN_WAITS kiosk/orders", "UNPROVEN kiosk/stock"}));
  *failed.mutable_capture()->mutable_chain_overdue_since() = ToProtoTime(clock_.Now() - std::chrono::hours(80));
  ASSERT_TRUE(snapshots_->ReportDatabases(device, clock_.Now(), std::vector<v1::DatabaseHealth>{failed, waiting}).ok());
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value()).back(), "CHAIN_UNCHECKED kiosk/stock");
  EXPECT_EQ(status.devices(), 1);
  EXPECT_EQ(status.devices_connected(), 1);
  EXPECT_EQ(status.snapshots(), 2);
  const std::string words = "Tree 2 page 3: btreeInitPage() returns error code 11";
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(snapshot), v1::CHECK_STATE_DAMAGED, words, clock_.Now()).ok());
  EXPECT_EQ(WordsOf(admin_->GetStatus({}).value(), "SOURCE_DAMAGED"), "its newest snapshot " + snapshot + " has damage: " + words);
  std::string many = words;
  for (int i = 0; i < 19; ++i) many += "; " + words;
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(snapshot), v1::CHECK_STATE_DAMAGED, many, clock_.Now()).ok());
  EXPECT_TRUE(WordsOf(admin_->GetStatus({}).value(), "SOURCE_DAMAGED").ends_with(words + "; ...")) << "the first findings, each whole";
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(snapshot), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  fleet_.connected.clear();
  clock_.Advance(hours(3));
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value())[1], "DEVICE_NOT_SEEN kiosk");
}

TEST_F(AdminTest, ACopiedIdentityIsAnAlarm) {
  const DeviceId device = Enrol("kiosk", {}, {});
  for (const char* boot : {"a", "b", "a"}) {
    v1::Hello hello;
    hello.set_boot_id(boot);
    EXPECT_TRUE(identities_->Seen(device, clock_.Now(), &hello, 0, nullptr).ok());
  }
  const v1::Alarm first = admin_->GetStatus({})->alarms(0);
  EXPECT_EQ(first.reason() + " " + first.subject(), "DEVICE_CLONED kiosk");
  EXPECT_NE(first.message().find("litefleet token create --for-device kiosk"), std::string::npos) << first.message();
}

TEST_F(AdminTest, TheDoctorTellsWhatTheFleetSuffersFrom) {
  const auto look = [&](const std::string& check) {
    const auto response = admin_->RunDoctor({});
    EXPECT_TRUE(response.ok());
    for (const v1::Finding& finding : response->findings()) {
      if (finding.check() == check) return finding;
    }
    return v1::Finding();
  };
  EXPECT_EQ(look("proof").level(), v1::FINDING_LEVEL_OK);
  EXPECT_EQ(look("configuration").level(), v1::FINDING_LEVEL_OK) << "and at the controller itself";
  Enrol("kiosk", {}, {"orders"});
  const v1::Finding proof = look("proof");
  EXPECT_EQ(proof.level(), v1::FINDING_LEVEL_WARN);
  EXPECT_NE(proof.fix(), "");
  clock_.Advance(hours(24));
  const v1::Finding fleet = look("fleet");
  EXPECT_EQ(fleet.level(), v1::FINDING_LEVEL_WARN);
  EXPECT_NE(fleet.message().find("kiosk"), std::string::npos) << fleet.message();
}

}  // namespace
}  // namespace litefleet::rpc
