# A cache by argument that forgets nothing.
RESPONSES = {}
def fetch(n):
    key = 'GET /item/%d' % n
    if key not in RESPONSES:
        RESPONSES[key] = {'status': 200, 'body': 'item %d' % n, 'tags': ['a%d' % n, 'b%d' % n]}
    return RESPONSES[key]
for n in range(5000):
    fetch(n)
