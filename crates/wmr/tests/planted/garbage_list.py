# Cycles of objects with finalizers, which the collector of Python 2 gives up on.
import gc
class Node(object):
    def __del__(self):
        pass
for n in range(500):
    a, b = Node(), Node()
    a.peer, b.peer = b, a
del a, b
gc.collect()
