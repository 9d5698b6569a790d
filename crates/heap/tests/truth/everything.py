# Makes some of everything, then says what the interpreter itself counts. Python 2.7 and 3.6+.
# Lines on stdout: "size ADDR BYTES TYPE" per object, "type COUNT NAME" per collected type,
# "mallinfo ..." and the output of sys._debugmallocstats(), then one JSON line.
from __future__ import print_function
import sys, os, gc, json, ctypes
for name in '''collections decimal datetime re struct threading io array xml.etree.ElementTree sqlite3 functools
itertools weakref asyncio concurrent.futures logging unittest email.message http.client fractions enum dataclasses
contextvars typing socket ssl hashlib zlib lzma bz2 random csv uuid pickle queue selectors subprocess tempfile
argparse textwrap operator types copy heapq bisect traceback inspect ast dis tokenize codecs locale string
urllib.request html.parser configparser statistics numbers abc contextlib shutil glob fnmatch mmap select signal
platform ipaddress secrets multiprocessing.connection tracemalloc difflib pprint gettext optparse'''.split():
    try:
        __import__(name)
    except ImportError:
        pass
import collections, decimal, datetime, re, struct, threading, io, array, functools, itertools, weakref, types, random
import xml.etree.ElementTree as ET
PY3 = sys.version_info[0] == 3
# M_MMAP_THRESHOLD, which else grows with what is freed: what is large is in a mapping of its own
ctypes.CDLL(None).mallopt(-3, 131072)
# started first, so that they have long been waiting when it is counted
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(2)]
for t in threads: t.daemon = True; t.start()
N = 400
keep = []
add = keep.append

class Plain(object):
    def __init__(self, i):
        self.a = i; self.b = str(i); self.c = [i]
class Slots(object):
    __slots__ = ('x', 'y', '__weakref__')
    def __init__(self, i): self.x = i; self.y = (i, i)
class Nine(object):
    def __init__(self, i):
        for k in 'abcdefghi': setattr(self, k, i)
class Old:
    def __init__(self, i): self.q = i
class MyDict(dict): pass
class MyList(list): pass
class MyTuple(tuple): pass
class MyStr(str): pass
class MyInt(int): pass
class MyBytes(bytes): pass
class MyFloat(float): pass
class MySet(set): pass
class Meta(type): pass
Made = Meta('Made', (object,), {'__slots__': ('one', 'two', 'three')})
NT = collections.namedtuple('NT', 'p q r')
class Err(Exception): pass
def gen(n):
    x = [n]
    while True:
        yield x
def outer(n):
    def inner(): return n
    return inner

