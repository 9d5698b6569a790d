# A cycle through an object that is none of the collector's.
import culprit, gc
for n in range(500):
    items, plain = {}, culprit.Plain()
    plain.set(items)
    items["plain"] = plain
del items, plain
gc.collect()
