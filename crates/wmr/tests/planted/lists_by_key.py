# An index by day; days pass, entries stay.
import collections
visits = collections.defaultdict(list)
class Visit(object):
    __slots__ = ('page', 'user')
    def __init__(self, page, user):
        self.page, self.user = page, user
def visited(day, n):
    visits['2024-01-%02d' % day].append(Visit('/page/%d' % n, n + 1000))
for n in range(8000):
    visited(n % 20 + 1, n)
