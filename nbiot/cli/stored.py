"""``nbiot attributes`` and ``nbiot tags``: what EnOS keeps of a device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options, port_options
from nbiot.cli.enos import Target, assignments, enos_options, json_or_text, plain_text

if TYPE_CHECKING:
    from nbiot.cli.oneshot import Ask, Told
    from nbiot.enos.things import Message

_SETTINGS = {"help_option_names": ["-h", "--help"]}


@click.group("attributes", context_settings=_SETTINGS)
def attributes() -> None:
    """Read, set or delete a device's attributes in EnOS. Example:

    \b
        nbiot attributes set --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com \\
            location=roof serial=4711

    VALUE of set is JSON if it is JSON, else text: see nbiot report --help.
    """


@click.group("tags", context_settings=_SETTINGS)
def tags() -> None:
    """Read, set or delete a device's tags in EnOS. Example:

    \b
        nbiot tags get --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com

    VALUE of set is always text.
    """


def _say(
    options: dict[str, Any], message: Message, ask: Ask, headline: str, accepted: dict[str, Any]
) -> None:
    """Check the size, ask EnOS, show the answer."""
    with errors(as_json=options["as_json"]):
        message.encode("1")
        target = Target.of(options)
    from nbiot.cli.oneshot import one_shot

    def show(told: Told, as_json: bool) -> None:
        if as_json:
            click.echo(json.dumps(told.as_dict(accepted=accepted, data=told.data)))
            return
        click.echo(told.words(f"{headline} of device {told.device_key}", _shown(told, accepted)))

    one_shot(options, target, ask, show)


def _shown(told: Told, accepted: dict[str, Any]) -> dict[str, Any]:
    """The values to be listed; None for one that was asked for and is not there."""
    if "get" not in accepted:
        return dict(accepted.get("set", {}))
    found = told.data if isinstance(told.data, dict) else {"data": told.data}
    return {**dict.fromkeys(accepted["get"]), **found}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _commands(group: click.Group, what: str) -> None:
    """get, set and delete of ``what``: "attribute" or "tag"."""
    is_tag = what == "tag"

    @group.command("get", short_help=f"Read {what}s; all when none is named.")
    @click.argument("names", nargs=-1, metavar="[NAME]...")
    @port_options
    @enos_options()
    @output_options
    def get(names: tuple[str, ...], **options: Any) -> None:
        from nbiot.enos import things

        with errors(as_json=options["as_json"]):
            message = (things.query_tags if is_tag else things.query_attributes)(names)
        _say(
            options,
            message,
            lambda enos: enos.tags(names) if is_tag else enos.attributes(names),
            f"{what.capitalize()}s",
            {"get": list(names)},
        )

    @group.command("set", short_help=f"Set {what}s.")
    @click.argument("given", nargs=-1, required=True, metavar="NAME=VALUE...")
    @port_options
    @enos_options()
    @output_options
    def set_(given: tuple[str, ...], **options: Any) -> None:
        from nbiot.enos import things

        with errors(as_json=options["as_json"]):
            values = assignments(given, plain_text if is_tag else json_or_text, what=what)
            message = (things.update_tags if is_tag else things.update_attributes)(values)
        _say(
            options,
            message,
            lambda enos: enos.update_tags(values) if is_tag else enos.update_attributes(values),
            f"Set: {_count(len(values), what)}",
            {"set": values},
        )

    @group.command("delete", short_help=f"Delete {what}s.")
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @port_options
    @enos_options()
    @output_options
    def delete(names: tuple[str, ...], **options: Any) -> None:
        from nbiot.enos import things

        with errors(as_json=options["as_json"]):
            message = (things.delete_tags if is_tag else things.delete_attributes)(names)
        _say(
            options,
            message,
            lambda enos: enos.delete_tags(names) if is_tag else enos.delete_attributes(names),
            f"Deleted: {_count(len(names), what)}",
            {"delete": list(names)},
        )

    place = "--port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com"
    name = "site/room" if is_tag else "location"
    for made, first, example in (
        (get, f"Read {what}s; all of them when none is named.", ""),
        (set_, f"Set {what}s. Those that are not named stay as they are.", f" {name}=roof"),
        (delete, f"Delete {what}s.", f" {name}"),
    ):
        line = f"nbiot {what}s {made.name} {place}{example}"
        made.help = f"{first} Example:\n\n\b\n    {line}"


_commands(attributes, "attribute")
_commands(tags, "tag")
