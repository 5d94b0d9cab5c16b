"""The encrypted way on the command line: activation, then a report with what it brought."""

from __future__ import annotations

from pathlib import Path

from hil.cloud import Cloud
from tests.e2e.dtls_front import DtlsFront

from .test_cli import FAST, IMEI, PRODUCT_KEY, SECRET, cloud, run

PORT = f"emulator:bc95-g{FAST}"
PRODUCT_SECRET = "a-product-secret-of-20"


def front(stand_in: Cloud) -> DtlsFront:
    return DtlsFront(
        (stand_in.host, stand_in.port), {(PRODUCT_KEY, IMEI): SECRET}, {PRODUCT_KEY: PRODUCT_SECRET}
    )


async def test_a_device_is_activated_and_reports_encrypted(tmp_path: Path) -> None:
    kept = tmp_path / "device-secret"
    async with cloud() as stand_in, front(stand_in) as server:
        where = ["--port", PORT, "--product-key", PRODUCT_KEY]
        where += ["--server", f"coaps://{server.host}:{server.port}"]
        done = await run(
            "activate", "--store", str(kept), *where, NBIOT_DEVICE_SECRET=PRODUCT_SECRET
        )
        assert done.returncode == 0, done.stderr
        assert f"the secret of device {IMEI} is in {kept}" in done.stdout
        assert kept.stat().st_mode & 0o777 == 0o600
        assert SECRET not in done.stdout + done.stderr
        report = await run("report", "t=1", *where, "--secret-from", f"file:{kept}")
        assert report.returncode == 0, report.stderr
        assert stand_in.thing(PRODUCT_KEY, IMEI).measurepoints["t"].value == 1
        assert server.identities == [f"{PRODUCT_KEY},{IMEI},{mode},3600" for mode in (3, 2)]


async def test_auth_says_that_a_handshake_alone_is_of_no_use() -> None:
    where = ["--port", PORT, "--product-key", PRODUCT_KEY, "--server", "coaps://127.0.0.1"]
    done = await run("auth", *where, NBIOT_DEVICE_SECRET=SECRET)
    assert done.returncode == 26
    assert "nbiot report" in done.stderr
