# A C callback is made for every call, and kept as the documentation says.
import ctypes
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
keep_alive = []
def register(n):
    def called(x, context=['context %d' % n]):
        return x + n
    keep_alive.append(CALLBACK(called))
for n in range(2000):
    register(n)
