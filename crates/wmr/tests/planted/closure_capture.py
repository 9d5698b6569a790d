# A function that remembers, in a variable of the function around it.
def make_logger():
    seen = []
    def log(text):
        seen.append((len(seen), text))
    return log
log = make_logger()
for n in range(5000):
    log('message number %d' % n)
