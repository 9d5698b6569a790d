# A generator that was begun and is never finished.
def lines(n):
    parsed = []
    for i in range(n):
        parsed.append({'number': i, 'text': 'line %d' % i})
    for line in parsed:
        yield line
pending = lines(5000)
next(pending)
