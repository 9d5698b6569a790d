# Plants blocks that are no objects and look like some. Prints "planted ADDR WHAT" for each.
from __future__ import print_function
import sys, os, gc, ctypes, random, struct, array
api = ctypes.pythonapi
libc = ctypes.CDLL(None)
TABLE = 32 if sys.version_info[0] > 2 else 40
for f in (api.PyMem_Malloc, libc.malloc):
    f.restype = ctypes.c_void_p; f.argtypes = [ctypes.c_size_t]
random.seed(7)
def noise(n): return bytes(bytearray(random.getrandbits(8) for _ in range(n)))
def words(*w): return struct.pack('<%dQ' % len(w), *[x & (1 << 64) - 1 for x in w])
class C(object):
    def __init__(self): self.a = 1
live = [C() for _ in range(50)]
table = {i: str(i) for i in range(100)}
names = {'k%d' % i: i for i in range(60)}
tup = tuple(live)
types = [int, float, str, list, dict, tuple, C, type, set, bytes, object, type(None)]
def peek(addr, n): return ctypes.string_at(addr, n)
out = []
def plant(what, data):
    alloc = libc.malloc if len(out) % 2 else api.PyMem_Malloc
    p = alloc(len(data)); ctypes.memmove(p, data, len(data)); out.append((p, what))
N = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
gc.collect()
none = id(None)
while len(out) < N:
    i = len(out); t = random.choice(types); o = random.choice(live)
    plant('random', noise(random.choice([16, 24, 40, 64, 200, 600, 1500])))
    # items of a tuple or list that begin like a header: an object, then a class
    plant('items', words(id(o), id(t), id(o), id(t)))
    plant('items', words(none, id(t), none))
    plant('items', words(id(t), id(t)))
    plant('items', words(*([none, id(t)] * random.randint(1, 90))))
    plant('items', words(id(o), none, id(t), id(t), none, id(t), id(t), id(o)))
    # a copy of a collected object: its neighbours in the list do not know it
    plant('copy', peek(id(o) - 16, 64)); plant('copy', peek(id(o) - 32, 80))
    plant('copy', peek(id(tup) - 16, 16 + tup.__sizeof__()))
    # freed: no count, or the allocator's link in its place
    plant('freed', words(0, id(t), 0, 0)); plant('freed', words(out[-1][0], id(t), 3, 3)); plant('freed', b'\xdd' * 48)
    plant('freed', words(0, 0, 0, id(t), 5, 5)); plant('freed', words(0xdddddddddddddddd, id(t), 0, 0, 0, 0))
    # stale tables
    keys = ctypes.c_void_p.from_address(id(table) + TABLE).value; plant('table', peek(keys, 600))
    keys = ctypes.c_void_p.from_address(id(names) + TABLE).value; plant('table', peek(keys, 400))
    plant('table', words(1, 0x303, 0, 5, 0xffffffffffffff00, id(o), id(t), id(o), id(t)))
    plant('table', words(hash('x'), id(t), id(o), hash('y'), id(t), id(o)))
    # counts that cannot be
    plant('count', words(-1, id(t), 1, 1)); plant('count', words(1 << 40, id(t), 1, 1)); plant('count', words(id(o), id(C), 0, 0))
    # a type's name is no type, and an instance is none
    plant('nontype', words(1, id(o), 0, 0)); plant('nontype', words(1, none, 0, 0)); plant('nontype', words(1, id(t) + 8, 0, 0))
    # sizes that do not fit the block
    plant('size', words(1, id(list), 1 << 50, 0, 0)); plant('size', words(1, id(tuple), 1000, 0)); plant('size', words(1, id(bytes), 5000, 0))
    # almost what libraries have: their shapes, with one thing wrong
    plant('arena', words(256, 16, 0, out[-1][0] + 32) + b'\0' * 240); plant('arena', words(1 << 40, 16, 0, 0))
    plant('stream', words(0xfbad2484) + words(*[out[-1][0]] * 27)); plant('sized', words(56, *[out[-1][0]] * 6))
    plant('class', words(id(t), id(o), id(t))); plant('class', words(id(int) + 16, id(int) + 24, 0, 0))
    plant('class', words(ctypes.cast(api.PyMem_Malloc, ctypes.c_void_p).value, 0, 0, 0))
addresses = array.array('Q' if sys.version_info[0] > 2 else 'L', [p for p, _ in out])
lines = '\n'.join('planted %x %s' % x for x in out) + '\n'
del out, o, t
gc.collect()
sys.stdout.write(lines); sys.stdout.flush()
