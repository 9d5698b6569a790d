# Cycles that wait, as the collector is set to come by once a million objects were made.
import gc
gc.set_threshold(1000000, 50, 50)
class Node(object):
    pass
for n in range(500):
    a, b = Node(), Node()
    a.peer, b.peer = b, a
del a, b
