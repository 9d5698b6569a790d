# The last error, kept to be looked at later, and with it the frames it went through.
last_error = None
def parse(n):
    rows = [['%d/%d' % (n, i)] * 3 for i in range(4000)]
    raise ValueError('line %d of %d' % (n, len(rows)))
try:
    parse(7)
except ValueError as error:
    last_error = error
