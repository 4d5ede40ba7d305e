"""`python -m carzero`, and so `torchrun -m carzero train ...`."""

from carzero.cli.main import run

run()
