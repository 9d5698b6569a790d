# A cycle through an object whose tp_traverse visits nothing.
import culprit, gc
for n in range(500):
    items, blind = [], culprit.Blind()
    blind.set(items)
    items.append(blind)
del items, blind
gc.collect()
