# The web workload, and what Heapy says each of ten of its containers dominates: `said ADDRESS COUNT BYTES`.
import os, sys
folder, sys.argv = sys.argv[1], ['w2_web.py', '300']
sys.path.insert(0, folder)
import common
common.ready = lambda **truth: None
exec(compile(open(os.path.join(folder, 'w2_web.py')).read(), 'w2_web.py', 'exec'), globals())
import gc
from guppy import hpy
KEYS = list(RESPONSE_CACHE)
CONTAINERS = [
    lambda: RESPONSE_CACHE,
    lambda: RECENT,
    lambda: RECENT[5],
    lambda: RECENT[6].value,
    lambda: RESPONSE_CACHE[KEYS[7]],
    lambda: RESPONSE_CACHE[KEYS[8]]['headers'],
    lambda: app.view_functions,
    lambda: USERS[3],
    lambda: app.url_map,
    lambda: Base.metadata,
]
heapy = hpy()
gc.collect()
SAID = []
for container in CONTAINERS:
    alone = heapy.iso(container())
    dominated = alone.dominos
    SAID.append('said %d %d %d' % (id(container()), dominated.count, dominated.size))
    del alone, dominated
print('\n'.join(SAID))
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
