"""BC95 and BC95-G: what the facts say beside the captures."""

from __future__ import annotations

from typing import Any

import pytest

from hil.emulator import Network, Signal

PEER = ("192.0.2.1", 7)
OK = b"\r\nOK\r\n"


def opened(
    make_bench: Any, model: str = "bc95-g", network: Network | None = None, **more: Any
) -> Any:
    """A bench with one UDP socket (its id: `bench.id`) and an echo peer."""
    bench = make_bench(model, network, cmee=1, **more)
    bench.echo_peer()
    bench.id = int(bench.lines("AT+NSOCR=DGRAM,17,0,1")[0])
    return bench


def cme(code: int) -> bytes:
    return f"\r\n+CME ERROR: {code}\r\n".encode()


# ------------------------------------------------------------------- sockets


@pytest.mark.parametrize(("model", "ids"), [("bc95", range(7)), ("bc95-g", range(1, 7))])
def test_socket_ids_and_their_number(make_bench: Any, model: str, ids: range) -> None:
    bench = make_bench(model)
    for ident in ids:
        assert bench.lines("AT+NSOCR=DGRAM,17,0,1") == [str(ident), "OK"]
    assert bench.lines("AT+NSOCR=DGRAM,17,0,1") == ["ERROR"]
    bench.ask(f"AT+NSOCL={ids[2]}")
    assert bench.lines("AT+NSOCR=DGRAM,17,0,1") == [str(ids[2]), "OK"]


@pytest.mark.parametrize(
    "arguments",
    [
        "DGRAM,17,5683,1",
        "DGRAM,6,0,1",
        "DGRAM,17,65536,1",
        '"DGRAM",17,0,1',
        "DGRAM,17",
        "X,17,0,1",
    ],
)
def test_bad_sockets_are_refused(make_bench: Any, arguments: str) -> None:
    assert make_bench("bc95", cmee=1).ask(f"AT+NSOCR={arguments}") == cme(50)


def test_a_port_can_be_used_once(make_bench: Any) -> None:
    bench = make_bench("bc95")
    assert bench.lines("AT+NSOCR=DGRAM,17,4587,1")[-1] == "OK"
    assert bench.lines("AT+NSOCR=DGRAM,17,4587,1") == ["ERROR"]
    bench.ask("AT+NSOCL=0")
    assert bench.lines("AT+NSOCR=DGRAM,17,4587,1")[-1] == "OK"


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("3,6162", 50),  # length is not that of the data
        ("1,6", 50),
        ("1,GG", 50),
        ('1,"61"', 50),  # quoted hex: mbed-os#14918
        ("1359," + "00" * 1359, 50),
        ("1,61,0", 50),
        ("1,61,256", 50),
        ("0,", 50),
    ],
)
def test_bad_datagrams_are_refused(make_bench: Any, tail: str, code: int) -> None:
    assert opened(make_bench).ask(f"AT+NSOST=1,192.0.2.1,7,{tail}") == cme(code)


def test_v100_has_512_bytes_and_no_sequence_numbers(make_bench: Any) -> None:
    bench = opened(make_bench, "bc95")
    assert bench.ask(f"AT+NSOST=0,192.0.2.1,7,513,{'00' * 513}") == cme(50)
    assert bench.ask("AT+NSOST=0,192.0.2.1,7,1,61,5") == cme(50)
    assert bench.lines("AT+NSONMI?") == ["ERROR"]
    assert bench.lines("AT+QDNS=0,localhost") == ["ERROR"]
    assert bench.lines("AT+QREGSWT=2") == ["ERROR"]


def test_names_are_not_addresses(make_bench: Any) -> None:
    assert opened(make_bench).ask("AT+NSOST=1,localhost,7,1,61") == cme(50)


def test_unknown_sockets(make_bench: Any) -> None:
    for model, code in (("bc95", 4), ("bc95-g", 530)):
        bench = make_bench(model, cmee=1)
        for command in ("AT+NSOCL=5", "AT+NSORF=5,1", "AT+NSOST=5,192.0.2.1,7,1,61"):
            assert bench.ask(command) == cme(code)


