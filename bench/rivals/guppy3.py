"""guppy3: every reachable object by type, with bytes."""
from guppy import hpy
str(hpy().heap())
