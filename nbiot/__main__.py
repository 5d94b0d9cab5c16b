"""``python -m nbiot``: the command line."""

from nbiot.cli import main

main()
