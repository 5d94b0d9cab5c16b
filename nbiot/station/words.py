"""What the station says to people, in English and Chinese: states, phases, reasons, the page.

Each reason code has a short word for the tile (at most three words), a sentence, and what to do.
The codes are the class names of ``nbiot.errors`` in snake_case, and the runner's own. A code that
has no words here falls back to what its detail says under ``message`` and ``hint``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nbiot.errors import NbiotError
from nbiot.station.board import SlotState
from nbiot.station.record import Outcome, Reason

LANGUAGES = ("en", "zh")

Pair = tuple[str, str]
"""English, Chinese."""


@dataclass(frozen=True, slots=True)
class Words:
    """Why, for a person: ``short`` fits a tile, ``sentence`` says it, ``todo`` is what to do."""

    short: str
    sentence: str
    todo: str


def text(key: str, language: str) -> str:
    """A text of the page. Raises KeyError for an unknown key: that is a mistake in a template."""
    return _pick(TEXTS[key], language)


def state(of: SlotState, language: str) -> Words:
    """The word of a slot's state, what it means, and what the operator does now."""
    return _words(STATES[of], language)


def waiting(why: Reason | None, language: str) -> Words:
    """The words of a slot that waits: for a scan, if ``why`` says so, else for a start."""
    if why is not None and why.code == "waiting_for_scan":
        return reason(why, language)
    return state(SlotState.WAITING, language)


def outcome(of: Outcome, language: str) -> str:
    """One word for how a run or a phase ended."""
    return _pick(OUTCOMES[of], language)


def phase(name: str, language: str) -> str:
    """What a phase does; a name that is not known (a recipe's own) stands for itself."""
    return _pick(PHASES.get(name, (_plain(name), _plain(name))), language)


def measure(name: str, language: str) -> str:
    """What a measurement is; a name that is not known stands for itself."""
    return _pick(MEASURES.get(name, (_plain(name), _plain(name))), language)


def code_of(error: BaseException | type[BaseException]) -> str:
    """The reason code of an error: its class name in snake_case, of a private class its base's."""
    kinds = (error if isinstance(error, type) else type(error)).__mro__
    name = next(kind.__name__ for kind in kinds if not kind.__name__.startswith("_"))
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def of_error(error: Exception, language: str) -> Words:
    """The words of an error. What is none of ours is ``internal``: its text is for the log."""
    if not isinstance(error, NbiotError):
        return reason(Reason("internal"), language)
    detail = {"message": error.message, "hint": error.hint}
    found = reason(Reason(code_of(error), detail), language)
    if language == "en":  # an error's own words know more: which value, which slot
        return Words(found.short, error.message, error.hint or found.todo)
    for english, sentence, todo in REFUSALS:
        if match := re.search(english, error.message):
            return Words(_pick(("Not now", "无法执行"), language), match.expand(sentence), todo)
    return Words(found.short, f"{found.sentence}（{error.message}）", found.todo)


def reason(of: Reason, language: str) -> Words:
    """The words of a reason, filled with its detail."""
    if of.code == "limit":
        return _limit(of.detail, language)
    entry = REASONS.get(of.code)
    if entry is None:
        message, hint = (_said(of.detail.get(key)) for key in ("message", "hint"))
        short = _pick(("Fault", "故障"), language)
        return Words(short, message or _plain(of.code), hint or text("ask", language))
    words = _words(entry, language)
    if of.code == "program_failed" and of.detail.get("message"):  # its author's own words
        own = _said(of.detail["message"]), _said(of.detail.get("hint")) or words.todo
        return Words(words.short, *own)
    more = [_said(of.detail.get(key)) for key in ("by", "reason")]
    more += [f"{text(key, language)} {of.detail[key]}" for key in _PLACES if of.detail.get(key)]
    return Words(words.short, _with(words.sentence, [part for part in more if part]), words.todo)


_PLACES = ("station", "slot")


def _with(sentence: str, more: list[str]) -> str:
    if not more:
        return sentence
    zh = sentence.endswith("。")
    return f"{sentence[:-1]}{'：' if zh else ': '}{('，' if zh else ', ').join(more)}{sentence[-1]}"


# --- limits -------------------------------------------------------------------------------------


