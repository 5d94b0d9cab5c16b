"""The radio side of one modem: search, registration, connection, power saving, data queue.

The order of events is that of capture bc68-magenta-public: CEREG 2, CSCON 1, CEREG 1 or 5,
CSCON 0, NPSMR 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .cells import Stat
from .clock import Handle
from .network import Network, Way
from .seam import Seam

SEARCHING, DENIED = 2, 3


@dataclass
class _Uplink:
    transmit: Callable[[], None]
    done: Callable[[bool], None]
    release: bool


def _ignore() -> None:
    return None


class Radio:
    """Registration and connection state; tells the modem through the `on_*` callables."""

    def __init__(
        self,
        network: Network,
        after: Callable[[float, Callable[[], None]], Handle],
        seam: Seam,
        now: Callable[[], float],
        name: str,
    ) -> None:
        self.network, self._after, self._seam, self._now = network, after, seam, now
        self._chance = {
            what: Random(f"{network.seed}:{name}:{what}") for what in ("up", "down", "attach")
        }
        self.on_stat: Callable[[], None] = _ignore
        self.on_rrc: Callable[[], None] = _ignore
        self.on_address: Callable[[], None] = _ignore
        self.on_psm: Callable[[], None] = _ignore
        self.power_saving = True
        """Does the modem ask for PSM (CPSMS=1)?"""
        self.bands: Callable[[], tuple[int, ...]] = tuple
        """Bands the modem may use; none or 0: all."""
        self.searching = False
        network.watchers.append(self._network_changed)
        self.reset()

    def reset(self) -> None:
        """As after power-up: off, nothing known. The owner cancels the timers."""
        self.on = False
        self.searching = False
        self.stat = 0
        self.cause = 0
        self.connected = False
        self.psm = False
        self.address: str | None = None
        self.cell_known = False
        self._timers: list[Handle] = []
        self._idle: Handle | None = None
        self._up: deque[_Uplink] = deque()
        self._down: deque[Callable[[], None]] = deque()
        self._kept: list[Callable[[], None]] = []
        self._idle_since = 0.0
        self._release_after_reply = False

    def close(self) -> None:
        if self._network_changed in self.network.watchers:
            self.network.watchers.remove(self._network_changed)

    @property
    def attached(self) -> bool:
        return self.stat in (1, 5)

    @property
    def queued(self) -> int:
        """Datagrams waiting for the radio."""
        return len(self._up)

    # -------------------------------------------------------- registration

    def switch_on(self) -> None:
        self.on = True

    def switch_off(self) -> None:
        self.detach()
        self.on = False
        self.cell_known = False

    def search(self) -> None:
        """Look for the network and register."""
        if self.on and not self.attached and not self.searching:
            self._search()

    def _search(self) -> None:
        self.searching = True
        self._set_stat(SEARCHING)
        if self._outcome() == "none":
            return
        spread = self._chance["attach"].uniform(0, self.network.attach_spread)
        delay = self._seam.attach_delay(self.network.attach_delay + spread)
        self._timers = [
            self._after(delay * 0.5, lambda: self._set_connected(True)),
            self._after(delay, self._registered),
        ]

    def _outcome(self) -> Stat:
        return self.network.outcome(self.bands())

    def _registered(self) -> None:
        self.searching = False
        stat, cause = self._seam.registration(self._outcome(), self.network.reject_cause)
        if stat == "none":
            self.searching = True
            self._set_connected(False)
            return
        self.cell_known = True
        if stat == "denied":
            self.cause = cause
            self._set_stat(DENIED)
            self._set_connected(False)
            return
        self._set_stat(stat)
        self.address = self.network.take_address()
        self.on_address()
        self.activity()

    def already_attached(self) -> None:
        """Be registered and idle since long ago, without telling."""
        self.on = True
        self.cell_known = True
        self.stat = 5 if self.network.stat == 5 else 1
        self.address = self.network.take_address()

    def detach(self) -> None:
        """Leave the network or stop the search."""
        self._stop()
        self._set_connected(False)
        self._set_stat(0)

    def _stop(self) -> None:
        for timer in [*self._timers, *([self._idle] if self._idle else [])]:
            timer.cancel()
        self._timers, self._idle = [], None
        self.searching = False
        self.address = None
        self.cause = 0
        self._kept.clear()
        self._leave_psm()
        lost, self._up = self._up, deque()
        for uplink in lost:
            uplink.done(False)

    def _network_changed(self) -> None:
        """Coverage or admission changed under a modem that is on."""
        if not self.on or self.stat == 0:
            return
        outcome = self._outcome()
        if self.attached and outcome == self.stat:
            return
        if self.attached and outcome in (1, 5):
            self._set_stat(int(outcome))
            return
        self._stop()
        self._set_connected(False)
        self._search()

    def _set_stat(self, stat: int) -> None:
        if stat != self.stat:
            self.stat = stat
            self.on_stat()

    # ---------------------------------------------------------- connection

    def activity(self) -> None:
        """Traffic: leave power saving, connect, start the idle timer again."""
        self._leave_psm()
        self._set_connected(True)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self.network.rrc_idle is not None:
            self._idle = self._after(self.network.rrc_idle, self.release)

    def release(self) -> None:
        """The network releases the connection."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._set_connected(False)
        self._idle_since = self._now()
        if self.network.active_time is not None and self.power_saving and self.attached:
            self._idle = self._after(self.network.active_time, self._enter_psm)

    def _set_connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self.on_rrc()

    def _enter_psm(self) -> None:
        self._idle = None
        self.psm = True
        self.on_psm()
        if self.network.tau is not None:
            slept_already = self.network.active_time or 0.0
            self._idle = self._after(max(self.network.tau - slept_already, 0.0), self.activity)

    def _leave_psm(self) -> None:
        if self.psm:
            self.psm = False
            self.on_psm()
            kept, self._kept = self._kept, []
            for deliver in kept:
                self._page(deliver)

    # ---------------------------------------------------------------- data

    def send(
        self,
        transmit: Callable[[], None],
        done: Callable[[bool], None],
        release: str = "",
    ) -> bool:
        """Queue one datagram; False when the queue is full.

        `done` gets whether it went over the air. `release`: "now" releases the connection
        after it, "reply" after the next downlink (release assistance).
        """
        if len(self._up) >= self.network.uplink_queue or self._seam.uplink_busy():
            return False
        self._release_after_reply = release == "reply"
        self._up.append(_Uplink(transmit, done, release == "now"))
        self.activity()
        self._after(self.network.delay("up", self._chance["up"]), self._transmit)
        return True

    def _transmit(self) -> None:
        if not self._up:
            return
        uplink = self._up.popleft()
        self.activity()
        uplink.transmit()
        uplink.done(True)
        if uplink.release:
            self.release()

    def lost(self, way: Way, data: bytes) -> bool:
        """Does the air swallow this datagram?"""
        lose = self.network.lose
        return lose is not None and lose(way, data)

    def carry(self, way: Way, pass_on: Callable[[], None]) -> None:
        """A datagram is on the air: it may get lost, doubled or late."""
        air, chance = self.network.air(way), self._chance[way]
        if air.calm:
            pass_on()
            return
        if chance.random() < air.loss:
            return
        for _ in range(1 + (chance.random() < air.duplicate)):
            if chance.random() < air.reorder:
                self._after(air.hold, pass_on)
            else:
                pass_on()

    def downlink(self, data: bytes, deliver: Callable[[], None]) -> None:
        """A datagram reached the network: bring it to the modem, if it can be reached."""
        if not self.attached or self.lost("down", data):
            return
        if not self.psm:
            self._page(deliver)
        elif len(self._kept) < self.network.buffer:
            self._kept.append(deliver)

    def _page(self, deliver: Callable[[], None]) -> None:
        self._down.append(deliver)
        delay = self.network.delay("down", self._chance["down"])
        self._after(delay + self._until_window(), self._arrive)

    def _until_window(self) -> float:
        """How long until an idle modem listens, s."""
        cycle = self.network.edrx_cycle
        if cycle is None or self.connected:
            return 0.0
        phase = (self._now() - self._idle_since) % cycle
        return 0.0 if phase < self.network.paging_window else cycle - phase

    def _arrive(self) -> None:
        deliver = self._down.popleft()
        if not self.attached:
            return
        self.activity()
        deliver()
        if self._release_after_reply:
            self._release_after_reply = False
            self.release()
