import culprit

class Session(object):
    def __init__(self):
        self.user, self.cart, self.seen = "somebody", {}, []

for _ in range(500):
    culprit.lose_holder(Session())
