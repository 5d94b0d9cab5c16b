"""No more than 4 authentications of a device in 2 minutes, whoever asks for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.enos import AuthLimit
from nbiot.enos.limits import LIMIT, WINDOW, state_folder
from nbiot.errors import RateLimited

ONE = ("coap-abc.def.com:5683", "KV315idW", "tPbZGCdmaE")
OTHERS = [("other:5683", *ONE[1:]), (ONE[0], "KV315idX", ONE[2]), (*ONE[:2], "tPbZGCdmaF")]


class Clock:
    """Time which passes when told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "file" else None


@pytest.fixture
def limit(folder: Path | None, clock: Clock) -> AuthLimit:
    return AuthLimit(folder, clock=clock)


def take(limit: AuthLimit, times: int = LIMIT) -> None:
    for _ in range(times):
        limit.take(ONE)


def wait_of(limit: AuthLimit) -> float:
    """How long the next one has to wait; 0 if it was taken."""
    try:
        limit.take(ONE)
    except RateLimited as error:
        return error.wait
    return 0.0


def file_of(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


# --- the rule -----------------------------------------------------------------------------------


def test_the_limits_are_those_of_enos() -> None:
    assert (LIMIT, WINDOW) == (4, 120.0)


def test_the_fifth_within_two_minutes_has_to_wait(limit: AuthLimit, clock: Clock) -> None:
    for _ in range(4):
        limit.take(ONE)
        clock.now += 10
    with pytest.raises(RateLimited) as caught:
        limit.take(ONE)
    assert caught.value.wait == pytest.approx(80.0)
    assert "in 80 s" in caught.value.message
    assert "five minutes" in caught.value.hint
    assert caught.value.exit_code == 52


def test_after_the_wait_it_is_allowed(limit: AuthLimit, clock: Clock) -> None:
    take(limit)
    clock.now += wait_of(limit)
    limit.take(ONE)


def test_a_refused_one_does_not_count(limit: AuthLimit, clock: Clock) -> None:
    take(limit)
    assert [wait_of(limit) for _ in range(3)] == [120.0] * 3
    clock.now += 120
    take(limit)
    assert wait_of(limit) == 120.0


def test_the_wait_is_never_told_as_nothing(limit: AuthLimit, clock: Clock) -> None:
    take(limit)
    clock.now += 119.9
    with pytest.raises(RateLimited, match="in 1 s"):
        limit.take(ONE)


def test_other_devices_are_not_touched(limit: AuthLimit) -> None:
    take(limit)
    for other in OTHERS:
        limit.take(other)


@given(st.lists(st.floats(0, 90), min_size=1, max_size=60))
def test_no_window_of_two_minutes_ever_holds_five(pauses: list[float]) -> None:
    clock, taken = Clock(), list[float]()
    limit = AuthLimit(clock=clock)
    for pause in pauses:
        clock.now += pause
        wait = wait_of(limit)
        assert 0 <= wait <= WINDOW
        if wait == 0:
            taken.append(clock.now)
    assert all(later - earlier >= WINDOW for earlier, later in zip(taken, taken[4:], strict=False))


# --- clocks that jump ---------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1.0, 3600.0, 1e9])
def test_a_clock_that_was_set_back_neither_forgets_nor_locks_out(
    limit: AuthLimit, clock: Clock, jump: float
) -> None:
    take(limit)
    clock.now -= jump
    assert wait_of(limit) == pytest.approx(120.0)
    for _ in range(3):  # asking again and again does not prolong it
        clock.now += 35
        assert wait_of(limit) > 0
    clock.now += 20
    limit.take(ONE)


def test_a_clock_that_was_set_forward_lets_through(limit: AuthLimit, clock: Clock) -> None:
    take(limit)
    clock.now += 1e9
    take(limit)


# --- the file -----------------------------------------------------------------------------------


def test_file_and_folder_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "nbiot"
        AuthLimit(folder).take(ONE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(folder).stat().st_mode) == 0o600


def test_the_file_does_not_name_the_device(tmp_path: Path) -> None:
    AuthLimit(tmp_path).take(ONE)
    shown = file_of(tmp_path).name + file_of(tmp_path).read_text()
    assert not any(part in shown for part in ONE)


def test_another_object_goes_on_counting(tmp_path: Path, clock: Clock) -> None:
    for _ in range(4):
        AuthLimit(tmp_path, clock=clock).take(ONE)
    with pytest.raises(RateLimited):
        AuthLimit(tmp_path, clock=clock).take(ONE)


@pytest.mark.parametrize(
    "content",
    [
        *[
            b"",
            b"[",
            b"null",
            b"{}",
            b"7",
            b'"x"',
            b"true",
            b"[1, 2",
            b"\xff\xfe\x00",
            b"\x00" * 64,
        ],
        *[b"[null, true, [], {}]", b'["1", "2", "3", "4"]', b"[NaN, Infinity, -Infinity, 1e999]"],
        *[b"[1" + b"0" * 400 + b"]", b"[" * 4000, b"[-1, -2, -3, -4]", bytes(range(256))],
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_a_spoiled_file_is_an_empty_one(tmp_path: Path, clock: Clock, content: bytes) -> None:
    AuthLimit(tmp_path, clock=clock).take(ONE)
    file_of(tmp_path).write_bytes(content)
    for _ in range(4):
        AuthLimit(tmp_path, clock=clock).take(ONE)
    assert json.loads(file_of(tmp_path).read_text()) == [clock.now] * 4
    assert wait_of(AuthLimit(tmp_path, clock=clock)) == 120.0


def test_a_file_with_times_to_come_ends_its_effect_after_the_window(
    tmp_path: Path, clock: Clock
) -> None:
    AuthLimit(tmp_path, clock=clock).take(ONE)
    file_of(tmp_path).write_text(json.dumps([clock.now + 1e6] * 50))
    assert wait_of(AuthLimit(tmp_path, clock=clock)) == 120.0
    clock.now += 120.0
    take(AuthLimit(tmp_path, clock=clock))


def test_a_folder_that_cannot_be_made_leaves_the_count_of_this_process(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "file").write_text("")
    limit = AuthLimit(tmp_path / "file" / "nbiot", clock=clock)
    take(limit)
    assert wait_of(limit) == 120.0


def test_a_full_disk_leaves_the_count_of_this_process(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    limit = AuthLimit(tmp_path, clock=clock)
    monkeypatch.setattr("nbiot.enos.limits.os.pwrite", full)
    take(limit)
    assert wait_of(limit) == 120.0


def test_no_file_descriptor_stays_open(tmp_path: Path, clock: Clock) -> None:
    limit = AuthLimit(tmp_path, clock=clock)
    take(limit)
    before = len(os.listdir("/proc/self/fd"))
    assert all(wait_of(limit) > 0 for _ in range(5))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_together_take_four(folder: Path | None, clock: Clock) -> None:
    limit = AuthLimit(folder, clock=clock)
    together = threading.Barrier(8)
    taken: list[int] = []

    def work() -> None:
        for _ in range(20):
            if together.wait() == 0:
                clock.now += WINDOW
            together.wait()
            taken.extend(1 for _ in range(2) if wait_of(limit) == 0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 20 * LIMIT


PROCESS = """
import sys
from pathlib import Path
from nbiot.enos import AuthLimit
from nbiot.errors import RateLimited

limit, taken = AuthLimit(Path(sys.argv[1])), 0
sys.stdin.readline()
for _ in range(200):
    try:
        limit.take(("server", "pk", "dk"))
        taken += 1
    except RateLimited as error:
        assert 0 < error.wait <= 120, error.wait
print(taken)
"""


def test_processes_together_take_four(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "new" / "folder")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=20)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(counts) == LIMIT


# --- where the state is -------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", "relative/path"])
def test_the_state_is_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", base)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "nbiot"


def test_the_state_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "nbiot"
