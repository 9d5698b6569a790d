# Makes several of every type there is, then says what each refers to. Python 2.7 and 3.6+.
# Lines: "refs ADDR TYPE ADDR ADDR ..." an object, "label ADDR REFERENT TEXT" a sample of references.
from __future__ import print_function
import sys, os, gc, itertools, functools, operator, collections, weakref, types, threading, re, array, io, struct
import datetime, decimal, csv, ctypes, random
for name in 'asyncio contextvars typing json sqlite3 xml.etree.ElementTree queue dataclasses enum'.split():
    try: __import__(name)
    except ImportError: pass
PY3 = sys.version_info[0] == 3
keep = []
def add(make, n=3):
    for i in range(n):
        try: keep.append(make(i))
        except Exception: return
def source(text):
    space = dict(globals())
    try: exec(text, space)
    except Exception: return
    keep.append(space)
class Unique(object):
    'Something with an address of its own.'
    __slots__ = ('x', '__weakref__')
    def __init__(self): self.x = None
U = Unique
class Old:
    def __init__(self, i): self.a = U(); self.b = [i]
class New(object):
    def __init__(self, i):
        self.a = U(); self.b = [i]; self.c = 'c%d' % i
class Many(object):
    def __init__(self, i):
        for n in range(3 + i * 9): setattr(self, 'm%d' % n, U())
class Slots(object):
    __slots__ = ('p', 'q', '__dict__')
class SlotsToo(Slots):
    __slots__ = ('r', 's')
class Wide(object):
    __slots__ = ['w%03d' % i for i in range(80)]
class SubDict(dict): pass
class SubList(list):
    __slots__ = ('extra',)
class SubTuple(tuple): pass
class SubInt(int): pass
class SubStr(str): pass
class Meta(type): pass
WithMeta = Meta('WithMeta', (object,), {'v': U()})
class Err(Exception): pass
Point = collections.namedtuple('Point', 'x y')
def slots(c, names):
    o = c()
    for n in names: setattr(o, n, U())
    return o
def materialised(i):
    o = New(i); o.__dict__; return o
def grown(i):
    o = New(i); o.__dict__['d%d' % i] = U(); o.__dict__[3] = U(); return o
def shrunk(i):
    o = New(i); del o.b; return o
add(Old, 20); add(New, 200); add(Many, 6); add(materialised, 20); add(grown, 20); add(shrunk, 20)
add(lambda i: slots(Slots, 'p q z'.split()), 50); add(lambda i: slots(SlotsToo, 'p q r s'.split()), 50)
add(lambda i: slots(Wide, Wide.__slots__), 3)
def sublist(i):
    o = SubList([U()]); o.extra = U(); o.other = U(); return o
def with_dict(c, *a):
    o = c(*a); o.attr = U(); return o
add(lambda i: {b'k': U(), (i, 'a'): U(), ((i,), b'x', None): U()}); add(sublist); add(lambda i: with_dict(SubDict, {U(): U()})); add(lambda i: with_dict(SubTuple, (U(), U())))
add(lambda i: with_dict(SubInt, i)); add(lambda i: with_dict(SubInt, 1 << 70)); add(lambda i: with_dict(SubStr, 'x'))
add(lambda i: [U() for _ in range(i)], 20); add(lambda i: tuple([U() for _ in range(i)]), 20)
add(lambda i: set([U() for _ in range(i * 3)]), 20); add(lambda i: frozenset([U() for _ in range(i)]), 20)
def holes(make, take):
    for x in list(make)[::2]: take(x)
    return make
def holed_set(i):
    s = set([U() for _ in range(20 + i)])
    for x in list(s)[::2]: s.discard(x)
    return s
def holed_dict(i):
    d = dict((U(), U()) for _ in range(20 + i))
    for x in list(d)[::2]: del d[x]
    return d
add(holed_set); add(holed_dict); add(lambda i: dict((U(), U()) for _ in range(i * 7)), 20)
add(lambda i: dict(('key%d' % n, U()) for n in range(i * 7)), 60)
add(lambda i: dict((n - 3, U()) for n in range(i * 7)), 60); add(lambda i: {}); add(lambda i: dict(a=1).copy())
add(lambda i: dict((n, U()) for n in range(70000)), 1)
add(lambda i: collections.deque([U() for _ in range(i * 50)]), 8)
def turned(i):
    d = collections.deque([U() for _ in range(100)])
    d.rotate(37 + i)
    for _ in range(40): d.popleft()
    return d
