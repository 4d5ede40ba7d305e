"""How fast this machine scores images: the parts by themselves, and all of it from files."""

from carzero.speed.run import SpeedResult, SpeedRun
from carzero.speed.timing import SpeedRow

__all__ = ["SpeedResult", "SpeedRow", "SpeedRun"]
