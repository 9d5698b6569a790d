# Each of many objects that are in use has one reference too many.
import culprit
class Job(object):
    def __init__(self, n):
        self.n = n
JOBS = [Job(n) for n in range(500)]
for job in JOBS:
    culprit.forget(job)
del job
