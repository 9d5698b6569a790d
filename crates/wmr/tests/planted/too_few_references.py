# A reference is given back that was never taken: the objects end while they are in use.
import culprit
class Job(object):
    def __init__(self, n):
        self.n = n
JOBS = [Job(n) for n in range(500)]
AGAIN = list(JOBS)
for job in JOBS:
    culprit.overdo(job)
del job