def _limit(detail: Mapping[str, object], language: str) -> Words:
    name, value = str(detail.get("name", "")), detail.get("value")
    low, high, allowed = (detail.get(key) for key in ("low", "high", "allowed"))
    label = measure(name, language)
    unit = _said(detail.get("unit"))
    if value is None or value == "":
        kind: Pair = ("missing", "缺失")
    elif _number(value) and _number(low) and value < low:  # type: ignore[operator]
        kind = ("too low", "过低")
    elif _number(value) and _number(high) and value > high:  # type: ignore[operator]
        kind = ("too high", "过高")
    else:
        kind = ("not allowed", "不在允许范围")
    zh = language == "zh"
    short = f"{_brief(name, language)}{'' if zh else ' '}{_pick(kind, language)}"
    shown = text("nothing", language) if value in (None, "") else amount(value, unit)
    limits = limits_of(low, high, allowed, unit, language)
    sentence = (
        f"{label}：{shown}；要求：{limits}。" if zh else f"{label}: {shown}; wanted: {limits}."
    )
    return Words(short, sentence, _pick(TODO_BY_MEASURE.get(name, TODO_OF_LIMIT), language))


def limits_of(
    low: object, high: object, allowed: object, unit: str = "", language: str = "en"
) -> str:
    """Limits in words: "-110 to -60 dBm", "at least 3", "A or B"; "-" where there is none."""
    if isinstance(allowed, list | tuple):
        allowed = _pick((" or ", " 或 "), language).join(map(str, allowed))
    if allowed not in (None, ""):
        return str(allowed)
    if low is not None and high is not None:
        if low == high:
            return amount(low, unit)
        return f"{amount(low)} {_pick(('to', '至'), language)} {amount(high, unit)}"
    if low is not None:
        return f"≥ {amount(low, unit)}"
    return f"≤ {amount(high, unit)}" if high is not None else "–"


def amount(value: object, unit: str = "") -> str:
    """A value with its unit: 4 digits are plenty, and a true minus stays with its number."""
    if isinstance(value, bool):
        shown = "✓" if value else "✕"
    elif isinstance(value, float):
        shown = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    else:
        shown = str(value)
    shown = re.sub(r"^-(?=\d)", "−", shown)
    return f"{shown} {unit}" if unit else shown


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(name: str, language: str) -> str:
    return _pick(BRIEF.get(name, (_plain(name), _plain(name))), language)


# --- helpers ------------------------------------------------------------------------------------


def _pick(pair: Pair, language: str) -> str:
    return pair[1] if language == "zh" else pair[0]


def _words(six: tuple[Pair, Pair, Pair], language: str) -> Words:
    return Words(*(_pick(pair, language) for pair in six))


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _said(value: object) -> str:
    return "" if value is None else str(value)


# --- the words ----------------------------------------------------------------------------------

STATES: dict[SlotState, tuple[Pair, Pair, Pair]] = {
    SlotState.EMPTY: (
        ("Empty", "空闲"),
        ("No board in this slot.", "此槽位没有电路板。"),
        ("Put a board in", "请放入电路板"),
    ),
    SlotState.WAITING: (
        ("Ready", "就绪"),
        ("The slot is ready for a board.", "槽位已就绪。"),
        ("Put a board in, press Start", "放入电路板后按“开始”"),
    ),
    SlotState.RUNNING: (
        ("Running", "测试中"),
        ("The board is being provisioned.", "正在写入身份并测试。"),
        ("Leave the board in", "请勿取出电路板"),
    ),
    SlotState.HELD: (
        ("On hold", "等待中"),
        ("The database does not answer.", "数据库没有响应。"),
        ("Leave the board in: it goes on by itself", "请勿取出电路板，稍后自动继续"),
    ),
    SlotState.PASSED: (
        ("Pass", "合格"),
        ("The board has its identity and is online.", "电路板已写入身份并成功上线。"),
        ("Take the board out", "请取出电路板"),
    ),
    SlotState.FAILED: (
        ("Fail", "不合格"),
        ("The board is not good.", "电路板不合格。"),
        ("Set the board aside", "请将电路板放入不合格区"),
    ),
    SlotState.ERROR: (
        ("Error", "异常"),
        ("The board could not be tested.", "未能完成测试，无法判定。"),
        ("Press Retry", "请按“重测”"),
    ),
    SlotState.OFF: (
        ("Off", "停用"),
        ("Taken out of use.", "此槽位已停用。"),
        ("Use another slot", "请使用其他槽位"),
    ),
}

