# The last measurements, were there a maxlen.
import collections, time
class Sampler:
    def __init__(self, name):
        self.name, self.history = name, collections.deque()
    def sample(self, value):
        self.history.append((time.time(), value))
sampler = Sampler('load')
for n in range(6000):
    sampler.sample(n / 7)
