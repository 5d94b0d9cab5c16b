"""The life of an identity, step by step, on both databases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from nbiot.errors import (
    AlreadyProven,
    BadInput,
    ImeiTaken,
    LeaseLost,
    PoolEmpty,
    StationError,
)
from nbiot.signing import Secret
from nbiot.station.record import Outcome
from nbiot.station.store import CredentialState, Delivery, Store
from tests.station.store.line import (
    PLENTY,
    PRODUCT,
    Line,
    iccid,
    identities,
    imei,
    new_run,
    pass_time,
    record,
)

Stations = Callable[[str], Awaitable[Store]]


# --- claim ----------------------------------------------------------------------------------------


async def test_a_claim_gives_the_first_free_identity_with_its_secret(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1))
    assert (claim.product_key, claim.device_key) == (PRODUCT, "dev0000")
    assert claim.secret == Secret("secret-0000")
    assert (claim.state, claim.fence, claim.retry) == (CredentialState.CLAIMED, 1, False)
    assert claim.imei == imei(1)
    counts = await store.counts()
    assert (counts.free, counts.claimed) == (PLENTY - 1, 1)
    assert await store.free() == await store.free(product_key=PRODUCT) == PLENTY - 1
    assert await store.free(product_key="another") == 0
    assert await store.free(at_most=3) == 3


async def test_two_boards_get_two_identities(store: Store) -> None:
    one = await store.claim(new_run(), "1", imei(1))
    two = await store.claim(new_run(), "2", imei(2))
    assert one.device_key != two.device_key


async def test_a_run_that_asks_again_gets_the_same_claim(store: Store) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    assert await store.claim(run, "1", imei(1), iccid=iccid(1)) == claim
    await pass_time(store, 400)  # the reply took for ever; nobody else wanted it
    assert await store.claim(run, "1", imei(1), iccid=iccid(1)) == claim
    bound = await store.bind(claim, imei(1))
    assert await store.claim(run, "1", imei(1), iccid=iccid(1)) == bound
    assert not bound.retry


async def test_a_run_is_for_one_board(store: Store) -> None:
    run = new_run()
    await store.claim(run, "1", imei(1))
    with pytest.raises(BadInput, match=imei(1)):
        await store.claim(run, "1", imei(2))


async def test_a_run_that_left_its_record_claims_nothing_more(store: Store) -> None:
    run = new_run()
    await store.deliver(record(run, Outcome.ABORTED))
    with pytest.raises(LeaseLost, match="has ended"):
        await store.claim(run, "1", imei(1))


async def test_a_product_is_asked_for_by_its_key(store: Store) -> None:
    await store.add(identities(1, start=9000, product="other"))
    claim = await store.claim(new_run(), "1", imei(1), product_key="other")
    assert claim.product_key == "other"
    with pytest.raises(PoolEmpty, match=r"product other.*\n.*import"):
        await store.claim(new_run(), "2", imei(2), product_key="other")


async def test_an_empty_pool_says_so(store: Store) -> None:
    for board in range(PLENTY):
        await store.claim(new_run(), str(board), imei(board))
    with pytest.raises(PoolEmpty):
        await store.claim(new_run(), "x", imei(99))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"imei": "12345"}, "IMEI"),
        ({"imei": "86758400000000x"}, "IMEI"),
        ({"run": ""}, "run"),
        ({"slot": "a\nb"}, "slot"),
        ({"lease": 0}, "lease"),
        ({"lease": 4000.0}, "lease"),
        ({"lease": float("nan")}, "lease"),
        ({"product_key": "no spaces"}, "productKey"),
    ],
)
async def test_what_cannot_be_asked_is_named(
    store: Store, changed: dict[str, object], field: str
) -> None:
    asked = {"run": new_run(), "slot": "1", "imei": imei(1), **changed}
    with pytest.raises(BadInput, match=field):
        await store.claim(**asked)  # type: ignore[arg-type]


# --- one board in two slots, two boards with one IMEI ---------------------------------------------


async def test_a_board_that_is_worked_on_elsewhere_is_refused(
    store: Store, station: Stations
) -> None:
    other = await station("S2")
    claim = await store.claim(new_run(), "7", imei(1))
    with pytest.raises(ImeiTaken, match="slot 7 of station S1"):
        await other.claim(new_run(), "7", imei(1))
    await store.bind(claim, imei(1))
    with pytest.raises(ImeiTaken, match="slot 7 of station S1"):
        await store.claim(new_run(), "8", imei(1))


async def test_a_slot_works_on_one_board_at_a_time_so_its_next_run_takes_over(
    store: Store,
) -> None:
    first = await store.claim(new_run(), "1", imei(1))
    second = await store.claim(new_run(), "1", imei(1))
    assert (second.credential, second.fence) == (first.credential, first.fence + 1)
    with pytest.raises(LeaseLost):
        await store.bind(first, imei(1))


async def test_an_expired_lease_lets_the_same_board_go_on_elsewhere(
    store: Store, station: Stations
) -> None:
    other = await station("S2")
    slow = await store.claim(new_run(), "1", imei(1))
    await pass_time(store, 301)
    fast = await other.claim(new_run(), "1", imei(1))
    assert (fast.device_key, fast.fence) == (slow.device_key, slow.fence + 1)
    with pytest.raises(LeaseLost, match="station S2"):
        await store.bind(slow, imei(1))
    with pytest.raises(LeaseLost):
        await store.renew(slow)
    await store.release(slow)  # changes nothing
    await other.bind(fast, imei(1))


async def test_an_expired_claim_goes_to_another_board_when_nothing_else_is_free(
    store: Store,
) -> None:
    slow = await store.claim(new_run(), "slow", imei(1000))
    for board in range(1, PLENTY):
        await store.claim(new_run(), str(board), imei(board))
    await pass_time(store, 301)
    assert (await store.counts()).free == PLENTY  # what ran out is to be had
    fast = await store.claim(new_run(), "fast", imei(2000))
    assert fast.credential == slow.credential
    with pytest.raises(LeaseLost):
        await store.bind(slow, imei(1000))
    await store.bind(fast, imei(2000))


async def test_an_expired_lease_that_nobody_took_still_binds(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1))
    await pass_time(store, 301)
    assert (await store.bind(claim, imei(1))).state is CredentialState.BOUND


async def test_a_lease_from_when_the_clock_was_wrong_counts_as_over(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1))
    await pass_time(store, -86400)
    later = await store.claim(new_run(), "2", imei(1))
    assert later.fence == claim.fence + 1


async def test_a_second_board_with_the_same_imei_is_refused(line: Line, store: Store) -> None:
    await line.ended(1, Outcome.FAIL)
    with pytest.raises(ImeiTaken, match=r"two boards carry this IMEI(.|\n)*allow-retry dev0000"):
        await store.claim(new_run(), "2", imei(1), iccid=iccid(2))


async def test_a_second_board_is_found_out_at_bind_if_the_claim_did_not_tell_its_sim(
    line: Line, store: Store
) -> None:
    await line.ended(1, Outcome.FAIL)
    claim = await store.claim(new_run(), "2", imei(1))
    with pytest.raises(ImeiTaken, match="two boards"):
        await store.bind(claim, imei(1), iccid=iccid(2))
    with pytest.raises(ImeiTaken, match="could not be read"):
        await store.bind(claim, imei(1))
    await store.bind(claim, imei(1), iccid=iccid(1))


async def test_a_second_board_is_found_out_by_its_module_serial(store: Store) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    await store.bind(claim, imei(1), module_serial="MS-1")
    await store.deliver(record(run, Outcome.FAIL, claim))
    again = await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    with pytest.raises(ImeiTaken, match="module serial MS-1"):
        await store.bind(again, imei(1), module_serial="MS-2")
    await store.bind(again, imei(1), module_serial="MS-1")


async def test_the_board_must_not_be_changed_between_claim_and_bind(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    with pytest.raises(ImeiTaken, match=imei(2)):
        await store.bind(claim, imei(2))
    with pytest.raises(ImeiTaken, match="had SIM"):
        await store.bind(claim, imei(1), iccid=iccid(2))


# --- bind, renew, release -------------------------------------------------------------------------


async def test_binding_twice_is_binding_once(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    bound = await store.bind(claim, imei(1))
    assert await store.bind(claim, imei(1)) == bound
    assert [entry.action for entry in await store.audit("dev0000")] == ["bind", "claim"]


async def test_a_released_claim_is_free_for_any_board(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1))
    await store.release(claim)
    await store.release(claim)
    with pytest.raises(LeaseLost):
        await store.bind(claim, imei(1))
    with pytest.raises(LeaseLost):
        await store.renew(claim)
    other = await store.claim(new_run(), "2", imei(2))
    assert other.credential == claim.credential
    await store.release(claim)  # the old word changes nothing now
    await store.bind(other, imei(2))


async def test_a_run_that_released_may_claim_again(store: Store) -> None:
    run = new_run()
    first = await store.claim(run, "1", imei(1))
    await store.release(first)
    second = await store.claim(run, "1", imei(1))
    assert second.fence > first.fence


async def test_what_was_given_is_never_free_again(line: Line, store: Store) -> None:
    claim = await line.bound(1)
    await store.release(claim)
    assert (await store.counts()).bound == 1
    again = await store.claim(new_run(), "2", imei(1), iccid=iccid(1))  # at once: it was let go
    assert (again.device_key, again.retry) == (claim.device_key, True)


async def test_renewing_keeps_others_away(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1))
    await pass_time(store, 299)
    await store.renew(claim)
    await pass_time(store, 299)
    with pytest.raises(ImeiTaken):
        await store.claim(new_run(), "2", imei(1))


# --- results --------------------------------------------------------------------------------------


async def test_a_pass_proves(line: Line, store: Store) -> None:
    run = new_run()
    claim = await line.bound(1, run=run)
    told = record(run, Outcome.PASS, claim, firmware="B657SP3", rsrp=-97.5, trace="ab" * 32)
    assert await store.deliver(told) is Delivery.APPLIED
    assert await store.deliver(told) is Delivery.KNOWN
    assert (await store.counts()).proven == 1
    assert await store.record(run) == told
    entry = (await store.audit(claim.device_key))[0]
    assert (entry.action, entry.from_state, entry.to_state) == ("result", "bound", "proven")
    assert (entry.firmware, entry.rsrp, entry.trace) == ("B657SP3", -97.5, "ab" * 32)
    assert (entry.station, entry.slot, entry.run, entry.imei) == ("S1", "1", run, imei(1))
    assert (entry.iccid, entry.fence) == (iccid(1), claim.fence)
    with pytest.raises(AlreadyProven, match=r"dev0000(.|\n)*allow-retry"):
        await store.claim(new_run(), "1", imei(1), iccid=iccid(1))


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.ERROR, Outcome.ABORTED])
async def test_anything_else_fails_and_may_be_retried_with_the_same_identity(
    line: Line, store: Store, outcome: Outcome
) -> None:
    claim = await line.ended(1, outcome)
    assert (await store.counts()).failed == 1
    again = await store.claim(new_run(), "2", imei(1), iccid=iccid(1))
    assert (again.credential, again.fence) == (claim.credential, claim.fence + 1)
    assert (again.retry, again.secret) == (True, claim.secret)
    assert (await store.bind(again, imei(1))).retry


async def test_a_run_that_failed_before_bind_gives_its_identity_back(store: Store) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1))
    assert await store.deliver(record(run, Outcome.FAIL, claim)) is Delivery.APPLIED
    assert (await store.counts()).free == PLENTY
    assert (await store.claim(new_run(), "1", imei(2))).device_key == claim.device_key


async def test_a_pass_without_bind_keeps_the_identity_with_that_board(store: Store) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    await store.deliver(record(run, Outcome.PASS, claim))
    assert (await store.counts()).proven == 1
    assert await store.contradictions() == []


async def test_a_late_result_is_kept_and_changes_nothing(
    line: Line, store: Store, station: Stations
) -> None:
    other = await station("S2")
    slow = new_run()
    late = await line.bound(1, run=slow)
    await pass_time(store, 301)
    fast = new_run()
    claim = await other.claim(fast, "1", imei(1), iccid=iccid(1))
    await other.bind(claim, imei(1))
    assert await store.deliver(record(slow, Outcome.FAIL, late)) is Delivery.KEPT
    assert (await store.counts()).bound == 1
    assert await other.deliver(record(fast, Outcome.PASS, claim, station="S2")) is Delivery.APPLIED
    assert (await store.counts()).proven == 1
    assert await store.record(slow) is not None
    assert (await store.audit())[1].action == "result kept"


async def test_after_the_result_the_claim_is_worth_nothing(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.PASS)
    for word in (store.bind(claim, imei(1)), store.renew(claim)):
        with pytest.raises(LeaseLost):
            await word
    await store.release(claim)
    assert (await store.counts()).proven == 1


async def test_a_record_finds_its_identity_by_the_run(line: Line, store: Store) -> None:
    """A station that was killed may not have known what it had claimed."""
    claimed, bound = new_run(), new_run()
    await store.claim(claimed, "1", imei(1))
    await line.bound(2, slot="2", run=bound)
    assert await store.deliver(record(claimed, Outcome.ABORTED)) is Delivery.APPLIED
    assert await store.deliver(record(bound, Outcome.ABORTED)) is Delivery.APPLIED
    counts = await store.counts()
    assert (counts.free, counts.claimed, counts.bound, counts.failed) == (PLENTY - 1, 0, 0, 1)


async def test_a_record_of_another_board_than_the_claim_s_changes_nothing(
    line: Line, store: Store
) -> None:
    run = new_run()
    claim = await line.bound(1, run=run)
    wrong = record(run, Outcome.PASS, claim, imei=imei(2))
    assert await store.deliver(wrong) is Delivery.KEPT
    assert (await store.counts()).proven == 0


async def test_another_record_with_a_known_id_is_refused_and_not_lost_in_silence(
    store: Store,
) -> None:
    run = new_run()
    await store.deliver(record(run, Outcome.ABORTED))
    with pytest.raises(BadInput, match="record id"):
        await store.deliver(record(run, Outcome.PASS))


async def test_text_that_a_database_cannot_hold_is_kept_in_the_record(store: Store) -> None:
    odd = record(new_run(), Outcome.FAIL, serial_number="A\0B\ud800", firmware="\0")
    await store.deliver(odd)
    assert await store.record(odd.id) == odd


# --- the station starts again ---------------------------------------------------------------------


async def test_a_station_that_starts_releases_what_it_had_not_given(
    line: Line, store: Store, station: Stations
) -> None:
    await store.start()
    await store.claim(new_run(), "1", imei(1))
    run = new_run()
    bound = await line.bound(2, slot="2", run=run)
    await line.ended(3, Outcome.PASS, slot="3")
    other = await station("S2")
    theirs = await other.claim(new_run(), "1", imei(4))
    again = await station("S1")
    (unfinished,) = await again.start()
    assert (unfinished.run, unfinished.device_key) == (run, bound.device_key)
    assert (unfinished.imei, unfinished.slot) == (imei(2), "2")
    counts = await again.counts()
    assert (counts.claimed, counts.bound, counts.proven) == (1, 1, 1)
    await other.bind(theirs, imei(4))
    retry = await again.claim(new_run(), "9", imei(2), iccid=iccid(2))  # at once, in any slot
    assert retry.device_key == bound.device_key


async def test_a_result_that_waited_in_the_outbox_counts_after_the_restart(
    line: Line, store: Store, station: Stations
) -> None:
    run = new_run()
    claim = await line.bound(1, run=run)
    again = await station("S1")
    await again.start()
    assert await again.deliver(record(run, Outcome.PASS, claim)) is Delivery.APPLIED
    assert (await again.counts()).proven == 1


async def test_starting_twice_releases_nothing_of_one_s_own(store: Store) -> None:
    await store.start()
    claim = await store.claim(new_run(), "1", imei(1))
    assert await store.start() == []
    await store.bind(claim, imei(1))


# --- people ---------------------------------------------------------------------------------------


async def test_a_person_allows_a_changed_sim_once(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.FAIL)
    await store.allow_retry(claim.device_key, who="li", why="SIM replaced")
    again = await store.claim(new_run(), "1", imei(1), iccid=iccid(7))
    await store.bind(again, imei(1))
    await store.release(again)
    with pytest.raises(ImeiTaken, match=iccid(7)):
        await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    entry = next(e for e in await store.audit(claim.device_key) if e.action == "allow retry")
    assert (entry.who, entry.why) == ("li", "SIM replaced")


async def test_a_person_allows_a_proven_board_to_be_done_again(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.PASS)
    await store.allow_retry(claim.device_key, who="li", why="module repaired")
    run = new_run()
    again = await store.claim(run, "1", imei(1), iccid=iccid(1))
    assert again.device_key == claim.device_key
    await store.deliver(record(run, Outcome.ERROR, again))  # before bind: it is as proven as before
    assert (await store.counts()).proven == 1
    again = await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    await store.bind(again, imei(1))
    assert (await store.counts()).bound == 1


async def test_what_is_returned_is_never_given_out_again(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.FAIL)
    await store.give_back(claim.device_key, who="li", why="board scrapped")
    await store.give_back(claim.device_key, who="li", why="board scrapped")
    fresh = await store.claim(new_run(), "1", imei(1), iccid=iccid(9))  # the board may have another
    assert fresh.device_key != claim.device_key
    for board in range(2, PLENTY):
        await store.claim(new_run(), str(board), imei(board))
    with pytest.raises(PoolEmpty):
        await store.claim(new_run(), "x", imei(99))
    assert (await store.counts()).returned == 1


async def test_a_late_result_does_not_bring_back_what_was_returned(
    line: Line, store: Store
) -> None:
    run = new_run()
    claim = await line.bound(1, run=run)
    await store.release(claim)
    await store.give_back(claim.device_key, who="li", why="scrapped")
    assert await store.deliver(record(run, Outcome.PASS, claim)) is Delivery.KEPT
    assert (await store.counts()).returned == 1


async def test_what_is_in_use_is_not_returned(line: Line, store: Store) -> None:
    claim = await line.bound(1)
    with pytest.raises(StationError, match="slot 1 of station S1"):
        await store.give_back(claim.device_key, who="li", why="x")


async def test_after_a_restore_the_old_pool_is_retired(line: Line, store: Store) -> None:
    bound = await line.bound(1)
    claim = await store.claim(new_run(), "2", imei(2))
    assert await store.retire_pool(who="li", why="restored from last night") == PLENTY - 1
    counts = await store.counts()
    assert (counts.free, counts.claimed, counts.returned) == (0, 0, PLENTY - 1)
    with pytest.raises(LeaseLost):
        await store.bind(claim, imei(2))
    with pytest.raises(PoolEmpty):
        await store.claim(new_run(), "3", imei(3))
    await store.renew(bound)  # what was given goes on
    report = await store.add(identities(PLENTY))
    assert report.unchanged == PLENTY  # an import does not bring them back
    entry = (await store.audit())[0]
    assert (entry.action, entry.who) == ("retire pool", "li")
    assert await store.contradictions() == []


async def test_people_must_say_who_and_why(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.FAIL)
    for act in (store.give_back, store.allow_retry):
        with pytest.raises(BadInput, match="why"):
            await act(claim.device_key, who="li", why="")
        with pytest.raises(BadInput, match="device key"):
            await act("nobody", who="li", why="x")
    with pytest.raises(BadInput, match="it is free"):
        await store.allow_retry("dev0004", who="li", why="x")


# --- registration ---------------------------------------------------------------------------------


async def test_registration_reserves_first_and_stores_the_secret(store: Store) -> None:
    run = new_run()
    reserved = await store.reserve(run, "1", imei(1), PRODUCT, iccid=iccid(1))
    assert (reserved.device_key, reserved.secret) == (imei(1), None)
    assert await store.reserve(run, "1", imei(1), PRODUCT, iccid=iccid(1)) == reserved
    claim = await store.registered(reserved, Secret("from-enos"))
    assert await store.registered(reserved, Secret("from-enos")) == claim
    assert claim.secret == Secret("from-enos")
    bound = await store.bind(claim, imei(1))
    await store.deliver(record(run, Outcome.PASS, bound))
    with pytest.raises(AlreadyProven):
        await store.reserve(new_run(), "1", imei(1), PRODUCT)


async def test_two_stations_never_register_one_board_at_the_same_time(
    store: Store, station: Stations
) -> None:
    other = await station("S2")
    reserved = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    with pytest.raises(ImeiTaken):
        await other.reserve(new_run(), "1", imei(1), PRODUCT)
    await pass_time(store, 301)
    theirs = await other.reserve(new_run(), "1", imei(1), PRODUCT)
    with pytest.raises(LeaseLost):
        await store.registered(reserved, Secret("late"))
    claim = await other.registered(theirs, Secret("from-enos"))
    assert claim.secret == Secret("from-enos")


async def test_a_registered_identity_is_for_its_own_board_only(store: Store) -> None:
    reserved = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    await store.registered(reserved, Secret("from-enos"))
    await store.release(reserved)
    assert (await store.counts()).reserved == 1
    for board in range(2, PLENTY + 2):
        claim = await store.claim(new_run(), str(board), imei(board))
        assert claim.device_key != imei(1)
    with pytest.raises(PoolEmpty):
        await store.claim(new_run(), "x", imei(99))
    again = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    assert again.secret == Secret("from-enos")  # EnOS need not be asked


async def test_a_cut_registration_does_not_keep_the_board_from_the_pool(store: Store) -> None:
    await store.reserve(new_run(), "1", imei(1), PRODUCT)
    await pass_time(store, 301)
    claim = await store.claim(new_run(), "1", imei(1))
    assert claim.device_key == "dev0000"


async def test_another_secret_from_enos_for_a_given_identity_is_refused(store: Store) -> None:
    reserved = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    await store.registered(reserved, Secret("first"))
    claim = await store.registered(reserved, Secret("second"))  # not given yet: EnOS knows best
    await store.bind(claim, imei(1))
    with pytest.raises(StationError, match="another secret"):
        await store.registered(reserved, Secret("third"))


async def test_a_returned_registration_stays_returned(store: Store) -> None:
    reserved = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    claim = await store.bind(await store.registered(reserved, Secret("s")), imei(1))
    await store.release(claim)
    await store.give_back(imei(1), who="li", why="scrapped")
    with pytest.raises(ImeiTaken, match="returned"):
        await store.reserve(new_run(), "1", imei(1), PRODUCT)