OUTCOMES: dict[Outcome, Pair] = {
    Outcome.PASS: ("Pass", "合格"),
    Outcome.FAIL: ("Fail", "不合格"),
    Outcome.ERROR: ("Error", "异常"),
    Outcome.ABORTED: ("Stopped", "中止"),
    Outcome.SKIPPED: ("Skipped", "跳过"),
}

PHASES: dict[str, Pair] = {
    "power": ("Power on", "上电"),
    "identify": ("Check the modem", "识别模组"),
    "radio": ("Measure the signal", "检测信号"),
    "attach": ("Join the network", "接入网络"),
    "claim": ("Take an identity", "领取身份"),
    "authenticate": ("Log in to EnOS", "EnOS 认证"),
    "report": ("Send a report", "上报数据"),
    "command": ("Receive a command", "接收命令"),
    "program": ("Run a program", "运行外部程序"),
    "label": ("Print the label", "打印标签"),
    "release": ("Switch the board off", "关闭电路板"),
}

MEASURES: dict[str, Pair] = {
    "rsrp": ("Signal strength (RSRP)", "信号强度 (RSRP)"),
    "snr": ("Signal quality (SNR)", "信号质量 (SNR)"),
    "sinr": ("Signal quality (SINR)", "信号质量 (SINR)"),
    "ecl": ("Coverage level (ECL)", "覆盖等级 (ECL)"),
    "model": ("Modem model", "模组型号"),
    "firmware": ("Firmware", "固件版本"),
    "imei": ("IMEI", "IMEI"),
    "iccid": ("SIM number (ICCID)", "SIM 卡号 (ICCID)"),
    "serial_number": ("Serial number", "序列号"),
    "attach": ("Time to join the network", "入网用时"),
    "attach_seconds": ("Time to join the network", "入网用时"),
    "round_trip": ("Answer time", "应答时间"),
    "device_key": ("Device key", "设备 Key"),
    "authenticate": ("Time to log in", "认证用时"),
    "answer": ("Time to the answer", "应答用时"),
    "command": ("Time of the round trip", "命令往返用时"),
    "bytes_up": ("Sent", "上行字节"),
    "retransmissions": ("Sent again", "重传次数"),
    "current": ("Current", "电流"),
}

BRIEF: dict[str, Pair] = {
    "rsrp": ("Signal", "信号"),
    "snr": ("Signal quality", "信号质量"),
    "sinr": ("Signal quality", "信号质量"),
    "ecl": ("Coverage level", "覆盖等级"),
    "model": ("Model", "型号"),
    "firmware": ("Firmware", "固件"),
    "imei": ("IMEI", "IMEI "),
    "iccid": ("ICCID", "ICCID "),
    "serial_number": ("Serial", "序列号"),
    "attach": ("Joining time", "入网用时"),
    "attach_seconds": ("Joining time", "入网用时"),
    "round_trip": ("Answer time", "应答时间"),
    "current": ("Current", "电流"),
}
"""The same in a word or two, for a tile."""

_ANTENNA: Pair = ("Check the antenna and its plug, then press Retry.", "检查天线及接头后按“重测”。")
_ASIDE: Pair = ("Set the board aside.", "将电路板放入不合格区。")
_SEAT: Pair = ("Push the board in firmly, then press Retry.", "重新插紧电路板后按“重测”。")
_RETRY: Pair = (
    "Press Retry. If it fails again, set the board aside.",
    "按“重测”；若再次失败，请放入不合格区。",
)
_NETWORK: Pair = (
    "Press Retry. If other slots fail too, tell the shift leader.",
    "按“重测”；若其他槽位也失败，请通知班组长。",
)
_LEADER: Pair = ("Tell the shift leader.", "请通知班组长。")
_WAIT: Pair = (
    "Leave the board in: it goes on by itself. Nothing is lost.",
    "请勿取出电路板，恢复后自动继续，数据不会丢失。",
)

