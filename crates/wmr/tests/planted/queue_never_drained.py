# The thread that took from the queue has died.
import queue, threading
jobs = queue.Queue()
def consume():
    job = jobs.get()
threading.Thread(target=consume, daemon=True).start()
for n in range(4000):
    jobs.put({'id': n, 'arguments': ('mail', 'user%d@example.org' % n)})
