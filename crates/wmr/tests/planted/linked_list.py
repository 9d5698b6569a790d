# A history in which each state knows the one before it.
class State:
    def __init__(self, before, n):
        self.before, self.text = before, 'text after change %d' % n
document = None
for n in range(5000):
    document = State(document, n)