TODO_OF_LIMIT: Pair = _ASIDE
TODO_BY_MEASURE: dict[str, Pair] = {
    "rsrp": _ANTENNA,
    "snr": _ANTENNA,
    "sinr": _ANTENNA,
    "ecl": _ANTENNA,
    "attach": _ANTENNA,
    "attach_seconds": _ANTENNA,
    "firmware": (
        "Set the board aside: it needs another firmware.",
        "将电路板放入不合格区：需要更换模组固件。",
    ),
    "model": (
        "Wrong type of board for this recipe: set it aside.",
        "电路板型号与配方不符：请放到一旁。",
    ),
    "imei": (
        "Set the board aside: its modem has no valid IMEI.",
        "将电路板放入不合格区：模组 IMEI 无效。",
    ),
    "iccid": ("Check the SIM card, then press Retry.", "检查 SIM 卡后按“重测”。"),
}

REASONS: dict[str, tuple[Pair, Pair, Pair]] = {
    # the runner's own; "limit" is made of its numbers above
    "stopped": (("Stopped", "已停止"), ("The run was stopped.", "测试被停止。"), (
        "Press Retry to begin again.", "按“重测”重新开始。")),
    "skipped": (("Skipped", "已跳过"), ("This step was skipped.", "此步骤被跳过。"), (
        "Nothing to do.", "无需处理。")),
    "board_pulled": (("Board removed", "电路板被取出"), (
        "The board was taken out before it was done.", "测试完成前电路板被取出。"), (
        "Put it back in: it begins again.", "请重新放入，将自动重新开始。")),
    "station_died": (("Station restarted", "工站重启"), (
        "The station restarted during this run.", "测试期间工站重启。"), (
        "Press Retry, or put the board in again.", "按“重测”，或重新放入电路板。")),
    "program_failed": (("Program failed", "程序失败"), (
        "The program of this step reported a failure.", "此步骤的外部程序报告失败。"), _RETRY),
    "program_output": (("Program unclear", "程序输出异常"), (
        "The program of this step said something that is not understood.",
        "无法理解此步骤外部程序的输出。"), _LEADER),
    "timeout": (("Too slow", "超时"), (
        "This step was not done in its time.", "此步骤未在规定时间内完成。"), _RETRY),
    "waiting_for_scan": (("Scan", "请扫码"), (
        "The station waits for the board's serial number.", "等待扫描电路板序列号。"), (
        "Scan the board's label", "请扫描电路板标签")),
    "imei_invalid": (("IMEI invalid", "IMEI 无效"), (
        "The modem's IMEI has a wrong check digit.", "模组 IMEI 校验位错误。"), _ASIDE),
    "no_command": (("No command", "未收到命令"), (
        "The command from EnOS did not come in time.", "未按时收到 EnOS 下发的命令。"), _NETWORK),
    "internal": (("Station fault", "工站故障"), (
        "Something went wrong inside the station; its log says what.",
        "工站内部出错，详情见日志。"), (
        "Press Retry. If it fails again, tell the shift leader.",
        "按“重测”；若再次失败，请通知班组长。")),
    # nbiot.errors, in its order
    "nbiot_error": (("Fault", "故障"), ("Something went wrong.", "出现故障。"), _RETRY),
    "bad_input": (("Not accepted", "输入无效"), (
        "This value cannot be used.", "此输入值不可用。"), (
        "Check what was typed or scanned, and try again.", "请检查输入或扫描的内容后重试。")),
    "bad_file": (("File wrong", "文件有误"), (
        "A file of the station cannot be used.", "工站的某个文件不可用。"), _LEADER),
    "bad_rig": (("Rig file wrong", "治具文件有误"), (
        "The file that describes the slots cannot be used.", "描述槽位的文件不可用。"), _LEADER),
    "bad_key": (("Wrong setting", "设置有误"), (
        "A setting of the slot's supply or reset cannot be used.",
        "此槽位的供电或复位设置不可用。"), _LEADER),
    "port_error": (("Port fault", "端口故障"), (
        "The slot's port cannot be used.", "此槽位的端口不可用。"), _SEAT),
    "port_missing": (("No connection", "未连接"), (
        "The board's port is not there.", "未找到电路板的端口。"), _SEAT),
    "port_busy": (("Port in use", "端口被占用"), (
        "Another program has this slot's port.", "其他程序占用了此槽位的端口。"), (
        "Tell the shift leader. Then press Retry.",
        "请通知班组长，处理后按“重测”。")),
    "port_not_permitted": (("Port not permitted", "无端口权限"), (
        "The station may not open this slot's port.", "工站无权打开此槽位的端口。"), (
        "Tell the shift leader: the station needs the right to.",
        "请通知班组长：需要设置工站的端口权限。")),
    "port_lost": (("Connection lost", "连接中断"), (
        "The connection to the board broke.", "与电路板的连接中断。"), _SEAT),
    "place_lost": (("Place lost", "位置丢失"), (
        "Labgrid's place of this slot is no longer ours.",
        "此槽位的 labgrid 位置已不归本工站使用。"), _LEADER),
    "replay_mismatch": (("Replay differs", "回放不符"), (
        "What was sent is not what the recording has.", "发送的内容与录制文件不一致。"), _LEADER),
    "power_error": (("No power switch", "供电控制失败"), (
        "The slot's supply or reset could not be switched.", "无法控制此槽位的供电或复位。"), (
        "Press Retry. If it fails again, use another slot.",
        "按“重测”；若再次失败，请使用其他槽位。")),
    "modem_error": (("Modem fault", "模组故障"), (
        "The modem does not work as it should.", "模组工作异常。"), _RETRY),
    "modem_silent": (("Modem silent", "模组无响应"), (
        "The modem does not answer.", "模组没有应答。"), _SEAT),
    "modem_unknown": (("Unknown modem", "未知模组"), (
        "This type of modem is not known.", "无法识别此型号的模组。"), (
        "Wrong type of board: set it aside.", "电路板型号不符：请放到一旁。")),
    "modem_rebooted": (("Modem restarted", "模组重启"), (
        "The modem restarted by itself: its supply may be weak.", "模组自行重启，可能供电不足。"), (
        "Press Retry. If it fails again, set the board aside.",
        "按“重测”；若再次失败，请放入不合格区。")),
    "command_timeout": (("Modem too slow", "模组超时"), (
        "The modem did not finish a command in time.", "模组未在规定时间内完成命令。"), _RETRY),
    "command_refused": (("Modem refused", "模组拒绝"), (
        "The modem refused a command.", "模组拒绝执行命令。"), _RETRY),
    "unexpected_answer": (("Wrong answer", "应答异常"), (
        "The modem's answer makes no sense.", "模组的应答无法识别。"), _RETRY),
    "unsupported": (("Not supported", "不支持"), (
        "This modem cannot do what the recipe asks.", "此模组不支持配方要求的功能。"), (
        "Wrong type of board: set it aside.",
        "电路板型号不符：请放到一旁。")),
    "sim_error": (("SIM fault", "SIM 卡故障"), (
        "The SIM card cannot be used.", "SIM 卡不可用。"), (
        "Change the SIM card, then press Retry.", "更换 SIM 卡后按“重测”。")),
    "sim_missing": (("No SIM", "无 SIM 卡"), (
        "The board finds no SIM card.", "电路板未检测到 SIM 卡。"), (
        "Push the SIM card in, then press Retry.", "插好 SIM 卡后按“重测”。")),
    "sim_locked": (("SIM locked", "SIM 卡锁定"), (
        "The SIM card asks for a PIN.", "SIM 卡需要 PIN 码。"), (
        "Use a SIM card without a PIN, then press Retry.",
        "更换未设 PIN 码的 SIM 卡后按“重测”。")),
    "not_registered": (("No network", "无网络"), (
        "The board did not join the network in time.", "电路板未能按时接入网络。"), _ANTENNA),
    "name_not_resolved": (("Server not found", "找不到服务器"), (
        "The server's name has no address.", "无法解析服务器地址。"), _NETWORK),
    "datagram_too_long": (("Message too long", "数据过长"), (
        "A message is longer than this modem can send.", "数据长度超出模组上限。"), _LEADER),
    "socket_error": (("No connection", "连接失败"), (
        "The modem could not open a connection.", "模组无法建立网络连接。"), _RETRY),
    "coap_error": (("Server error", "服务器异常"), (
        "The exchange with the server broke off.", "与服务器的通信中断。"), _NETWORK),
    "no_response": (("Server silent", "服务器无响应"), (
        "EnOS did not answer.", "EnOS 没有应答。"), _NETWORK),
    "response_reset": (("Server refused", "服务器拒绝"), (
        "The server rejected the message.", "服务器拒绝了报文。"), _NETWORK),
    "bad_datagram": (("Garbled answer", "应答损坏"), (
        "What came back was no proper message.", "收到的报文无法解析。"), _NETWORK),
    "bad_reply": (("Garbled answer", "应答异常"), (
        "The server's answer cannot be understood.", "无法理解服务器的应答。"), _NETWORK),
    "response_lost": (("Answer lost", "应答丢失"), (
        "Part of the server's answer was lost on the way.", "服务器的应答部分丢失。"), _NETWORK),
    "dtls_error": (("Secure link failed", "安全连接失败"), (
        "The secured connection with EnOS broke off.", "与 EnOS 的安全连接中断。"), _NETWORK),
    "dtls_refused": (("Login refused", "认证被拒"), (
        "EnOS refused the secured connection: this board's identity must be checked in EnOS.",
        "EnOS 拒绝了安全连接，需在 EnOS 中核对此电路板的身份。"), (
        "Set the board aside, and tell the shift leader.",
        "将电路板放到一旁，并通知班组长。")),
    "dtls_closed": (("Secure link closed", "安全连接断开"), (
        "The secured connection with EnOS ended early.", "与 EnOS 的安全连接提前结束。"), _NETWORK),
    "command_failed": (("Command failed", "命令失败"), (
        "The command from EnOS could not be carried out.", "EnOS 下发的命令执行失败。"), _NETWORK),
    "auth_refused": (("Login refused", "认证被拒"), (
        "EnOS refused this board's identity; it must be checked in EnOS.",
        "EnOS 拒绝了此电路板的身份，需在 EnOS 中核对。"), (
        "Set the board aside, and tell the shift leader.",
        "将电路板放到一旁，并通知班组长。")),
    "server_fault": (("EnOS fault", "EnOS 故障"), (
        "EnOS failed inside.", "EnOS 内部出错。"), _NETWORK),
    "rate_limited": (("Too many logins", "认证过于频繁"), (
        "EnOS lets a board log in only 4 times in 2 minutes.", "EnOS 限制每 2 分钟认证 4 次。"), (
        "Wait two minutes, then press Retry.", "等待两分钟后按“重测”。")),
    "request_refused": (("EnOS refused", "EnOS 拒绝"), (
        "EnOS refuses the report; the product's model may differ.",
        "EnOS 拒绝了上报数据，产品模型可能不符。"), (
        "Set the board aside, and tell the shift leader.",
        "将电路板放到一旁，并通知班组长。")),
    "secret_unavailable": (("Key missing", "密钥缺失"), (
        "The board's key could not be read.", "无法读取此电路板的密钥。"), _LEADER),
    "station_error": (("Station fault", "工站故障"), (
        "The station cannot do that.", "工站无法执行此操作。"), _LEADER),
    "store_unavailable": (("Database away", "数据库离线"), (
        "The database does not answer.", "数据库没有响应。"), _WAIT),
    "pool_empty": (("No identities left", "身份已用完"), (
        "No free identity is left for a board.", "没有可用的身份。"), (
        "Tell the shift leader: new identities must be imported.",
        "请通知班组长：需要导入新的身份。")),
    "already_proven": (("Already done", "已完成过"), (
        "This board has its identity already, and was proven.", "此电路板已有身份并已验证合格。"), (
        "Take it out and put it with the good boards.", "请取出并放入合格区。")),
    "imei_taken": (("IMEI taken", "IMEI 已占用"), (
        "This IMEI is another board's, or another slot is working on it.",
        "此 IMEI 属于另一块电路板，或正在其他槽位测试。"), (
        "Set the board aside, and tell the shift leader.",
        "将电路板放到一旁，并通知班组长。")),
    "lease_lost": (("Took too long", "用时过长"), (
        "The run took so long that its identity was given up.", "测试时间过长，身份已被收回。"), (
        "Press Retry: it takes an identity again.", "按“重测”，将重新领取身份。")),
    "vault_error": (("Wrong station key", "工站密钥错误"), (
        "The key that opens the identities is missing, or another one.",
        "用于解密身份的密钥缺失或不匹配。"), _LEADER),
    "printer_error": (("Not printed", "打印失败"), (
        "The label was not printed.", "标签未能打印。"), (
        "Check the printer's paper and cable, then print again.",
        "检查打印机的标签纸和电缆后重新打印。")),
    "rest_error": (("Registration failed", "注册失败"), (
        "EnOS did not register the board.", "EnOS 未能注册此电路板。"), _NETWORK),
}  # fmt: skip

