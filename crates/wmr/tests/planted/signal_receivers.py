# Receivers of a signal, connected strongly by every form that is made.
class Signal:
    def __init__(self):
        self.receivers = []
    def connect(self, receiver, sender=None, dispatch_uid=None):
        self.receivers.append(((dispatch_uid or id(receiver), id(sender)), receiver))
    def send(self, sender, **named):
        return [(receiver, receiver(sender, **named)) for _, receiver in self.receivers]
post_save = Signal()
class Form:
    def __init__(self, n):
        self.fields = {'name': 'name %d' % n, 'mail': '%d@example.org' % n}
        post_save.connect(lambda sender, **named: self.fields.update(named))
for n in range(2000):
    Form(n)
