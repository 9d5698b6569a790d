# Two objects that know each other, and nobody to collect them.
import gc
gc.disable()
class Node(object):
    def __init__(self):
        self.peer = None
        self.load = bytearray(1000)
for n in range(500):
    a, b = Node(), Node()
    a.peer, b.peer = b, a
del a, b
