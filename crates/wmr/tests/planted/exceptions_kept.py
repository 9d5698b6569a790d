# Errors are collected for a report that nobody asks for.
class Monitor:
    def __init__(self):
        self.failures = []
    def watch(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            self.failures.append(error)
def work(n):
    document = ['paragraph %d of %d' % (i, n) for i in range(50)]
    return document[n + 100]
monitor = Monitor()
for n in range(300):
    monitor.watch(work, n)
