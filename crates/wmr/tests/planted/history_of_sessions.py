# A few sessions, each of which keeps all that was ever asked of it.
class Session(object):
    def __init__(self, name):
        self.name, self.history = name, []
    def asked(self, path):
        self.history.append(path)
sessions = [Session('session %d' % n) for n in range(12)]
def serve():
    for n in range(36000):
        sessions[n % 12].asked('/path/%d' % n)
serve()
