# Threads that have ended, kept with what they worked on.
import threading
class Job(threading.Thread):
    def run(self):
        self.result = [i * 3 + self.size for i in range(self.size)]
JOBS = []
for n in range(150):
    job = Job()
    job.size = 200 + n
    JOBS.append(job)
    job.start()
    job.join()
