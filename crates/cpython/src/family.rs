//! Which built-in structure a type's instances begin with.

use crate::layout::Layout;

/// The structure an object has by its type, or by the first known base of its type. Everything not
/// named here is [`Plain`](Family::Plain): `tp_basicsize` and `tp_itemsize` say all there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Plain,
    Int,
    /// Python 2's machine-word `int`.
    OldInt,
    Float,
    /// Python 3's `str`.
    Str,
    /// Python 2's `unicode`.
    Unicode,
    /// `bytes`, and Python 2's `str`.
    Bytes,
    ByteArray,
    List,
    Tuple,
    Dict,
    OrderedDict,
    Set,
    Type,
    Code,
    Frame,
    /// Generators, coroutines and asynchronous generators: an item size, but no `ob_size`.
    Generator,
    Deque,
    Array,
    BytesIo,
    StringIo,
    Buffered,
    Decimal,
    Element,
    /// ctypes instances.
    CData,
    Lock,
    Struct,
    Module,
    Product,
    /// `datetime` and `time`, made without the last field where they have no time zone.
    DateTime,
    /// With and without replacement.
    Combinations,
    Permutations,
}

/// Type name as `tp_name` has it → family, and the structure whose size `tp_basicsize` must have, so
/// that a class which only borrows the name is not taken for it.
const NAMES: &[(&str, Family, Option<&str>)] = &[
    ("int", Family::Int, None),
    ("long", Family::Int, None),
    ("float", Family::Float, None),
    ("str", Family::Str, None),
    ("unicode", Family::Unicode, None),
    ("bytes", Family::Bytes, None),
    ("bytearray", Family::ByteArray, Some("PyByteArrayObject")),
    ("list", Family::List, Some("PyListObject")),
    ("tuple", Family::Tuple, None),
    ("dict", Family::Dict, Some("PyDictObject")),
    ("frozendict", Family::Dict, Some("PyFrozenDictObject")),
    ("collections.OrderedDict", Family::OrderedDict, Some("PyODictObject")),
    ("set", Family::Set, Some("PySetObject")),
    ("frozenset", Family::Set, Some("PySetObject")),
    ("type", Family::Type, Some("PyHeapTypeObject")),
    ("code", Family::Code, None),
    ("frame", Family::Frame, None),
    ("generator", Family::Generator, None),
    ("coroutine", Family::Generator, None),
    ("async_generator", Family::Generator, None),
    ("collections.deque", Family::Deque, Some("dequeobject")),
    ("array.array", Family::Array, Some("arrayobject")),
    ("_io.BytesIO", Family::BytesIo, Some("bytesio")),
    ("_io.StringIO", Family::StringIo, Some("stringio")),
    ("_io.BufferedReader", Family::Buffered, Some("buffered")),
    ("_io.BufferedWriter", Family::Buffered, Some("buffered")),
    ("_io.BufferedRandom", Family::Buffered, Some("buffered")),
    ("decimal.Decimal", Family::Decimal, Some("PyDecObject")),
    ("xml.etree.ElementTree.Element", Family::Element, Some("ElementObject")),
    ("_ctypes._CData", Family::CData, Some("tagCDataObject")),
    ("_thread.lock", Family::Lock, None),
    ("_thread.RLock", Family::Lock, None),
    ("thread.lock", Family::Lock, None),
    ("_struct.Struct", Family::Struct, None),
    ("Struct", Family::Struct, None),
    ("module", Family::Module, None),
    ("datetime.datetime", Family::DateTime, Some("PyDateTime_DateTime")),
    ("datetime.time", Family::DateTime, Some("PyDateTime_Time")),
    ("itertools.product", Family::Product, Some("productobject")),
    ("itertools.combinations", Family::Combinations, Some("combinationsobject")),
    ("itertools.combinations_with_replacement", Family::Combinations, Some("combinationsobject")),
    ("itertools.permutations", Family::Permutations, Some("permutationsobject")),
];

impl Family {
    /// The family of a type that is itself one of the known ones. Python 2 says `str` for bytes and
    /// `int` for a machine word.
    pub fn of_name(name: &[u8], basicsize: u64, two: bool, layout: &Layout) -> Option<Family> {
        let (_, family, of) = NAMES.iter().find(|(n, ..)| n.as_bytes() == name)?;
        if let Some(of) = of
            && layout.table.size(of).is_some_and(|s| s != basicsize)
        {
            return None;
        }
        Some(match (family, two) {
            (Family::Int, true) if name == b"int" => Family::OldInt,
            (Family::Str, true) => Family::Bytes,
            (Family::Int, false) if name == b"long" => return None,
            (Family::Unicode, false) => return None,
            (family, _) => *family,
        })
    }
}
