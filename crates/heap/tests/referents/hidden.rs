//! What `gc.get_referents()` leaves out, and what it tells of other objects.

/// `(type, label, why)`: references that we report and the collector does not go to. A type that ends in
/// `*` stands for all that begin so; an empty label for all of a type's.
pub const HIDDEN: &[(&str, &str, &str)] = &[
    ("type", "__name__", "a str"),
    ("type", "__qualname__", "a str"),
    ("type", "__slots__", "a tuple of str"),
    ("type", "__subclasses__", "holds weak references alone"),
    ("builtins.code", "", "is not collected before 3.13, nor its strings and tuples after"),
    ("*", "__dict__", "3.13+: the values are in the instance, the dict is passed over"),
    ("builtins.*_descriptor", "__name__", "a str"),
    ("builtins.*_descriptor", "__qualname__", "a str"),
];

/// `(type, why)`: types that report what another object of theirs holds.
pub const SAID_FOR_OTHERS: &[(&str, &str)] =
    &[("functools._lru_cache_wrapper", "goes through its links, which are objects with a key and a result")];