REFUSALS: tuple[tuple[str, str, str], ...] = (
    (r"no board waits for a serial number", "没有等待扫码的电路板。", "请先放入电路板再扫码。"),
    (r"boards in slots (.+) wait for their serial numbers", r"槽位 \1 都在等待扫码。",
     "请先扫描槽位条码，再扫描电路板标签。"),
    (r"the board in slot (.+) has the serial number (.+)", r"槽位 \1 的电路板已使用序列号 \2。",
     "请扫描手中电路板的标签。"),
    (r"serial number: '(.*)' cannot be used", r"“\1”不是有效的序列号。",
     "请确认扫描的是电路板上的正确条码。"),
    (r"slot (.+): a board runs in it", r"槽位 \1 正在测试。", "请在测试前扫码，或先停止测试。"),
    (r"slot (.+): it runs already", r"槽位 \1 已在测试中。", ""),
    (r"slot (.+): it is switched off", r"槽位 \1 已停用。", "请先启用该槽位。"),
    (r"slot (.+): no board is in it", r"槽位 \1 中没有电路板。", "请放入电路板。"),
    (r"slot (.+): its board has passed", r"槽位 \1 的电路板已合格。", "请取出并放入下一块。"),
    (r"slot (.+): nothing runs in it", r"槽位 \1 没有正在进行的测试。", ""),
    (r"phase: '(.*)' cannot be used", r"步骤“\1”不允许跳过。", "配方中未允许跳过此步骤。"),
    (r"reason: .* cannot be used", "原因须为 3 至 200 个字符。", "请填写跳过的原因。"),
    (r"copies: .* cannot be used", "份数须为 1 至 20。", ""),
    (r"this station has no printer", "此工站未配置打印机。", "请通知班组长。"),
)  # fmt: skip
"""What the station says to a button or a scan that it does not follow, and the same in Chinese."""

