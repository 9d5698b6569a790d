# Views subscribe to a bus and never unsubscribe.
class Bus:
    def __init__(self):
        self.listeners = {}
    def on(self, name, function):
        self.listeners.setdefault(name, []).append(function)
bus = Bus()
class View:
    def __init__(self, n):
        self.rows = ['row %d' % (n + i) for i in range(5)]
        bus.on('changed', self.refresh)
    def refresh(self):
        pass
for n in range(2000):
    View(n)
