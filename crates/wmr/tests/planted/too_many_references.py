# A reference to what is in use is taken, and not given back.
import culprit
class Job(object):
    def __init__(self, n):
        self.n = n
CONFIG = Job(0)
for n in range(500):
    culprit.forget(CONFIG)
