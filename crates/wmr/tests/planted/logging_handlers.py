# Each request sets logging up anew.
import io, logging
def request(n):
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter('%(asctime)s request ' + str(n)))
    logging.getLogger('shop.requests').addHandler(handler)
for n in range(600):
    request(n)
