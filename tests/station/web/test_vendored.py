"""The scripts of others in the package are those that npm has, with their licences."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

STATIC = resources.files("nbiot.station.web") / "static"

VENDORED = {
    # npm: htmx.org 2.0.11, dist/htmx.min.js and LICENSE
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "htmx.LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    # npm: htmx-ext-sse 2.2.4, dist/sse.min.js and LICENSE
    "sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
    "sse.LICENSE": "a17d224ce9afdc21ec9491b76a2f5d036d19aa641ac4f85ca29c21f9f7e54fdf",
}
"""SHA-256 of the files in npm's packages."""


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_files_are_untouched(name: str) -> None:
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == VENDORED[name]


def test_it_is_the_version_that_the_extension_is_for() -> None:
    """htmx-ext-sse 2.2.4 does not work with htmx 4."""
    assert 'version:"2.0.11"' in (STATIC / "htmx.min.js").read_text()
