# An extension maps memory and forgets it, in a thread whose stack is nobody's any more.
import culprit, threading
def work():
    for n in range(40):
        culprit.lose_mapping(1 << 18)
thread = threading.Thread(target=work)
thread.start()
thread.join()
