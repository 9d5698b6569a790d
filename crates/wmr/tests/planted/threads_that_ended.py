# glibc keeps the stacks of threads that ended, whatever was on them.
import sys, threading
sys.setrecursionlimit(20000)
def deep(n):
    return max([n], key=lambda at: deep(at - 1) if at else 0)
threading.stack_size(16 << 20)
for _ in range(4):
    thread = threading.Thread(target=deep, args=(3000,))
    thread.start()
    thread.join()
