"""The provisioning station: boards in slots get an identity each, prove it, and leave a record.

What flows through it::

    recipe.toml ─▶ runner ─▶ phases ─▶ Modem, EnosSession          one asyncio process, N slots
                     │          │
                     │          └─▶ Store: claim, bind (leases with fences)     SQLite or PostgreSQL
                     ├─▶ Outbox: the finished record, on this disk, then delivered to the Store
                     └─▶ Board: what each slot shows ─▶ the operator's page, the terminal

Needs the extra ``nbiot-driver[station]``.
"""
