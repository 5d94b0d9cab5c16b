"""BC66 family: what the facts say beside the captures."""

from __future__ import annotations

from typing import Any

import pytest

from hil.emulator import Network

PEER = ("192.0.2.1", 7)
OK = b"\r\nOK\r\n"
ERROR = b"\r\nERROR\r\n"
IP = "+IP: 10.0.0.7"


def ready(make: Any, network: Network | None = None, model: str = "bc66", **more: Any) -> Any:
    """A bench without echo, with an echo peer."""
    bench = make(model, network, echo=False, **more)
    bench.echo_peer()
    return bench


def opened(make: Any, network: Network | None = None, tail: str = "", **more: Any) -> Any:
    """The same with socket 0 open."""
    bench = ready(make, network, **more)
    text = bench.ask(f'AT+QIOPEN=1,0,"UDP","192.0.2.1",7{tail}', 1.0)
    assert text == OK + b"\r\n+QIOPEN: 0,0\r\n"
    return bench


# ---------------------------------------------------------------------- send


@pytest.mark.parametrize(
    ("pieces", "data"),
    [
        ([b"AT+QISEND=0,5,hello\r"], b"hello"),
        ([b'AT+QISEND=0,5,"hello"\r'], b"hello"),
        ([b'AT+QISEND=0,5,a,b"c\r'], b'a,b"c'),
        ([b"AT+QISEND=0,3,a;b\r"], b"a;b"),
        ([b"AT+QISENDEX=0,3,00fF41\r"], b"\x00\xffA"),
        ([b'AT+QISENDEX=0,3,"00FF41"\r'], b"\x00\xffA"),
        ([b"AT+QISEND=0,4\r", b"\r\n\x1a\x1b"], b"\r\n\x1a\x1b"),
        ([b"AT+QISEND=0,4\r", b"ab", b"cd"], b"abcd"),
        ([b"AT+QISEND=0\r", b"AT\r\n", b"x\x1a"], b"AT\r\nx"),
    ],
)
def test_every_way_to_send(make_bench: Any, pieces: list[bytes], data: bytes) -> None:
    bench = opened(make_bench)
    answers = [bench.ask(piece) for piece in pieces]
    if len(pieces) > 1:
        assert answers[0] == b"\r\n>"
    assert answers[-1] == OK
    late = bench.wait(1.0)
    assert late.endswith(b"\r\nSEND OK\r\n")
    assert bench.wire.sent == [(PEER, data)]
    assert f'+QIURC: "recv",0,{len(data)}\r\n'.encode() + data in late


@pytest.mark.parametrize("echo", [False, True])
def test_nothing_of_the_data_is_read_as_a_command(make_bench: Any, echo: bool) -> None:
    """Data that ends its command must be gone before the next line is read (0xDF: upper-cased it
    becomes two characters, which once moved the beginning of the next command).
    """
    bench = opened(make_bench)
    bench.modem.echo = echo
    every = bytes(range(256))
    bench.ask(b"AT+QISEND=0,256\r")
    assert every not in bench.ask(every, 1.0).replace(b"recv", b"", 1).split(b"+QIURC")[0]
    assert bench.wire.sent == [(PEER, every)]
    assert bench.ask("AT+QICLOSE=0", 1.0).endswith(b"\r\nCLOSE OK\r\n")


