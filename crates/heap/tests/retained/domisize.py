# The web workload, and what Heapy says each of ten of its containers dominates: `said ADDRESS COUNT BYTES`.
import os, sys
folder, sys.argv = sys.argv[1], ['w2_web.py', '300']
sys.path.insert(0, folder)
import common
common.ready = lambda **truth: None
exec(compile(open(os.path.join(folder, 'w2_web.py')).read(), 'w2_web.py', 'exec'), globals())
import gc
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
# Heapy asks for every instance's dict, and where attributes were kept without one there is one from then on.
for seen in gc.get_objects():
    try:
        seen.__dict__
    except Exception:
        pass
del seen
gc.collect()
# Heapy keeps ten references to everything it has seen. Then any word left over on a stack may be one of them; so
# it is asked in a copy of the process, where the addresses are the same.
ours, its = os.pipe()
if os.fork() == 0:
    from guppy import hpy
    heapy = hpy()
    gc.collect()
    for container in CONTAINERS:
        alone = heapy.iso(container())
        dominated = alone.dominos
        os.write(its, b'said %d %d %d\n' % (id(container()), dominated.count, dominated.size))
        del alone, dominated
    os._exit(0)
os.close(its)
with os.fdopen(ours) as answer:
    sys.stdout.write(answer.read())
os.wait()
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
