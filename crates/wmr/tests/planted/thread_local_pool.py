# Threads of a pool that nobody shuts down, each with a buffer of its own.
import threading
local = threading.local()
started, forever = threading.Semaphore(0), threading.Event()
def worker(n):
    local.buffers = ['%d: %d' % (n, i) for i in range(1000)]
    started.release()
    forever.wait()
for n in range(12):
    threading.Thread(target=worker, args=(n,), daemon=True).start()
for n in range(12):
    started.acquire()
