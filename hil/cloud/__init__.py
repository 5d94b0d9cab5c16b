"""A stand-in for the EnOS CoAP server (non-DTLS), to be run on a loopback port.

It shares no code with the driver: it computes signatures and reads topics by itself, so that a
mistake in one of the two shows as a disagreement.  The codec and the separate answers are
aiocoap's; block-wise transfers, de-duplication and everything above are written here.

Where things are:

- `server`: `Cloud`, which puts the rest together; sessions; which path is handled by whom.
- `auth`: the claim of /auth and its signature.
- `things`: the JSON topics, the thing model, what the cloud knows of a device.
- `commands`: the command queue of a device and the replies.
- `limits`: the documented limits, each with a switch.
- `blocks`: RFC 7959, both directions.
- `border`: where datagrams enter and leave: de-duplication, faults, impairments.
- `behaviour`: how a request is treated on purpose.
- `records`: what is kept to be read afterwards.
"""

from hil.cloud.auth import LIFETIMES, SECURE_MODE, Device, sign
from hil.cloud.behaviour import Behaviour
from hil.cloud.border import Impairment
from hil.cloud.commands import (
    Command,
    CommandReply,
    CommandState,
    Downlink,
    QueueFull,
)
from hil.cloud.limits import Limits
from hil.cloud.records import Address, Counters, Datagram, DeviceId, Kept, Report, Request
from hil.cloud.server import Cloud
from hil.cloud.things import Measurepoint, Thing, ThingModel

__all__ = [
    "LIFETIMES",
    "SECURE_MODE",
    "Address",
    "Behaviour",
    "Cloud",
    "Command",
    "CommandReply",
    "CommandState",
    "Counters",
    "Datagram",
    "Device",
    "DeviceId",
    "Downlink",
    "Impairment",
    "Kept",
    "Limits",
    "Measurepoint",
    "QueueFull",
    "Report",
    "Request",
    "Thing",
    "ThingModel",
    "sign",
]
