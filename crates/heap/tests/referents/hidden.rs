//! What `gc.get_referents()` leaves out, and what it tells of other objects.

/// `(types, label, why)`: references that we report and the collector does not go to. Types are parted by
/// `|`, `*` stands for anything, an empty label for all.
pub const HIDDEN: &[(&str, &str, &str)] = &[
    ("type", "__name__", "a str"),
    ("type", "__qualname__", "a str"),
    ("type", "__slots__", "a tuple of str"),
    ("type", "__subclasses__", "holds weak references alone"),
    ("builtins.code|__builtin__.code", "", "not collected: holds constants"),
    ("builtins.*_descriptor|__builtin__.*_descriptor", "__name__", "a str"),
    ("builtins.*_descriptor", "__qualname__", "a str"),
    ("builtins.module|*Module*", "__name__", "a str"),
    ("typing.*", "__name__", "a str"),
    ("*.CField", "slot name", "a str"),
    ("*.longrange_iterator|builtins.range|builtins.enumerate", "", "ints"),
    ("builtins.generator|builtins.coroutine|builtins.async_generator", ".gi_code", "of a finished one"),
    ("builtins.bytearray", ".bytes", "bytes"),
    ("decimal.Context", "", "not collected before 3.13"),
    ("datetime.*", "", "not collected"),
    ("_queue.SimpleQueue", "", "up to 3.8 not collected"),
    ("*.CArgObject", "", "not collected before 3.12"),
    ("*.StgDict", "", "is traversed as a dict"),
    ("*Struct", ".format", "bytes"),
    ("*_sre.SRE_*|re.Match|re.Pattern", "", "not collected before 3.10; the text of a scanner never"),
    ("functools._lru_cache_wrapper", "", "its links: the collector goes to what is in them"),
    ("functools.KeyWrapper", "", "not collected before 3.10"),
    ("operator.methodcaller", ".name", "a str"),
    ("_io.*", "", "up to 3.11 no field but the dict; the text a StringIO is given never"),
    ("thread._local|_thread._local|asyncio.events.*", ".key", "its name in the threads' dicts"),
    ("thread._local|_thread._local|asyncio.events.*", ".wr_callback", "a built-in method"),
    ("os.stat_result|posix.stat_result|sys.*", "", "up to 3.7 traversed as a tuple, in 2.7 not at all"),
];

/// `(types, why)`: types that report what other objects hold.
pub const SAID_FOR_OTHERS: &[(&str, &str)] = &[
    ("functools._lru_cache_wrapper", "goes through its links, which are objects with a key and a result"),
    ("_ctypes.PyCPointerType", "up to 3.12 goes to what its namespace, a StgDict, points to"),
    ("module _decimal", "the exceptions are in tables of their own"),
    ("module atexit", "the callbacks are in a table of their own"),
    ("builtins.PyCapsule", "what C code keeps behind the pointer"),
];