add(turned); add(lambda i: collections.OrderedDict((U(), U()) for _ in range(i * 5)), 6)
add(lambda i: with_dict(collections.OrderedDict, [('a', U())])); add(lambda i: collections.Counter('abc'))
add(lambda i: collections.defaultdict(U, {1: U()})); add(lambda i: Point(U(), U())); add(lambda i: os.stat('/'))
add(lambda i: sys.version_info); add(lambda i: sys.flags); add(lambda i: collections.ChainMap({1: U()}))
def closure(i):
    y = U(); z = U()
    def inner(a, b=U()): return y, z
    inner.attr = U()
    return inner
add(closure, 30); add(lambda i: closure(i).__closure__[0]); add(lambda i: (lambda: i)); add(lambda i: New.__init__)
add(lambda i: Old(0).__init__); add(lambda i: New(i).__init__); add(lambda i: [].append); add(lambda i: len)
add(lambda i: 'x'.__len__); add(lambda i: [].__add__); add(lambda i: dict.__dict__['fromkeys']); add(lambda i: dict.fromkeys)
add(lambda i: Slots.p); add(lambda i: Slots.__dict__['__dict__']); add(lambda i: int.__add__); add(lambda i: str.join)
add(lambda i: property(len, len, len, 'doc')); add(lambda i: classmethod(closure(i))); add(lambda i: staticmethod(closure(i)))
add(lambda i: super(New, New(i))); add(lambda i: New.__dict__); add(lambda i: types.MethodType(closure(i), U()))
add(lambda i: slice(U(), U(), U())); add(lambda i: range(U.__basicsize__, 1 << 70, 3)); add(lambda i: range(i))
add(lambda i: iter(range(1 << 70))); add(lambda i: iter(range(5))); add(lambda i: memoryview(b'abc' * 9))
add(lambda i: memoryview(array.array('i', [1]))); add(lambda i: iter(memoryview(b'abc'))); add(lambda i: bytearray(b'abc'))
for data in ([U()], (U(),), {U()}, frozenset([U()]), {U(): 1}, 'abc', b'abc', bytearray(b'abc'), collections.deque([U()]),
        collections.OrderedDict([(U(), 1)]), array.array('i', [1, 2]), Point(1, 2)):
    add(lambda i: iter(data))
    if hasattr(data, 'keys'):
        for view in (data.keys(), data.values(), data.items()):
            add(lambda i: view); add(lambda i: iter(view)); add(lambda i: reversed(view))
    add(lambda i: reversed(data))
def started(it):
    for _ in range(2): next(it)
    return it
L = lambda: [U() for _ in range(5)]
class Sequence(object):
    def __getitem__(self, i): return U()
    def __len__(self): return 5
add(lambda i: iter(Sequence())); add(lambda i: reversed(Sequence())); add(lambda i: iter(U, 3))
add(lambda i: enumerate(L())); add(lambda i: enumerate(L(), 1 << 70)); add(lambda i: started(enumerate(L()))); add(lambda i: zip(L(), L()))
add(lambda i: started(zip(L(), L()))); add(lambda i: map(closure(i), L())); add(lambda i: filter(None, L()))
it = itertools
add(lambda i: started(it.accumulate(range(9)))); add(lambda i: it.accumulate(L(), closure(i), initial=U()))
add(lambda i: it.batched(L(), 2)); add(lambda i: it.chain(L(), L())); add(lambda i: started(it.chain.from_iterable([L(), L()])))
add(lambda i: started(it.combinations(L(), 2))); add(lambda i: it.combinations(L(), 2))
add(lambda i: started(it.combinations_with_replacement(L(), 2))); add(lambda i: it.compress(L(), L()))
add(lambda i: it.count(1 << 70, 1 << 71)); add(lambda i: it.count(5)); add(lambda i: started(it.cycle(L()))); add(lambda i: it.dropwhile(closure(i), L()))
add(lambda i: it.filterfalse(None, L())); add(lambda i: started(it.groupby(L()))); add(lambda i: next(it.groupby(L()))[1])
add(lambda i: started(it.islice(L(), 1, 4))); add(lambda i: started(it.pairwise(L()))); add(lambda i: started(it.permutations(L(), 2)))
add(lambda i: started(it.product(L(), L()))); add(lambda i: it.product(L())); add(lambda i: it.repeat(U())); add(lambda i: it.repeat(U(), 5))
add(lambda i: it.starmap(closure(i), L())); add(lambda i: it.takewhile(closure(i), L())); add(lambda i: it.tee(L()))
add(lambda i: started(it.tee(L())[0])); add(lambda i: it.tee(iter(range(200)))[0])
if not PY3:
    add(lambda i: it.ifilter(None, L())); add(lambda i: it.imap(closure(i), L())); add(lambda i: started(it.izip(L(), L())))
    add(lambda i: started(it.izip_longest(L(), L()))); add(lambda i: it.ifilterfalse(None, L())); add(lambda i: xrange(9))
