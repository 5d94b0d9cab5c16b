"""The suite: checks that run against any slot of a rig, real or emulated.

``nbiot hil run``, or ``pytest --pyargs hil.suite --rig rig.toml``. See docs/hil.md.
"""
