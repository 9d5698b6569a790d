//! What a flag lets choose from.

use clap::ValueEnum;

/// Rows of `wmr sizes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SizesBy {
    /// Built-in types, and dicts by entries
    Type,
    /// Used blocks
    Size,
}

/// Rows of `wmr retained`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RetainedBy {
    /// Single objects
    Object,
    /// Types, their objects together
    Type,
    /// Modules, with what they alone keep
    Module,
    /// Roots of all kinds, with what they alone keep
    Root,
}

impl RetainedBy {
    pub fn name(self) -> &'static str {
        match self {
            RetainedBy::Object => "object",
            RetainedBy::Type => "type",
            RetainedBy::Module => "module",
            RetainedBy::Root => "root",
        }
    }
}

/// Order of `wmr types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypesSort {
    /// Bytes of the instances
    Bytes,
    Instances,
    /// Bytes of the type objects themselves
    Own,
    Subclasses,
    /// How many types have the same name
    Alike,
    Name,
}

/// Of `wmr export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line for each object, as Meliae's loader reads them
    Meliae,
}

/// Rows of `wmr heap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Domain, kind and detail of blocks and mappings
    Kind,
    /// Types, their objects with what they own
    Type,
    /// Modules that define the types
    Module,
    /// Sizes of blocks
    Size,
    /// Arenas of pymalloc and malloc, their used blocks
    Arena,
    /// Types by what would be freed with their objects
    Retained,
    /// Objects by the sorts of objects that refer to them, as Heapy's byrcs
    ReferrerTypes,
    /// Types, dicts by whose namespace they are, as Heapy's byclodo
    Clodo,
}
