import culprit

def make():
    class Local(object):
        def __init__(self):
            self.payload = [0]
    return Local()

# Each is of a class of its own, and all of these have one name.
for _ in range(200):
    culprit.forget(make())