add(lambda i: started(it.zip_longest(L(), L(), fillvalue=U()))); add(lambda i: with_dict(functools.partial, closure(i), U(), k=U()))
def cached(i, size):
    f = functools.lru_cache(size)(lambda x: U())
    for n in range(5): f(U())
    f(3); f(3.5)
    return f
add(lambda i: cached(i, None)); add(lambda i: cached(i, 3)); add(lambda i: cached(i, 0)); add(lambda i: functools.cmp_to_key(closure(i))(U()))
add(lambda i: operator.itemgetter(U(), 1)); add(lambda i: operator.itemgetter(U())); add(lambda i: operator.attrgetter('a.b', 'c')); add(lambda i: operator.methodcaller('m', U(), k=U()))
add(lambda i: weakref.ref(keep[i], closure(i))); add(lambda i: weakref.ref(New(i))); add(lambda i: weakref.proxy(New)); add(lambda i: weakref.proxy(closure(i)))
add(lambda i: weakref.WeakValueDictionary({1: New}))
def generator(i):
    here = U(); other = [U()]
    for thing in other: yield (lambda: here)
    yield U()
def gen(i, n):
    g = generator(i)
    for _ in range(n): next(g)
    return g
add(lambda i: gen(i, 0)); add(lambda i: gen(i, 1), 30); add(lambda i: gen(i, 2)); add(lambda i: list(gen(i, 1)) and gen(i, 0))
def done(i):
    g = gen(i, 0); list(g); return g
add(done); add(lambda i: (U() for _ in range(3)))
def raised(e):
    frame_local = U()
    try:
        try: {}[U()]
        except KeyError: raise e
    except BaseException: return sys.exc_info()
def fail(make):
    for i in range(3):
        try: e = make()
        except Exception: return
        info = raised(e)
        e.attr = U()
        keep.append(info)
        tb = info[2]
        while tb: keep.append(tb); keep.append(tb.tb_frame); tb = tb.tb_next
fail(lambda: ValueError(U(), U())); fail(lambda: Err(U())); fail(lambda: OSError(1, 'x', 'file')); fail(lambda: SyntaxError('m', ('f', 1, 2, 't')))
fail(lambda: ImportError('x', name='n', path='p')); fail(lambda: ImportError('x')); fail(lambda: UnicodeDecodeError('utf8', b'x' * 99, 1, 2, 'why'))
fail(lambda: UnicodeEncodeError('utf8', u'x' * 99, 1, 2, 'why')); fail(lambda: SystemExit(U())); fail(lambda: StopIteration(U())); fail(lambda: NameError('n')); fail(lambda: AttributeError('n', name='n', obj=U()))
fail(lambda: ExceptionGroup('g', [ValueError(U())])); fail(lambda: KeyError(U())); fail(lambda: UnicodeTranslateError(u'x' * 99, 1, 2, 'why'))
def noted():
    e = ValueError(); e.add_note('a'); return e
fail(noted)
add(lambda i: types.ModuleType('m%d' % i)); add(lambda i: with_dict(types.ModuleType, 'mm')); add(lambda i: types.SimpleNamespace(a=U()))
add(lambda i: list[U, int]); add(lambda i: int | str); add(lambda i: __import__('typing').TypeVar('T', bound=New)); add(lambda i: __import__('typing').List[int])
add(lambda i: __import__('typing').ParamSpec('P')); add(lambda i: __import__('typing').TypeVarTuple('Ts'))
add(lambda i: io.BytesIO(b'x' * 99)); add(lambda i: io.StringIO(u'abc')); add(lambda i: io.open('/dev/null')); add(lambda i: io.open('/dev/null', 'rb')); add(lambda i: io.open('/dev/null', 'w'))
def wrapper(i):
    w = io.TextIOWrapper(io.BytesIO(b'a\nb\nc'), 'utf8'); w.readline(); w.attr = U(); return w
