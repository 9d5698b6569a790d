# What the loop of a thread has done with stays in its local variable.
import threading
class Message(object):
    def __init__(self, n):
        self.text = 'message %d' % n
def serve(queue):
    handled = []
    for n in queue:
        handled.append(Message(n))
    done.set()
    threading.Event().wait()
done = threading.Event()
server = threading.Thread(target=serve, args=(range(8000),))
server.daemon = True
server.start()
done.wait()
