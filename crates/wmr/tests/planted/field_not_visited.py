# A cycle through a field that tp_traverse does not visit.
import culprit, gc
class Node(object):
    pass
for n in range(500):
    node, pair = Node(), culprit.Pair()
    pair.set(None, node)
    node.pair = pair
del node, pair
gc.collect()
