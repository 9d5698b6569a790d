import gc
gc.disable()

class Node(object):
    def __init__(self):
        self.itself = self

# The hash of a number is the number: none of these tables holds a node.
NAMES, SMALL, SEEN = {}, [], set()
for i in range(500):
    node = Node()
    NAMES[id(node)] = "node"
    SMALL.append(({id(node): i}, set([id(node)])))
    SEEN.add(id(node))
del node
