# Proxies as SWIG makes them, without a destructor: each leaves its C++ object behind.
import sessions
class Connection(object):
    def __init__(self, n):
        self.this = sessions.new_Connection(n)
for n in range(500):
    Connection(n)
