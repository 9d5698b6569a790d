//! The columns an expression may name.

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Number,
    Text,
}

/// A fact about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// What the allocator returned.
    Addr,
    /// What it costs, size class or chunk header included.
    Bytes,
    /// `used` or `free`.
    State,
    Sure,
    Domain,
    Kind,
    Detail,
    /// Qualified name of an object's type.
    Type,
    /// The module that defines the type.
    Module,
    /// `pymalloc` or `malloc`.
    Allocator,
    /// Address of the arena, as `wmr arenas` has it.
    Arena,
    /// Of an object; immortal ones have 2³²−1, as the interpreter itself says.
    Refcount,
    /// Address of the object that owns the block.
    Owner,
    /// Name of the mapping: a path, `[heap]`.
    Mapping,
}

impl Column {
    pub const ALL: [Column; 14] = [
        Column::Addr,
        Column::Bytes,
        Column::State,
        Column::Sure,
        Column::Domain,
        Column::Kind,
        Column::Detail,
        Column::Type,
        Column::Module,
        Column::Allocator,
        Column::Arena,
        Column::Refcount,
        Column::Owner,
        Column::Mapping,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Column::Addr => "addr",
            Column::Bytes => "bytes",
            Column::State => "state",
            Column::Sure => "sure",
            Column::Domain => "domain",
            Column::Kind => "kind",
            Column::Detail => "detail",
            Column::Type => "type",
            Column::Module => "module",
            Column::Allocator => "allocator",
            Column::Arena => "arena",
            Column::Refcount => "refcount",
            Column::Owner => "owner",
            Column::Mapping => "mapping",
        }
    }

    /// By name, case ignored; `size` and `start` are what gdb-heap called them.
    pub fn of_name(name: &str) -> Option<Column> {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "size" => Some(Column::Bytes),
            "start" => Some(Column::Addr),
            _ => Column::ALL.into_iter().find(|column| column.name() == name),
        }
    }

    pub fn type_of(self) -> Type {
        match self {
            Column::Addr | Column::Bytes | Column::Arena | Column::Refcount | Column::Owner => Type::Number,
            _ => Type::Text,
        }
    }

    /// How much it takes to know it of a row: cheap ones are asked first.
    pub(super) fn cost(self) -> u32 {
        match self {
            Column::Addr | Column::Bytes | Column::State => 1,
            Column::Allocator | Column::Arena => 2,
            Column::Sure | Column::Domain | Column::Kind | Column::Detail | Column::Type | Column::Module => {
                3
            }
            Column::Mapping => 5,
            Column::Owner => 8,
            // Read from the target.
            Column::Refcount => 20,
        }
    }

    /// `addr, bytes, …`: for messages.
    pub fn list() -> String {
        Column::ALL.map(Column::name).join(", ")
    }
}
