"""guppy3: what each of the ten kinds with most bytes alone keeps alive."""
from guppy import hpy
heap = hpy().heap()
for kind in range(10):
    heap[kind].domisize
