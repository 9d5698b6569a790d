# A module's list that every request is appended to.
class Event:
    def __init__(self, n):
        self.n, self.payload = n, 'payload %08d' % n
EVENTS = []
def handle(n):
    EVENTS.append(Event(n))
for n in range(5000):
    handle(n)