def test_send_ok_comes_50_ms_after_ok(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.wire.peers.clear()
    assert bench.ask("AT+QISEND=0,1,x", 0.04) == OK
    assert bench.wait(0.02) == b"\r\nSEND OK\r\n"


def test_escape_cancels(make_bench: Any) -> None:
    bench = opened(make_bench)
    assert bench.ask("AT+QISEND=0") == b"\r\n>"
    assert bench.ask(b"abc\x1b", 1.0) == OK
    assert bench.wire.sent == []
    assert bench.ask("AT") == OK


def test_urcs_wait_for_the_end_of_the_data(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask("AT+QISEND=0,3")
    bench.wire.inject(b"down", PEER)
    assert bench.wait(1.0) == b""
    assert bench.ask(b"abc", 1.0).startswith(OK + b'\r\n+QIURC: "recv",0,4\r\ndown\r\n')


def test_a_ctrl_z_after_fixed_data_is_ignored(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask("AT+QISEND=0,2")
    bench.ask(b"hi\x1a", 1.0)
    assert bench.ask("AT") == OK


def test_sent_bytes_are_counted(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask("AT+QISEND=0,5,hello", 1.0)
    assert bench.lines("AT+QISEND=0,0") == ["+QISEND: 5,5,0", "OK"]


def test_data_echo_follows_echomode_not_ate(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask('AT+QICFG="echomode",1')
    bench.ask("AT+QISEND=0,2")
    assert bench.ask(b"hi") == b"hi" + OK


def test_hex_dataformat(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask('AT+QICFG="dataformat",1,1')
    assert bench.lines('AT+QICFG="dataformat"') == ['+QICFG: "dataformat",1,1', "OK"]
    assert bench.lines("AT+QISEND=0,2,00fe", 1.0)[:3] == ["OK", '+QIURC: "recv",0,2', "00FE"]
    bench.ask("AT+QISEND=0,2")
    assert bench.lines(b"00ff", 1.0)[:3] == ["OK", '+QIURC: "recv",0,2', "00FF"]
    assert bench.ask("AT+QISEND=0,2,zz00") == ERROR


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("AT+QISEND=0,4,hello", 552),
        ("AT+QISEND=0,1025", 552),
        ("AT+QISENDEX=0,2,414243", 552),
        ("AT+QISENDEX=0,1,4g", 552),
        ("AT+QISEND=1,1,x", 567),
        ("AT+QISEND=9,1,x", 552),
        ("AT+QIRD=1,1", 567),
        ('AT+QIOPEN=1,0,"UDP","192.0.2.1",7', 563),
        ('AT+QIOPEN=0,1,"UDP","192.0.2.1",7', 552),
        ('AT+QIOPEN=1,1,"UDP","192.0.2.1",0', 552),
        ('AT+QIOPEN=1,1,UDP,"192.0.2.1",7', 552),
        ('AT+QIOPEN=1,1,"TCP","192.0.2.1",7', 555),
    ],
)
def test_socket_errors_are_told_by_qigeterror(make_bench: Any, command: str, error: int) -> None:
    bench = opened(make_bench, cmee=1)
    assert bench.ask(command) == ERROR
    assert bench.lines("AT+QIGETERROR")[0].startswith(f"+QIGETERROR: {error},")


# ------------------------------------------------------------------- receive


def test_viewmode_puts_data_on_the_urc_line(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.ask('AT+QICFG="viewmode",1')
    bench.wire.inject(b"hi\r\n", PEER)
    assert bench.wait(1.0) == b'\r\n+QIURC: "recv",0,4,hi\r\n\r\n'


def test_buffer_mode(make_bench: Any) -> None:
    bench = opened(make_bench, tail=",0,0")
    for data in (b"abc", b"de"):
        bench.wire.inject(data, PEER)
    assert bench.wait(1.0) == b'\r\n+QIURC: "recv",0\r\n'
    assert bench.ask("AT+QIRD=0,2") == b"\r\n+QIRD: 2\r\nab\r\n" + OK
    assert bench.ask("AT+QIRD=0,512") == b"\r\n+QIRD: 1\r\nc\r\n" + OK
    assert bench.ask("AT+QIRD=0,512") == b"\r\n+QIRD: 2\r\nde\r\n" + OK
    assert bench.ask("AT+QIRD=0,512") == b"\r\n+QIRD: 0\r\n" + OK
    bench.wire.inject(b"again", PEER)
    assert bench.wait(1.0) == b'\r\n+QIURC: "recv",0\r\n'


def test_buffer_mode_with_showlength_and_viewmode(make_bench: Any) -> None:
    bench = opened(make_bench, tail=",0,0")
    bench.ask('AT+QICFG="showlength",1')
    bench.ask('AT+QICFG="viewmode",1')
    for data in (b"abc", b"de"):
        bench.wire.inject(data, PEER)
    assert bench.wait(1.0) == b'\r\n+QIURC: "recv",0,3\r\n'
    assert bench.ask("AT+QIRD=0,2") == b"\r\n+QIRD: 2,3,ab\r\n" + OK


def test_only_the_peer_is_heard(make_bench: Any) -> None:
    bench = opened(make_bench)
    bench.wire.inject(b"x", ("192.0.2.66", 7))
    assert bench.wait(1.0) == b""


# ---------------------------------------------------------- open, close, DNS


def test_close_answers_twice_and_frees_the_id(make_bench: Any) -> None:
    bench = opened(make_bench)
    assert bench.lines("AT+QISTATE=1,0") == ['+QISTATE: 0,"UDP","192.0.2.1",7,0,2,1,1', "OK"]
    assert bench.ask("AT+QICLOSE=0") == OK + b"\r\nCLOSE OK\r\n"
    assert bench.ask("AT+QISTATE=1,0") == OK
    assert bench.lines('AT+QIOPEN=1,0,"UDP","192.0.2.1",7', 1.0) == ["OK", "+QIOPEN: 0,0"]


def test_a_failed_open_occupies_the_id(make_bench: Any) -> None:
    bench = ready(make_bench, Network(stat="none"), attached=False)
    command = 'AT+QIOPEN=1,0,"UDP","192.0.2.1",7'
    assert bench.lines(command, 1.0) == ["OK", "+QIOPEN: 0,561"]
    assert bench.ask(command) == ERROR
    bench.ask("AT+QICLOSE=0")
    assert bench.lines(command, 1.0) == ["OK", "+QIOPEN: 0,561"]


def test_open_by_name(make_bench: Any) -> None:
    bench = ready(make_bench, Network(dns={"iot.example": "192.0.2.1"}))
    assert bench.lines('AT+QIOPEN=1,0,"UDP","iot.example",7', 1.0)[-1] == "+QIOPEN: 0,0"
    assert bench.lines('AT+QIOPEN=1,1,"UDP","no.example",7', 1.0)[-1] == "+QIOPEN: 1,565"
    bench.ask("AT+QISEND=0,1,x", 1.0)
    assert bench.wire.sent == [(PEER, b"x")]


def test_dns(make_bench: Any) -> None:
    bench = ready(make_bench, Network(dns={"iot.example": "192.0.2.1"}))
    assert bench.lines('AT+QIDNSGIP=1,"iot.example"', 1.0) == [
        "OK",
        '+QIURC: "dnsgip",0,1,600',
        '+QIURC: "dnsgip","192.0.2.1"',
    ]
    assert bench.lines('AT+QIDNSGIP=1,"no.example"', 1.0) == ["OK", '+QIURC: "dnsgip",565']
    assert bench.lines("AT+QIDNSCFG=1") == ['+QIDNSCFG: 1,"10.0.0.1","10.0.0.2"', "OK"]


def test_qping(make_bench: Any) -> None:
    bench = ready(make_bench, Network(ping={"192.0.2.66": None}, ping_ms=100, ping_ttl=51))
    assert bench.lines('AT+QPING=1,"192.0.2.1",4,2', 1.0) == [
        "OK",
        '+QPING: 0,"192.0.2.1",32,100,51',
        '+QPING: 0,"192.0.2.1",32,100,51',
        "+QPING: 0,2,2,0,100,100,100",
    ]
    assert bench.lines("AT+QPING=1,192.0.2.66", 5.0) == ["OK", "+QPING: 569"]


# -------------------------------------------------------------- registration


def test_attach_timeline(make_bench: Any) -> None:
    bench = ready(make_bench, Network(attach_delay=4.0), attached=False)
    bench.ask("AT+CFUN=0")
    bench.ask("AT+CEREG=1")
    bench.ask("AT+CSCON=1")
    assert bench.lines("AT+CFUN=1") == ["OK", "+CEREG: 2"]
    assert bench.ask("AT+CGPADDR?") == OK
    assert bench.lines("AT+CESQ") == ["+CESQ: 0,0,255,255,0,0", "OK"]
    assert bench.lines("AT", 4.0) == ["OK", "+CSCON: 1", "+CEREG: 1", "+IP: 10.0.0.7"]
    assert bench.lines("AT+CGPADDR=1") == ["+CGPADDR: 1,10.0.0.7", "OK"]
    assert bench.wait(10.0) == b"\r\n+CSCON: 0\r\n"


@pytest.mark.parametrize(
    ("level", "read"),
    [
        (0, "+CEREG: 0,1"),
        (1, "+CEREG: 1,1"),
        (2, '+CEREG: 2,1,"7871","0D09F951",9'),
        (3, '+CEREG: 3,1,"7871","0D09F951",9,0,0'),
        (4, '+CEREG: 4,1,"7871","0D09F951",9,,,,"00000101","01000011"'),
        (5, '+CEREG: 5,1,"7871","0D09F951",9,,0,0,"00000101","01000011"'),
    ],
)
def test_cereg_levels(make_bench: Any, level: int, read: str) -> None:
    bench = ready(make_bench, Network(active_time=5.0))
    bench.ask(f"AT+CEREG={level}")
    assert bench.lines("AT+CEREG?") == [read, "OK"]


def test_cereg_unregistered_forms(make_bench: Any) -> None:
    """`2,,,,,0,0` while searching, `3,,,,,0,15` when denied (facts 1.2)."""
    network = Network(stat="denied", attach_delay=4.0)
    bench = ready(make_bench, network, attached=False)
    bench.ask("AT+CFUN=0")
    bench.ask("AT+CEREG=5")
    assert bench.lines("AT+CFUN=1", 5.0) == ["OK", "+CEREG: 2,,,,,0,0", "+CEREG: 3,,,,,0,15"]
    assert bench.ask("AT+CGATT=1") == ERROR
    bench.network.stat = 1
    bench.ask("AT+CFUN=0")
    bench.ask("AT+CFUN=1", 5.0)
    assert bench.lines("AT+CGATT?") == ["+CGATT: 1", "OK"]


def test_sim_faults(make_bench: Any) -> None:
    bench = ready(make_bench, attached=False, sim="absent", cmee=1)
    assert bench.ask("AT+CPIN?") == b"\r\n+CME ERROR: 10\r\n"
    assert bench.ask("AT+CIMI") == b"\r\n+CME ERROR: 10\r\n"
    bench.ask("AT+CMEE=2")
    assert bench.ask("AT+CPIN?") == b"\r\n+CME ERROR: SIM not inserted\r\n"


def test_a_locked_sim_is_told_after_cfun(make_bench: Any) -> None:
    bench = ready(make_bench, attached=False, sim="pin", cmee=1)
    bench.ask("AT+CFUN=0")
    assert bench.lines("AT+CFUN=1") == ["OK", "+CPIN: SIM PIN"]
    assert bench.lines("AT+CPIN?") == ["+CPIN: SIM PIN", "OK"]
    assert bench.ask('AT+CPIN="0000"') == b"\r\n+CME ERROR: 16\r\n"
    assert bench.lines('AT+CPIN="1234"', 5.0) == ["OK", "+IP: 10.0.0.7"]


def test_a_reset_keeps_nv_and_loses_the_rest(make_bench: Any) -> None:
    bench = opened(make_bench)
    for command in (
        'AT+QCGDEFCONT="IP","my.apn"',
        "AT+QSCLK=0",
        "AT+CEREG=5",
        'AT+QICFG="viewmode",1',
        "AT+QCOAPCREATE=56830",
    ):
        assert bench.ask(command) == OK
    bench.ask("AT+QRST=1", 5.0)
    assert bench.lines("AT+QCGDEFCONT?")[0] == '+QCGDEFCONT: "IP","my.apn"'
    assert bench.lines("AT+QSCLK?")[0] == "+QSCLK: 1"
    assert bench.lines("AT+CEREG?")[0].startswith("+CEREG: 0,")
    assert bench.lines('AT+QICFG="viewmode"')[0] == '+QICFG: "viewmode",0'
    assert bench.ask("AT+QISTATE=0,1") == OK
    assert bench.ask("AT+QCOAPDEL") == ERROR


def test_stored_settings_survive_a_reset(make_bench: Any) -> None:
    bench = make_bench("bc66")
    bench.ask("ATE0")
    bench.ask("AT+CMEE=2")
    bench.ask("AT&W")
    bench.ask("AT+QRST=1", 5.0)
    assert bench.ask("AT+CMEE?") == b"\r\n+CMEE: 2\r\n" + OK
    bench.ask("AT&F")
    assert bench.ask("AT") == b"AT\r" + OK


def test_qrst_says_ok_on_bc26_only(make_bench: Any) -> None:
    assert ready(make_bench, model="bc26").ask("AT+QRST=1") == OK
    assert ready(make_bench).ask("AT+QRST=1") == b""


def test_power_off_is_silence(make_bench: Any) -> None:
    bench = ready(make_bench)
    assert bench.ask("AT+QPOWD=0") == OK
    assert bench.ask("AT", 60.0) == b""
    bench.modem.power_on()
    assert b"Leaving the BROM" in bench.wait(5.0)
    assert bench.ask("AT") == OK


# -------------------------------------------------------------------- sleep


def test_light_sleep_swallows_the_first_command(make_bench: Any) -> None:
    bench = ready(make_bench, sleep=True)
    assert bench.ask("AT", 11.0) == OK
    assert bench.ask("AT") == b""
    assert bench.ask("AT") == OK


def test_qsclk_0_keeps_awake(make_bench: Any) -> None:
    bench = ready(make_bench, sleep=True)
    bench.ask("AT+QSCLK=0", 60.0)
    assert bench.ask("AT") == OK


def test_qrellock_sleeps_at_once(make_bench: Any) -> None:
    bench = ready(make_bench, sleep=True)
    assert bench.ask("AT+QRELLOCK", 0.1) == OK
    assert bench.ask("AT") == b""


def test_deep_sleep_needs_the_pin(make_bench: Any) -> None:
    network = Network(rrc_idle=1.0, active_time=1.0)
    bench = ready(make_bench, network, sleep=True)
    for command in ("AT+QNBIOTEVENT=1,1", "AT+QATWAKEUP=1"):
        bench.ask(command)
    bench.lines("AT+QPING=1,192.0.2.1,4,1", 1.0)
    text = bench.wait(30.0)
    assert b'+QNBIOTEVENT: "ENTER PSM"' in text
    assert bench.ask("AT", 5.0) == b""
    assert bench.ask("AT", 5.0) == b""
    bench.modem.wake()
    assert bench.take() == b"\r\n+QATWAKEUP\r\n"
    assert bench.ask("AT") == OK


# ------------------------------------------------------- programs that probe


def test_a_modem_managers_first_questions(make_bench: Any) -> None:
    bench = make_bench("bc66")
    for command in ("ATE0", "ATV1", "ATX4", "AT&C1", "AT+CMEE=1"):
        assert bench.lines(command)[-1] == "OK", command
    for command in ("AT+GCAP", "AT+WS46=?", "AT+CSCS=?", "AT+CRSM=176,28589,0,0,4", "AT+CPMS=?"):
        assert bench.ask(command) == ERROR, command
    for command in ("AT+CNMI=2,1,0,2,0", "AT^SBNR=?", "AT+SYNCML=?"):
        assert bench.ask(command) == ERROR, command
    assert bench.lines("AT+CGMI;+CGMM") == ["Quectel_Ltd", "Quectel_BC66", "OK"]
    assert bench.lines("AT+CGSN") == ["867726030047601", "OK"]
    assert bench.lines("AT+COPS=3,2;+COPS?") == ['+COPS: 0,2,"46000",9', "OK"]
    assert bench.lines("AT+CSQ") == ["+CSQ: 18,0", "OK"]


@pytest.mark.parametrize("name", ["+CREG", "+CGREG"])
def test_registration_as_gsm_tells_it(make_bench: Any, name: str) -> None:
    bench = ready(make_bench)
    assert bench.lines(f"AT{name}=?") == [f"{name}: (0-2)", "OK"]
    assert bench.lines(f"AT{name}?") == [f"{name}: 0,1", "OK"]
    assert bench.lines(f"AT{name}=2;{name}?") == [f'{name}: 2,1,"7871","0D09F951"', "OK"]
    assert bench.lines("AT+CGATT=0") == ["OK", f"{name}: 0"]
    assert bench.lines("AT+CGATT=1", 30.0)[-2:] == [f'{name}: 1,"7871","0D09F951"', IP]
    assert bench.ask(f"AT{name}=3") == ERROR


def test_the_message_format_and_no_service_centre(make_bench: Any) -> None:
    bench = ready(make_bench, cmee=1)
    assert bench.lines("AT+CMGF=?") == ["+CMGF: (0,1)", "OK"]
    assert bench.lines("AT+CMGF=1;+CMGF?") == ["+CMGF: 1", "OK"]
    assert bench.lines("AT+CSCA?") == ["+CMS ERROR: 330"]
    assert bench.lines('AT+CSCA="+8613800100500"') == ["OK"]
    assert bench.lines("AT+CSCA?") == ['+CSCA: "+8613800100500",145', "OK"]
    assert bench.lines("AT+CMEE=2;+CMEE?;+CSCA=5") == ["+CMEE: 2", "ERROR"]


@pytest.mark.parametrize(("level", "text"), [(0, "ERROR"), (2, "+CMS ERROR: SMSC address unknown")])
def test_a_message_error_at_each_level(make_bench: Any, level: int, text: str) -> None:
    assert ready(make_bench, cmee=level).lines("AT+CSCA?") == [text]
