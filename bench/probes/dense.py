"""A process full of small objects of one kind: `dense.py KIND COUNT`. What is least per object costs most to look at."""
import os, sys


class Record(object):
    pass


def record(i):
    made = Record()
    made.number, made.nothing = i, None
    return made


MAKES = {
    "object": lambda i: object(),
    "float": float,
    "int": lambda i: 10**6 + i,
    "str": lambda i: "s%d" % i,
    "tuple": lambda i: (i, i + 1),
    "list": lambda i: [i],
    "dict": lambda i: {"number": i},
    "set": lambda i: {i, -i},
    "record": record,
    "rows": lambda i: {"id": i, "name": "n%d" % i, "tags": ["a", str(i)], "at": (float(i), (i, str(i)))},
}

make = MAKES[sys.argv[1]]
kept = [make(i) for i in range(int(sys.argv[2]))]
sys.stdout.write("ready %d\n" % os.getpid())
sys.stdout.flush()
sys.stdin.read()
