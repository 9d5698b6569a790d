"""Ten thousand records of six fields, in every representation Python offers.

The example of the talk "Dude, where's my RAM?": one postal address a record.
Prints "ready PID" when all are made, then waits for its input to end.
"""
import collections
import os
import sys

try:
    import dataclasses
except ImportError:  # before 3.7
    dataclasses = None

N = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
FIELDS = ("line1", "line2", "apartment", "city", "state", "zipcode")

AsNamedTuple = collections.namedtuple("AsNamedTuple", FIELDS)


class AsClass:
    def __init__(self, line1, line2, apartment, city, state, zipcode):
        self.line1 = line1
        self.line2 = line2
        self.apartment = apartment
        self.city = city
        self.state = state
        self.zipcode = zipcode


class AsSlots:
    __slots__ = FIELDS
    __init__ = AsClass.__init__


makers = {
    "tuple": lambda *values: values,
    "namedtuple": AsNamedTuple,
    "dict": lambda *values: dict(zip(FIELDS, values)),
    "class": AsClass,
    "class with __slots__": AsSlots,
}
if dataclasses and sys.version_info >= (3, 10):
    makers["dataclass(slots=True)"] = dataclasses.make_dataclass("AsDataclass", FIELDS, slots=True)

# The fields are the same strings in all of them: what differs is the record alone.
rows = [tuple("%s of address %d" % (field, i) for field in FIELDS) for i in range(N)]
RECORDS = {name: [make(*row) for row in rows] for name, make in makers.items() if name != "tuple"}
RECORDS["tuple"] = rows
del rows

print("ready %d" % os.getpid())
sys.stdout.flush()
while os.read(0, 1):
    pass
