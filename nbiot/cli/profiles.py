"""``nbiot profiles``: the modems this driver knows, and on what evidence."""

from __future__ import annotations

import json
from typing import Any

import click

from nbiot.errors import BadInput


@click.group(
    "profiles",
    invoke_without_command=True,
    short_help="List the modems this driver knows, and on what evidence.",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the modems this driver knows.

    "captured" facts are shown by a recorded dialogue of a real modem, "from_manual" ones by a
    document or another driver. No modem was tried on hardware by the authors.
    """
    if ctx.invoked_subcommand is None:
        from nbiot.modem import profiles

        for name, profile in sorted(profiles().items()):
            captured, total = _count(profile)
            click.echo(
                f"{name:8} {profile.title:22} {captured} of {total} facts captured,"
                f" {total - captured} from manuals"
            )


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def show(name: str, as_json: bool) -> None:
    """Print every fact of a profile with its evidence."""
    from nbiot.modem import profiles

    known = profiles()
    if name not in known:
        raise BadInput("profile", name, ", ".join(known))
    profile = known[name]
    facts = _facts(profile)
    if as_json:
        click.echo(json.dumps({"name": name, "title": profile.title, "facts": facts}))
        return
    click.echo(
        f"{profile.title}: {profile.limits.datagram} bytes a datagram,"
        f" {profile.limits.sockets} sockets, {profile.baudrates[0]} baud"
    )
    for note in profile.notes:
        click.echo(f"note: {note}")
    for fact in facts:
        click.echo(f"{fact['kind']:8} {fact['text']:58} {fact['evidence']}")


def _facts(profile: Any) -> list[dict[str, str]]:
    commands = [("command", row.text, row.evidence) for row in profile.commands.values()]
    urcs = [("urc", urc.notation, urc.evidence) for urc in profile.dialect.urcs]
    banners = [
        ("banner", f"ends with {b.last.decode()}", b.evidence) for b in profile.dialect.banners
    ]
    return [
        {"kind": kind, "text": text, "evidence": evidence}
        for kind, text, evidence in commands + urcs + banners
    ]


def _count(profile: Any) -> tuple[int, int]:
    facts = _facts(profile)
    return sum(fact["evidence"].startswith("captured") for fact in facts), len(facts)
