# Threads that stand still in as many ways as Python code can, and what the interpreter says of them.
import json, os, sys, threading, time

DEEP = 60
lock = threading.Lock()
lock.acquire()
names = []


def outer(a, b=2, *args, **kw):
    shared = [a, b]
    unset = 1
    del unset

    def inner(c):
        d = (c, shared)
        nonempty = shared and d
        lock.acquire()
        return d
    return inner(c={'k': kw})


def recursion(n):
    text = 'level %d' % n
    if n == 0:
        lock.acquire()
    return (recursion(
        n - 1),
        text)


def generator(n):
    for i in range(n):
        kept = [i] * 3
        yield kept
        if i == 1:
            lock.acquire()


def consumer():
    total = 0
    for item in generator(5):
        total += len(item)


class Sorted(object):
    def __init__(self, n):
        self.n = n

    def __lt__(self, other):
        me, it = self.n, other
        lock.acquire()
        return me < it.n


def in_c():
    things = [Sorted(3), Sorted(2)]
    things.sort()


def in_handler():
    try:
        raise ValueError('handled %d' % 7)
    except ValueError as error:
        seen = error
        try:
            lock.acquire()
        finally:
            seen = None


def in_class_body():
    before = 'class'
    class Body(object):
        attribute = [before]
        lock.acquire()
    return Body


def comprehension():
    return [(lambda y: (lock.acquire(), y))(x) for x in range(3)]


LONG = '\n' * 700 + 'def far(x):\n    z = x\n' + '\n' * 300 + '    wait(\n z\n)\n' + 'far("argument")\n'


def far_away():
    exec(compile(LONG, '<far>', 'exec'), {'wait': lambda z: lock.acquire()})


def backwards():
    i = 0
    while (
        (
            lock.acquire()
            if i == 2 else True
        )
    ):
        i += 1


for work in [lambda: outer(1, 2, 3, key='word'), lambda: recursion(DEEP), consumer, in_c, in_handler,
             in_class_body, comprehension, far_away, backwards]:
    thread = threading.Thread(target=work)
    thread.daemon = True
    thread.start()

ASYNC = '''
import asyncio

async def leaf(future):
    detail = [1, 2]
    return await future

async def branch(n):
    tag = 'branch %d' % n
    value = await leaf(FUTURES[n])
    return value

async def never_begun():
    pass

async def main():
    global FUTURES
    loop = asyncio.get_event_loop()
    FUTURES = [loop.create_future() for n in range(3)]
    tasks = [loop.create_task(branch(n)) for n in range(3)]
    await asyncio.sleep(0)
    TASKS.extend(tasks)
    going.set()
    await asyncio.gather(*tasks)

def run():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
'''
TASKS = []
if sys.version_info >= (3, 6):
    going = threading.Event()
    space = {'TASKS': TASKS, 'going': going}
    exec(compile(ASYNC, '<async>', 'exec'), space)
    thread = threading.Thread(target=space['run'])
    thread.daemon = True
    thread.start()
    going.wait()
    sleeping = space['never_begun']()

waiting = generator(3)
next(waiting)
fresh = generator(3)
over = generator(0)
list(over)


def place(frame):
    code = frame.f_code
    variables = {}
    if code.co_flags & 1 or frame.f_locals is not frame.f_globals:
        variables = dict((str(k), id(v)) for k, v in dict(frame.f_locals).items())
    return [code.co_filename, code.co_name, frame.f_lineno, variables, id(code), code.co_flags & 1]


def stack(frame):
    found = []
    while frame is not None:
        found.append(place(frame))
        frame = frame.f_back
    return found


def is_still(frame):
    text = frame.f_code.co_filename
    return frame.f_code.co_name not in ('start', '_bootstrap', 'run', 'set', 'notify_all')


def report():
    me = threading.current_thread().ident
    main_thread.wait()
    before = None
    # Still when two looks are alike: what blocks does not move.
    while True:
        now = dict((k, (id(f), f.f_lasti, f.f_lineno)) for k, f in sys._current_frames().items() if k != me)
        if now == before and len(now) >= 10:
            break
        before = now
        time.sleep(0.05)
    out = []
    for ident, frame in sys._current_frames().items():
        if ident != me:
            out.append('thread %d %s' % (ident, json.dumps(stack(frame))))
    for gen, state in ((waiting, 'suspended'), (fresh, 'fresh'), (over, 'over')):
        frame = gen.gi_frame
        out.append('generator %d %s' % (id(gen), json.dumps(frame and place(frame))))
    for task in TASKS:
        chain, at = [], getattr(task, 'get_coro', lambda: getattr(task, '_coro', None))()
        while at is not None and getattr(at, 'cr_frame', None) is not None:
            chain.append(place(at.cr_frame))
            at = at.cr_await
        out.append('task %d %s' % (id(task), json.dumps(chain)))
    sys.stdout.write('\n'.join(out) + '\nready %d\n' % os.getpid())
    sys.stdout.flush()
    lock.acquire()


def blocked(n):
    own = [n]
    main_thread.set(); os.read(0, 1)


main_thread = threading.Event()
reporter = threading.Thread(target=report)
reporter.daemon = True
reporter.start()
blocked(5)
os._exit(0)
