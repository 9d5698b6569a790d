"""Run inside a workload once it is ready: what the process itself notices of somebody looking at it.

Orders come line by line. `spin`: watches its clock, and says the largest gap at the next line, in ns.
`touch`: takes every object into its hands, round after round, and says at the next line how many rounds
that were, and their time by the clock and on the CPU, ns. `rounds`: the same, and says of every round when
it began since the epoch, its time by the clock, and how much of it was spent waiting for a CPU, ns. Each
order is acknowledged by a line.
"""
import gc, os, select, time


def everything():
    """All objects that the collector knows and what these refer to, each once."""
    known = gc.get_objects()
    seen = set(map(id, known))
    for o in known:
        for other in gc.get_referents(o):
            if id(other) not in seen:
                seen.add(id(other))
                known.append(other)
    return known


def told():
    return select.select([0], [], [], 0)[0]


def spin():
    clock, largest = time.monotonic_ns, 0
    last = clock()
    while not told():
        for _ in range(2000):
            now = clock()
            if now - last > largest:
                largest = now - last
            last = now
    return largest


def touch_all():
    # Each reference count is incremented, and decremented at the next one.
    for o in OBJECTS:
        pass


def touch():
    rounds = wall = cpu = 0
    while not told() or not rounds:
        began, began_cpu = time.monotonic_ns(), time.thread_time_ns()
        touch_all()
        wall += time.monotonic_ns() - began
        cpu += time.thread_time_ns() - began_cpu
        rounds += 1
    return '%d %d %d' % (rounds, wall, cpu)


def waited():
    with open('/proc/thread-self/schedstat') as f:
        return int(f.read().split()[1])


def rounds():
    said = []
    while not told() or not said:
        began, queued = time.time_ns(), waited()
        touch_all()
        said.append('%d %d %d' % (began, time.time_ns() - began, waited() - queued))
    return ' '.join(said)


OBJECTS = everything()
# Its own doings must not be taken for somebody else's.
gc.collect()
gc.disable()
orders = os.fdopen(0, 'rb', 0, closefd=False)
for order in iter(orders.readline, b''):
    print('begins', flush=True)
    said = {b'spin': spin, b'touch': touch, b'rounds': rounds}[order.strip()]()
    orders.readline()
    print(said, flush=True)
