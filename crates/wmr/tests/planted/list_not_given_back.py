# A new list with something in it, which an extension forgets.
import culprit, gc
for n in range(500):
    culprit.lose_list("item %d" % n)
gc.collect()
