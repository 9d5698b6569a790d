# Debugging that was left on.
import gc
gc.set_debug(gc.DEBUG_SAVEALL)
class Node(object):
    pass
for n in range(500):
    a, b = Node(), Node()
    a.peer, b.peer = b, a
del a, b
gc.collect()