def test_sending_needs_the_network(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask("AT+CGATT=0")
    assert bench.ask("AT+NSOST=1,192.0.2.1,7,1,61") == cme(30)


def test_a_datagram_goes_out_and_its_status_follows(make_bench: Any) -> None:
    bench = opened(make_bench, network=Network(latency=0.7))
    bench.wire.peers.clear()
    assert bench.ask("AT+NSOST=1,192.0.2.1,7,2,aBcD,9") == b"\r\n1,2\r\n" + OK
    assert bench.wire.sent == []
    assert bench.wait(0.7) == b"\r\n+NSOSTR:1,9,1\r\n"
    assert bench.wire.sent == [(PEER, b"\xab\xcd")]


def test_a_sequence_in_flight_cannot_be_repeated(make_bench: Any) -> None:
    bench = opened(make_bench, network=Network(latency=1.0))
    bench.ask("AT+NSOST=1,192.0.2.1,7,1,61,9")
    assert bench.ask("AT+NSOST=1,192.0.2.1,7,1,61,9") == cme(525)
    assert bench.lines("AT+NQSOS=1") == ["+NQSOS:1,9", "OK"]
    bench.wait(1.0)
    assert bench.lines("AT+NSOST=1,192.0.2.1,7,1,61,9")[-1] == "OK"


def test_a_full_uplink_queue_is_busy(make_bench: Any) -> None:
    bench = opened(make_bench, network=Network(latency=5.0, uplink_queue=2))
    answers = [bench.ask("AT+NSOST=1,192.0.2.1,7,1,61") for _ in range(3)]
    assert answers[2] == cme(159)
    bench.wait(5.0)
    assert bench.lines("AT+NSOST=1,192.0.2.1,7,1,61")[-1] == "OK"


def test_lost_coverage_fails_what_was_queued(make_bench: Any) -> None:
    bench = opened(make_bench, network=Network(latency=5.0))
    bench.ask("AT+NSOST=1,192.0.2.1,7,1,61,3")
    bench.network.change("none")
    assert bench.take() == b"\r\n+NSOSTR:1,3,0\r\n"
    assert bench.wire.sent == []


def test_the_air_may_lose_datagrams(make_bench: Any) -> None:
    lost: list[str] = []

    def lose(way: str, data: bytes) -> bool:
        lost.append(way)
        return True

    bench = opened(make_bench, network=Network(lose=lose))
    bench.ask("AT+NSOST=1,192.0.2.1,7,1,61", 1.0)
    assert (lost, bench.wire.sent) == (["up"], [])


def test_one_announcement_until_the_datagram_is_read(make_bench: Any) -> None:
    bench = opened(make_bench)
    for data in (b"abc", b"de"):
        bench.wire.inject(data, PEER)
    assert bench.wait(1.0) == b"\r\n+NSONMI:1,3\r\n"
    assert bench.lines("AT+NSORF=1,2") == ["1,192.0.2.1,7,2,6162,1", "OK"]
    assert bench.lines("AT+NSORF=1,99") == ["1,192.0.2.1,7,1,63,0", "OK", "+NSONMI:1,2"]
    assert bench.lines("AT+NSORF=1,99") == ["1,192.0.2.1,7,2,6465,0", "OK"]
    assert bench.ask("AT+NSORF=1,99") == OK


def test_the_next_announcement_may_come_before_the_data(make_bench: Any) -> None:
    bench = opened(make_bench, early_urcs=True)
    for data in (b"abc", b"de"):
        bench.wire.inject(data, PEER)
    bench.wait(1.0)
    assert bench.lines("AT+NSORF=1,99") == ["+NSONMI:1,2", "1,192.0.2.1,7,3,616263,0", "OK"]


def test_the_newest_datagram_is_dropped_when_the_buffer_is_full(make_bench: Any) -> None:
    bench = opened(make_bench, "bc95")
    for number in range(6):
        bench.wire.inject(bytes([number]) * 500, PEER)
    bench.wait(1.0)
    read = [bench.lines("AT+NSORF=0,512")[0] for _ in range(5)]
    assert [line.split(",")[4][:2] for line in read[:4]] == ["00", "01", "02", "03"]
    assert read[4] == "OK"


def test_a_socket_made_not_to_receive_hears_nothing(make_bench: Any) -> None:
    bench = make_bench("bc95")
    bench.ask("AT+NSOCR=DGRAM,17,0,0")
    bench.wire.inject(b"x", PEER)
    assert bench.wait(1.0) == b""


@pytest.mark.parametrize(
    ("mode", "urc"),
    [
        (0, b""),
        (1, b"\r\n+NSONMI:1,2\r\n"),
        (2, b"\r\n+NSONMI:1,192.0.2.1,7,2,6869\r\n"),
        (3, b"\r\n+NSONMI:1,2,6869\r\n"),
    ],
)
def test_nsonmi_modes(make_bench: Any, mode: int, urc: bytes) -> None:
    bench = opened(make_bench)
    assert bench.ask(f"AT+NSONMI={mode}") == OK
    assert bench.lines("AT+NSONMI?") == [f"+NSONMI:{mode}", "OK"]
    bench.wire.inject(b"hi", PEER)
    assert bench.wait(1.0) == urc
    kept = bench.ask("AT+NSORF=1,9") != OK
    assert kept == (mode < 2)


def test_closing_forgets_what_was_not_read(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.wire.inject(b"x", PEER)
    bench.ask("AT+NSOCL=1", 1.0)
    assert bench.lines("AT+NSOCR=DGRAM,17,0,1") == ["1", "OK"]
    assert bench.ask("AT+NSORF=1,9") == OK


def test_release_assistance_ends_the_connection(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.wire.peers.clear()
    bench.ask("AT+CSCON=1")
    assert bench.lines("AT+NSOSTF=1,192.0.2.1,7,0x200,1,61", 1.0)[-2:] == ["+CSCON:1", "+CSCON:0"]
    bench.echo_peer()
    text = bench.lines("AT+NSOSTF=1,192.0.2.1,7,0x400,1,61", 1.0)
    assert text[-3:] == ["+CSCON:1", "+NSONMI:1,1", "+CSCON:0"]
    assert bench.ask("AT+NSOSTF=1,192.0.2.1,7,200,1,61") == cme(50)


# -------------------------------------------------------------- registration


def test_attach_timeline(make_bench: Any) -> None:
    network = Network(stat=5, attach_delay=4.0, rrc_idle=10.0, active_time=2.0)
    bench = make_bench("bc68", network, attached=False, autoconnect=False)
    for command in ("AT+CEREG=1", "AT+CSCON=1", "AT+NPSMR=1"):
        bench.ask(command)
    assert bench.ask("AT+CFUN=1", 1.0) == b"\r\n+CEREG:0\r\n" + OK
    assert bench.lines("AT+CGATT=1") == ["OK", "+CEREG:2"]
    assert bench.lines("AT+CGATT?") == ["+CGATT:0", "OK"]
    assert bench.ask("AT+CGATT=1") == b"\r\nERROR\r\n"  # one is running
    assert bench.wait(2.0) == b"\r\n+CSCON:1\r\n"
    assert bench.wait(2.0) == b"\r\n+CEREG:5\r\n"
    assert bench.wait(10.0) == b"\r\n+CSCON:0\r\n"
    assert bench.wait(2.0) == b"\r\n+NPSMR:1\r\n"
    assert bench.lines("AT+CGPADDR") == ["+CGPADDR:0,10.0.0.7", "OK"]


def test_autoconnect_attaches_after_a_boot(make_bench: Any) -> None:
    bench = make_bench("bc95", attached=False)
    assert bench.lines("AT+CFUN?") == ["+CFUN:0", "OK"]
    bench.ask("AT+NRB", 20.0)
    assert bench.lines("AT+CEREG?") == ["+CEREG:0,1", "OK"]
    bench.ask("AT+NCONFIG=AUTOCONNECT,FALSE")
    bench.ask("AT+NRB", 20.0)
    assert bench.lines("AT+CFUN?") == ["+CFUN:0", "OK"]
    assert bench.lines("AT+CGDCONT?") == ["OK"]


@pytest.mark.parametrize(
    ("level", "read"),
    [
        (0, "+CEREG:0,1"),
        (1, "+CEREG:1,1"),
        (2, "+CEREG:2,1,7871,0D09F951,9"),
        (3, "+CEREG:3,1,7871,0D09F951,9,,"),
        (4, "+CEREG:4,1,7871,0D09F951,9,,,,"),
        (5, "+CEREG:5,1,7871,0D09F951,9,,,,"),
    ],
)
def test_cereg_levels(make_bench: Any, level: int, read: str) -> None:
    bench = make_bench("bc95")
    bench.ask(f"AT+CEREG={level}")
    assert bench.lines("AT+CEREG?") == [read, "OK"]


def test_denied_registration_tells_its_cause(make_bench: Any) -> None:
    bench = make_bench("bc95-g", Network(stat="denied", reject_cause=11), attached=False)
    bench.ask("AT+CEREG=5")
    bench.ask("AT+CFUN=1", 20.0)
    assert bench.lines("AT+CEREG?") == ["+CEREG:5,3,7871,0D09F951,9,0,11,,", "OK"]


def test_no_coverage(make_bench: Any) -> None:
    bench = make_bench("bc95", Network(stat="none"), attached=False)
    bench.ask("AT+CFUN=1", 300.0)
    assert bench.lines("AT+CEREG?") == ["+CEREG:0,2", "OK"]
    assert bench.lines("AT+CSQ") == ["+CSQ:99,99", "OK"]
    assert "Signal power:-32768" in bench.lines("AT+NUESTATS")
    bench.network.change(1)
    assert bench.ask("AT+CEREG?", 20.0) is not None
    assert bench.lines("AT+CEREG?") == ["+CEREG:0,1", "OK"]


def test_coverage_lost_and_found(make_bench: Any) -> None:
    bench = make_bench("bc95")
    bench.ask("AT+CEREG=1")
    bench.network.change("none")
    assert bench.take() == b"\r\n+CEREG:2\r\n"
    bench.network.change(5)
    assert bench.wait(5.0) == b"\r\n+CEREG:5\r\n"


def test_cimi_is_late_after_cfun(make_bench: Any) -> None:
    bench = make_bench("bc95", attached=False, autoconnect=False)
    assert bench.lines("AT+CFUN=1", 1.0) == ["OK"]
    assert bench.lines("AT+CIMI") == ["ERROR"]
    bench.wait(4.0)
    assert bench.lines("AT+CIMI") == ["460043193006443", "OK"]


def test_sim_faults(make_bench: Any) -> None:
    bench = make_bench("bc95-g", attached=False, sim="absent", cmee=1)
    assert bench.ask("AT+CFUN=1") == cme(10)
    assert bench.ask("AT+NCCID") == OK
    bench = make_bench("bc95-g", attached=False, sim="pin", cmee=1)
    assert bench.lines("AT+CFUN=1", 1.0) == ["OK", "+NUSIM: PIN REQUIRED"]
    assert bench.ask("AT+CIMI") == cme(11)
    assert bench.lines("AT+CGATT=1", 60.0) == ["OK"]
    assert bench.lines("AT+CGATT?") == ["+CGATT:0", "OK"]


# ------------------------------------------------------------------- memory


def test_a_reboot_keeps_nv_settings_and_loses_the_rest(make_bench: Any) -> None:
    bench = make_bench("bc95-g", attached=False)
    for command in (
        "AT+NCONFIG=AUTOCONNECT,FALSE",
        "AT+NBAND=8,20",
        "AT+QREGSWT=2",
        "AT+NCDP=192.0.2.5",
        "AT+CMEE=1",
        "AT+CEREG=5",
        "AT+CSCON=1",
        "AT+NSONMI=2",
        "AT+NSOCR=DGRAM,17,0,1",
    ):
        assert bench.lines(command)[-1] == "OK"
    bench.ask("AT+NRB", 20.0)
    assert bench.lines("AT+NCONFIG?")[0] == "+NCONFIG:AUTOCONNECT,FALSE"
    assert bench.lines("AT+NBAND?")[0] == "+NBAND:8,20"
    assert bench.lines("AT+QREGSWT?")[0] == "+QREGSWT:2"
    assert bench.lines("AT+NCDP?")[0] == "+NCDP:192.0.2.5,5683"
    assert bench.lines("AT+CMEE?")[0] == "+CMEE:0"
    assert bench.lines("AT+CEREG?")[0] == "+CEREG:0,0"
    assert bench.lines("AT+CSCON?")[0] == "+CSCON:0,0"
    assert bench.lines("AT+NSONMI?")[0] == "+NSONMI:1"
    assert bench.lines("AT+NSOCL=1") == ["ERROR"]


def test_a_spontaneous_reboot_interrupts_a_command(make_bench: Any) -> None:
    bench = make_bench("bc95-g", turnaround=1.0)
    bench.ask("AT+CSQ")
    bench.modem.reboot("APPLICATION_WATCHDOG")
    text = bench.wait(10.0)
    assert b"+CSQ" not in text
    assert b"\r\nREBOOT_CAUSE_APPLICATION_WATCHDOG\r\n\r\nNeul \r\n\r\nOK\r\n" in text


def test_context_zero_is_the_modems_own_with_autoconnect(make_bench: Any) -> None:
    bench = make_bench("bc95-g", attached=False)
    assert bench.lines('AT+CGDCONT=0,"IP","x"') == ["ERROR"]
    bench.ask('AT+CGDCONT=1,"IP","ctnb"')
    assert bench.ask("AT+CGPADDR") == b"\r\n+CGPADDR:1\r\nOK\r\n"
    bench.ask("AT+CFUN=1", 20.0)
    assert bench.ask("AT+CGPADDR") == b"\r\n+CGPADDR:0,10.0.0.7\r\n+CGPADDR:1\r\nOK\r\n"


def test_nband_needs_the_radio_off(make_bench: Any) -> None:
    bench = make_bench("bc95-g")
    assert bench.lines("AT+NBAND=8") == ["ERROR"]
    assert bench.lines("AT+CFUN=0") == ["OK"]
    assert bench.lines("AT+NBAND=8") == ["OK"]
    assert bench.lines("AT+NBAND=99") == ["ERROR"]


def test_blanks_around_parameters_do_not_count(make_bench: Any) -> None:
    bench = make_bench("bc68")
    assert bench.lines("AT+NSOCR= DGRAM, 17 ,0 , 1") == ["1", "OK"]


# ------------------------------------------------------------------ the rest


def test_ping(make_bench: Any) -> None:
    bench = make_bench("bc95", Network(ping={"192.0.2.66": None}))
    assert bench.lines("AT+NPING=192.0.2.1", 0.9) == ["OK"]
    assert bench.wait(0.1) == b"\r\n+NPING:192.0.2.1,54,962\r\n"
    assert bench.lines("AT+NPING=192.0.2.66,12,500", 0.4) == ["OK"]
    assert bench.wait(0.2) == b"\r\n+NPINGERR:1\r\n"


def test_dns_answers_after_ok(make_bench: Any) -> None:
    bench = make_bench("bc95-g", Network(dns={"iot.example": "192.0.2.8"}))
    assert bench.ask("AT+QDNS=0,iot.example") == OK
    assert bench.wait(1.0) == b"\r\n+QDNS:192.0.2.8\r\n"
    assert bench.lines('AT+QDNS=0,"localhost"', 1.0) == ["OK", "+QDNS:127.0.0.1"]
    assert bench.lines("AT+QDNS=0,nowhere.example", 1.0) == ["OK", "+QDNS:FAIL"]


def test_signal_numbers(make_bench: Any) -> None:
    for total, csq in ((-761, 18), (-625, 25), (-1200, 0), (-400, 31)):
        bench = make_bench("bc95", Network(signal=Signal(total=total)))
        assert bench.lines("AT+CSQ") == [f"+CSQ:{csq},99", "OK"]


def test_power_saving_settings(make_bench: Any) -> None:
    bench = make_bench("bc95")
    assert bench.ask('AT+CPSMS=1,,,"01000011","01000011"') == OK
    assert bench.lines("AT+CPSMS?") == ["+CPSMS:1,,,01000011,01000011", "OK"]
    assert bench.lines('AT+CPSMS=1,,,"0100001"') == ["ERROR"]
    assert bench.ask('AT+CEDRXS=1,5,"0101"') == OK
    assert bench.lines("AT+CEDRXS?") == ['+CEDRXS:5,"0101"', "OK"]


def test_clock_is_empty_until_attached(make_bench: Any) -> None:
    bench = make_bench("bc95", attached=False)
    assert bench.ask("AT+CCLK?") == OK


def test_platform_messages_need_a_server(make_bench: Any) -> None:
    bench = make_bench("bc95", cmee=1)
    assert bench.ask("AT+NMGS=1,00") == cme(512)
    bench.ask("AT+NCDP=192.0.2.5")
    assert bench.ask("AT+NMGS=1,00") == OK
    assert bench.ask("AT+NMGS=2,00") == cme(50)
    bench.ask("AT+CGATT=0")
    assert bench.ask("AT+NMGS=1,00") == cme(513)
    bench.modem.platform_message(b"\xaa\xbb")
    assert bench.lines("AT+NMGR") == ["2,AABB", "OK"]
    assert bench.ask("AT+NMGR") == OK


def test_attach_can_be_made_to_wait_for_the_sim(make_bench: Any) -> None:
    bench = make_bench("bc95", attached=False, autoconnect=False, strict_sim=True)
    bench.ask("AT+CFUN=1", 1.0)
    assert bench.lines("AT+CGATT=1") == ["ERROR"]
    bench.wait(4.0)
    assert bench.lines("AT+CGATT=1") == ["OK"]