add(wrapper); add(lambda i: io.BufferedRWPair(io.BytesIO(), io.BytesIO())); add(lambda i: io.BufferedRandom(io.BytesIO()))
def written(i):
    s = io.StringIO(); s.write(u'abc'); s.write(u'def'); s.attr = U(); return s
add(written); add(lambda i: io.IncrementalNewlineDecoder(None, True)); add(lambda i: io.BytesIO().getbuffer())
add(lambda i: threading.Lock()); add(lambda i: threading.RLock()); add(lambda i: threading.Condition())
def local(i):
    t = threading.local(); t.x = U(); return t
add(local); add(lambda i: re.compile('(?P<a>x)(y)%d' % i)); add(lambda i: re.match('(?P<a>x)', 'xyz' * 9)); add(lambda i: re.finditer('x', 'xx'))
add(lambda i: re.compile('a').scanner('abc')); add(lambda i: re._compile_template(re.compile('(x)(y)'), 'a\\1b\\2c%d' % i)); add(lambda i: struct.Struct('ii')); add(lambda i: struct.iter_unpack('i', b'abcd' * 4)); add(lambda i: array.array('d', [1]))
add(lambda i: decimal.Decimal('1.5')); add(lambda i: decimal.getcontext()); add(lambda i: datetime.datetime.now()); add(lambda i: datetime.timedelta(1)); add(lambda i: random.Random(1))
add(lambda i: (i, Ellipsis, NotImplemented, None, True)); add(lambda i: [datetime.timezone.utc]); add(lambda i: [__import__('typing').NoDefault]); add(lambda i: [datetime.datetime_CAPI])
add(lambda i: datetime.timezone(datetime.timedelta(hours=1), 'n')); add(lambda i: datetime.datetime.now(datetime.timezone.utc)); add(lambda i: csv.reader(L())); add(lambda i: csv.writer(io.StringIO()))
def queued(i):
    q = __import__('queue').SimpleQueue()
    for n in range(i * 4): q.put(U())
    for n in range(i * 3): q.get()
    for n in range(i * 2): q.put(U())
    return q
class S(ctypes.Structure): _fields_ = [('a', ctypes.c_int), ('p', ctypes.c_char_p)]
add(lambda i: S(1, b'x' * 40)); add(lambda i: ctypes.pointer(S())); add(lambda i: (ctypes.c_int * 4)()); add(lambda i: ctypes.CFUNCTYPE(ctypes.c_int)(closure(i)))
add(lambda i: ctypes.c_int(5)); add(lambda i: S.a); add(lambda i: ctypes.byref(S()))
def tree(i):
    import xml.etree.ElementTree as ET
    e = ET.XML('<a x="1">t<b/>u<c>v</c>w</a>'); e.attrib; return e
add(tree); add(lambda i: list(tree(i))); add(lambda i: tree(i).iter())
def database(i):
    import sqlite3
    c = sqlite3.connect(':memory:'); k = c.cursor(); k.execute('select 1'); return c, k
