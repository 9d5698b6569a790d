# A large cache with an end: for each entry that comes one goes.
import collections, sys
SIZE = 20000
recent = collections.OrderedDict()
def remember(n):
    recent[n] = 'value %d' % n
    if len(recent) > SIZE:
        recent.popitem(last=False)
for n in range(30000):
    remember(n)
