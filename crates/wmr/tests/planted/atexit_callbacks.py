# Every session wants to be closed when the program ends.
import atexit
class Session:
    def __init__(self, n):
        self.buffer = [n] * 100
        atexit.register(self.close)
    def close(self):
        self.buffer = None
for n in range(2000):
    Session(n)