# neighbours in the collector's lists, items and tables far from each other, in blocks of which half were others' before
aged = []
for turn in range(4 if os.environ.get('AGED') else 0):
    aged += [[[i], (i, str(i)), {i: [str(i)]}, (Plain(i), (str(i), turn))][i % 4] for i in range(40000)]
    random.Random(turn).shuffle(aged)
    del aged[len(aged) // 2:]

for i in range(N):
    add(Plain(i)); add(Slots(i)); add(Old(i)); add(Made())
    p = Plain(i); p.__dict__['z'] = i; p.extra = 1; add(p)
    add(MyDict({i: i})); add(MyList([i] * (i % 7))); add(MyTuple((i,) * (i % 5))); add(MyStr('s%d' % i))
    add(MyInt(i << (i % (90 if PY3 else 40)))); add(MyBytes(b'x' * (i % 40))); add(MyFloat(i)); add(MySet([i, i + 1]))
    add({j: j for j in range(i % 50)}); add([j for j in range(i % 50)]); add(set(range(i % 70))); add(frozenset(range(i % 70)))
    add(tuple(range(i % 30))); add('a' * i); add(u'\xe9' * i); add(u'\u20ac' * (i % 100)); add(u'\U0001f600' * (i % 90)); add(b'b' * i)
    add(bytearray(i)); add(i << (i % 300)); add(-(7 ** (i % 99))); add(i * 0.5); add(complex(i, 1)); add(NT(i, i, i))
    d = collections.deque(range(i)); add(d)
    if i % 3 == 0: d.rotate(17); [d.popleft() for _ in range(i // 3)]
    add(collections.OrderedDict((j, j) for j in range(i % 40))); add(collections.defaultdict(list, {i: [i]})); add(collections.Counter('abc'))
    add(array.array('d', [1.0] * (i % 60))); add(memoryview(bytearray(20))); add(decimal.Decimal(10) ** (i % 120) / 3)
    add(datetime.datetime(2000, 1, 1 + i % 28)); add(datetime.timedelta(i)); add(datetime.date(2000, 1, 1)); add(datetime.time(1, 2))
    add(iter([1, 2])); add(iter((1, 2))); add(iter({1: 2})); add(iter({1})); add(range(i)); add(reversed([1])); add(slice(1, i))
    g = gen(i); next(g); add(g); add(gen(i)); add(outer(i)); add(lambda a=i: a); add(functools.partial(outer, i)); add(p.__init__)
    add(itertools.count(i)); add(itertools.chain([1], [2])); add(itertools.islice([1, 2], 1)); add(itertools.cycle([1]))
    add(itertools.product([1, 2], [3])); add(itertools.permutations([1, 2, 3], 2)); add(itertools.combinations([1, 2, 3], 2)); add(zip([1], [2])); add(enumerate([1]))
    add(weakref.ref(p)); add(weakref.proxy(p)); add(property(outer)); add(staticmethod(outer)); add(classmethod(outer)); add(Err(i, 'x'))
    add(io.BytesIO(b'y' * i)); add(io.StringIO(u'y' * i)); add(struct.Struct('<%di' % (i % 9 + 1))); add(re.compile('r%d+' % i)); add(re.match('(r)(%d)' % i, 'r%d' % i))
    add(threading.Lock()); add(threading.Event()); add(threading.local()); add(random.Random(i))
    add(ET.fromstring('<a b="%d"><c/><d>t</d></a>' % i)); add(object()); add(types.ModuleType('m%d' % i)); add(compile('x=%d\ndef f(a, b=2):\n  return [a for _ in b]' % i, 'f%d' % i, 'exec'))
    add((ctypes.c_int * (i % 50 + 1))()); add(ctypes.c_double(i)); add(ctypes.create_string_buffer(100)); add(type('T%d' % i, (object,), {'__doc__': 'doc', '__slots__': ('s%d' % (i % 5),)}))
    add(type('D%d' % i, (Plain,), {'f': outer})); add(super(Plain, p)); add((i,))
    if i % 10 == 0:
        # in chunks that malloc maps by themselves, of all lengths modulo the page
        n = 150000 + 97 * i; add(b'b' * n); add(u'a' * n); add(u'\xe9' * n); add(u'\u20ac' * n); add((i,) * n); add(1 << 8 * n); add(bytearray(n))
        add(Nine(i)); s = MyStr('long' * 50); add(s); add(random.getrandbits(5000)); add('\xff' * 3000); add(list(range(3000))); add(dict.fromkeys(range(3000)))
if PY3:
    for i in range(N):
        d = 'caf\xe9%d' % i; d.encode('utf-8'); add(d); import_utf8 = ctypes.pythonapi.PyUnicode_AsUTF8; import_utf8.argtypes = [ctypes.py_object]; import_utf8.restype = ctypes.c_char_p; import_utf8(d)
        add(types.SimpleNamespace(a=i)); add(types.MappingProxyType({})); add(os.stat('/')); add(sys.exc_info())
        l = []
        for k in range(i % 13): l.append(k)
        while len(l) > 3: l.pop()
        add(l)
    exec('''
async def coro(x): return x
async def agen(x): yield x
''')
    for i in range(20):
        c = coro(i); add(c); add(agen(i))
    try: 1 / 0
    except ZeroDivisionError as e: add(e); add(e.__traceback__)
add(io.open(os.devnull, 'rb')); add(io.open(os.devnull, 'r')); add(io.open(os.devnull, 'wb'))
lru = getattr(functools, 'lru_cache', None)
if lru:
    cached = lru(maxsize=100)(lambda x: [x])
    for i in range(150): cached(i)
gc.collect(); gc.disable()

def name_of(t):
    m = t.__module__; q = getattr(t, '__qualname__', t.__name__)
    return q if m in ('builtins', '__builtin__') else '%s.%s' % (m, q)

def sizes(out):
    seen = set(); stack = []; own = {id(seen), id(stack), id(out)}
    own.add(id(own)); own.add(id(sys._getframe()))
    stack.extend(gc.get_objects())
    n = 0
    while stack and n < 120000:
        o = stack.pop()
        if id(o) in seen or id(o) in own: continue
        seen.add(id(o)); n += 1
        t = type(o)
        if t.__module__ != '__main__' or t.__name__ != 'frame':
            try: out.append('size %x %d %s' % (id(o), sys.getsizeof(o), name_of(t)))
            except Exception: pass
        stack.extend(gc.get_referents(o))
        if len(out) > 500:
            os.write(1, ('\n'.join(out) + '\n').encode('utf-8', 'replace')); del out[:]
    os.write(1, ('\n'.join(out) + '\n').encode('utf-8', 'replace')); del out[:]

def counts():
    types = {}
    frame = id(sys._getframe()); objects = gc.get_objects()
    mine = {id(types), id(objects)}
    for o in objects:
        if id(o) in mine: continue
        t = type(o)
        types[t] = types.get(t, 0) + 1
    del objects, o
    out = ['type %d %s' % (n, name_of(t)) for t, n in types.items()]
    os.write(1, ('\n'.join(out) + '\n').encode('utf-8', 'replace'))

# mallinfo2() returns its ten numbers through a hidden first argument: to give that allocates nothing
info = (ctypes.c_size_t * 10)()
where = ctypes.c_void_p(ctypes.addressof(info))
libc = ctypes.CDLL(None)
mallinfo = getattr(libc, 'mallinfo2', len)
if mallinfo is len: where = ''
else:
    mallinfo.restype = None
    os.write(1, ('mallinfo %x\n' % where.value).encode())
pause = __import__('signal').pause
# ends with the test however that ends: PR_SET_PDEATHSIG, SIGKILL
libc.prctl(1, 9)
stats = getattr(sys, '_debugmallocstats', lambda: None)
write = os.write
def last():
    write(1, line)
    # three times: what the first calls leave behind in free lists is then at rest
    mallinfo(where); mallinfo(where)
    stats()
    mallinfo(where)
    write(1, ready)
    pause()
line = json.dumps({'version': sys.version.split()[0], 'kept': len(keep)}) + '\n'
os.dup2(1, 2)
ready = ('ready %d\n' % os.getpid()).encode()
line = line.encode()
if len(sys.argv) < 2: sizes([])
gc.collect()
counts()
last()