add(database)
add(lambda i: types.CodeType); add(lambda i: compile('x = 1; y = "abc"', 'f', 'exec')); add(lambda i: type('T%d' % i, (New,), {'a': U()}))
add(lambda i: __import__('json').decoder.JSONDecoder().scan_once); add(lambda i: __import__('queue').SimpleQueue()); add(lambda i: queued(i), 12); add(lambda i: types.GetSetDescriptorType)
source('''
import contextvars
variables = [contextvars.ContextVar('v%d' % i, default=U()) for i in range(60)]
contexts = []
for n in (0, 1, 5, 15, 17, 60):
    c = contextvars.Context()
    for v in variables[:n]: c.run(v.set, U())
    contexts.append(c)
token = [variables[0].set(U()) for _ in range(3)]
items = [iter(c.items()) for c in contexts]
''')
source('''
import asyncio
async def coro(a, b):
    c = U()
    await a
async def agen():
    d = U()
    yield d
    await asyncio.sleep(1)
loop = asyncio.new_event_loop()
futures = [loop.create_future() for _ in range(3)]
def callback(f): pass
for f in futures: f.add_done_callback(callback)
tasks = [loop.create_task(coro(f, U())) for f in futures]
agens = [agen() for _ in range(3)]
async def go():
    for g in agens: await g.__anext__()
    await asyncio.sleep(0)
loop.run_until_complete(go())
sends = [g.asend(None) for g in agens]; throws = [g.athrow(ValueError()) for g in agens]; closes = [g.aclose() for g in agens]
iters = [f.__await__() for f in futures]
coros = [coro(None, U()) for _ in range(3)]
wrappers = [c.__await__() for c in coros]
done = loop.create_future(); done.set_result(U())
bad = loop.create_future(); bad.set_exception(ValueError(U())); bad.exception()
queue = asyncio.Queue(); event = asyncio.Event()
''')
source('name = U(); template = [t"hello {name!r:>5}" for _ in range(3)]')
source('type A[T] = list[T]\ndef f[T: int](x: T): return x\nclass C[*Ts, **P]: pass\nA.__value__')
source('annotated = []\nfor i in range(3):\n    def f(a: int, *, k: str = U()) -> None: pass\n    annotated.append(f); f.__annotations__')
if PY3: source('made = [frozendict({U(): U()}) for _ in range(3)]')
else: source('f = [open("/dev/null") for _ in range(3)]\nclass K: a = U()\nu = [u"abc".encode("utf8") for _ in range(3)]')
co = (lambda: 0).__code__
for f in list(keep):
    if type(f) is type(closure): f.__code__.co_code; f.__code__.co_varnames

def hexadecimal(n): return '%x' % (n & 0xffffffffffffffff)
def named(o):
    t = type(o)
    return re.sub('[^!-~]', '?', '%s.%s' % (getattr(t, '__module__', '?'), getattr(t, '__qualname__', t.__name__)))
def labels(say):
    for o in keep:
        t = type(o)
        if t in (New, Many):
            for k, v in sorted(vars(o).items()) if t is Many and len(vars(o)) > 40 else [(k, getattr(o, k)) for k in ['a', 'b', 'm1', 'm2'] if hasattr(o, k)]:
                if isinstance(v, U): say(o, v, '.' + k, '[%r]' % k)
        elif t in (Slots, SlotsToo, Wide):
            for k in list('pqrs') + Wide.__slots__:
                if hasattr(o, k): say(o, getattr(o, k), 'slot ' + k)
        elif t is dict and len(o) < 600:
            for k, v in o.items():
                if type(k) in (str, int, bytes, tuple) and isinstance(v, U): say(o, v, '[%r]' % (k,))
        elif t in (list, tuple, collections.deque):
            for i, v in enumerate(o):
                if isinstance(v, U): say(o, v, '[%d]' % i)
        elif t is types.GeneratorType and o.gi_frame and 'here' in o.gi_frame.f_locals:
            for k, v in o.gi_frame.f_locals.items():
                if k == 'other': say(o if sys.version_info >= (3, 11) else o.gi_frame, v, 'local ' + k)
        elif t is types.FrameType and o.f_code.co_name == 'raised':
            say(o, o.f_locals['frame_local'], 'local frame_local')
        elif t is types.FunctionType and o.__name__ == 'inner':
            for k, c in zip(o.__code__.co_freevars, o.__closure__): say(o, c, 'closure ' + k)
            say(o, o.__code__, '__code__')
            say(o, o.__globals__, '__globals__')
def report():
    rows, seen = [], set()
    def say(o, v, *text): rows.append('label %s %s %s' % (hexadecimal(id(o)), hexadecimal(id(v)), '|'.join(text)))
    labels(say)
    gc.collect(); gc.collect(); gc.disable()
    objects = gc.get_objects()
    hold.append(objects)
    mine = set([id(rows), id(seen), id(objects), id(hold), id(globals()), id(sys._getframe()), id(locals()), id(sys._getframe(1))])
    mine |= set(id(c) for c in say.__closure__)
    every = objects + keep
    n = len(every)
    mine.add(id(every))
    # types become ready when somebody asks for an attribute, and then are among their base's subclasses
    for o in every: named(o)
    for o in every:
        i = id(o)
        if i in mine or i in seen: continue
        seen.add(i)
        rows.append('refs %s %s %s' % (hexadecimal(i), named(o), ' '.join([hexadecimal(id(r)) for r in gc.get_referents(o)])))
    out = '\n'.join(rows) + '\n'
    return out.encode('ascii')
hold = []
'the codec is imported'.encode('ascii')
text = report()
while text: text = text[os.write(1, text):]
