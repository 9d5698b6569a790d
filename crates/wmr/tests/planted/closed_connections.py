# A pool forgets to throw closed connections away.
class Connection:
    def __init__(self, n):
        self.host, self.closed, self.buffer = 'db%d' % n, False, bytearray(2000)
    def close(self):
        self.closed = True
class Pool:
    def __init__(self):
        self.known = {}
    def connect(self, n):
        return self.known.setdefault(n, Connection(n))
pool = Pool()
for n in range(500):
    pool.connect(n).close()
