"""pympler: every reachable object by type, with bytes."""
from pympler import muppy, summary
summary.summarize(muppy.get_objects())
