# A cycle through an object that says it is one of the collector's, and not how to look through it.
import culprit, gc
gc.disable()
for n in range(500):
    items, opaque = [], culprit.Opaque()
    opaque.set(items)
    items.append(opaque)
del items, opaque