TEXTS: dict[str, Pair] = {
    "ask": ("Tell the shift leader.", "请通知班组长。"),
    "board": ("Board", "电路板"),
    "cancel": ("Cancel", "取消"),
    "close": ("Close", "关闭"),
    "copies": ("Copies", "份数"),
    "credential": ("Identity no.", "身份编号"),
    "database": ("Database", "数据库"),
    "database_away": ("Away", "离线"),
    "database_ok": ("OK", "正常"),
    "device_key": ("Device key", "设备 Key"),
    "details": ("For the engineer", "技术详情"),
    "duration": ("Time", "用时"),
    "failed": ("Failed", "不合格"),
    "fence": ("fence", "栅栏号"),
    "finished": ("Finished", "结束时间"),
    "firmware": ("Firmware", "固件版本"),
    "free": ("Identities left", "剩余身份"),
    "gone": ("There is no such page", "页面不存在"),
    "gone_todo": ("It may have moved. Go back to the slots.", "页面可能已移动，请返回工位。"),
    "history": ("History", "历史记录"),
    "iccid": ("SIM (ICCID)", "SIM 卡 (ICCID)"),
    "imei": ("IMEI", "IMEI"),
    "label": ("Label", "标签"),
    "label_none": ("No preview of the label", "无法预览标签"),
    "language": ("中文", "English"),
    "last_seen": ("Last seen", "最近在线"),
    "limits": ("Wanted", "要求"),
    "line": ("Line", "产线"),
    "line_none": ("No station has reported yet.", "尚无工站上线。"),
    "log_in": ("Log in", "登录"),
    "log_out": ("Log out", "退出"),
    "login_hint": (
        "The PIN of this station. The shift leader has it.",
        "本工站的 PIN 码，请向班组长索取。",
    ),
    "login_wait": (
        "Too many wrong PINs. Wait a minute, then try again.",
        "PIN 码错误次数过多，请一分钟后再试。",
    ),
    "login_wrong": ("That PIN is not right.", "PIN 码不正确。"),
    "lost": ("No connection to the station", "与工站的连接已中断"),
    "lost_todo": (
        "What you see is old. The station goes on working; check the network cable.",
        "当前显示的内容已过期。工站仍在运行，请检查网络连接。",
    ),
    "lost_since": ("since", "自"),
    "model": ("Model", "型号"),
    "more": ("More", "更多"),
    "no_records": ("Nothing found.", "没有找到记录。"),
    "no_records_yet": ("No board has been through here yet.", "尚无测试记录。"),
    "not_sent": (
        "The station did not get that. Try again.",
        "工站未收到此操作，请重试。",
    ),
    "nothing": ("nothing", "无"),
    "older": ("Older", "更早"),
    "newest": ("Newest", "最新"),
    "operator": ("Operator", "操作员"),
    "out_of_use": ("Take out of use", "停用此槽位"),
    "passed": ("Passed", "合格"),
    "phases": ("Steps", "步骤"),
    "phase": ("Step", "步骤"),
    "pin": ("PIN", "PIN 码"),
    "pool_empty": ("None left", "已用完"),
    "print": ("Print label", "打印标签"),
    "printed": ("Label sent to the printer", "标签已发送至打印机"),
    "product_key": ("Product key", "产品 Key"),
    "put_into_use": ("Put into use", "启用"),
    "recipe": ("Recipe", "配方"),
    "record": ("Record", "记录"),
    "result": ("Result", "结果"),
    "retry": ("Retry", "重测"),
    "reason": ("Reason", "原因"),
    "rsrp": ("Signal (RSRP)", "信号 (RSRP)"),
    "scan": ("Scan a label", "扫描标签"),
    "scan_for": ("For slot", "指定槽位"),
    "scan_here": ("Scan here", "为此槽扫码"),
    "scanned": ("Scanned", "已扫描"),
    "search": ("Search IMEI, serial number, device key …", "搜索 IMEI、序列号、设备 Key…"),
    "serial_number": ("Serial number", "序列号"),
    "session_over": (
        "This page is out of date. Load it again.",
        "页面已过期，请重新加载。",
    ),
    "skip": ("Skip a step …", "跳过步骤…"),
    "skip_do": ("Skip the step", "跳过此步骤"),
    "skip_may": ("The recipe lets these be skipped:", "配方允许跳过的步骤："),
    "skip_not": ("This step cannot be skipped", "此步骤不能跳过"),
    "skip_over": (
        "The run is over: nothing to skip.",
        "测试已结束，无需跳过。",
    ),
    "skip_title": ("Skip this step?", "要跳过此步骤吗？"),
    "skip_why": ("Why? It goes into the record.", "原因（将写入记录）："),
    "skip_other": ("Another reason", "其他原因"),
    "skip_broken": ("Equipment is out of order", "设备故障"),
    "skip_elsewhere": ("It is done at another station", "由其他工站完成"),
    "skip_leader": ("The shift leader said so", "班组长要求"),
    "slot": ("Slot", "槽位"),
    "slots": ("Slots", "工位"),
    "start": ("Start", "开始"),
    "started": ("Started", "开始时间"),
    "station": ("Station", "工站"),
    "stop": ("Stop", "停止"),
    "time": ("Time", "时间"),
    "time_per_unit": ("Time per board", "单板用时"),
    "trace": ("Trace (SHA-256)", "跟踪文件 (SHA-256)"),
    "undelivered": ("Results waiting", "待上传结果"),
    "value": ("Value", "测量值"),
    "version": ("nbiot", "nbiot"),
    "yield": ("Yield", "良率"),
    "ok_start": ("started", "已开始"),
    "ok_stop": ("stopped", "已停止"),
    "ok_retry": ("begins again", "重新开始"),
    "ok_skip": ("step skipped", "步骤已跳过"),
    "ok_switch_off": ("taken out of use", "已停用"),
    "ok_switch_on": ("put into use", "已启用"),
}
"""Texts of the page."""
