//! Structures out of DWARF, as plain trees.

use anyhow::{Context, Result};
use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, RunTimeEndian, UnitOffset};
use object::{Object, ObjectSection};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;
type Unit<'a> = gimli::Unit<Slice<'a>>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// A `struct` or `union` that has a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    pub size: u64,
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `None` for an anonymous struct or union: its members are its parent's.
    pub name: Option<String>,
    /// Bytes from the start of the structure; of a bit field, the byte that it starts in.
    pub offset: u64,
    /// What a member held by value is made of.
    pub inside: Option<Structure>,
}

/// The structures of one name: each shape, and the compile units that have it.
pub type Shapes = Vec<(Structure, Vec<String>)>;

/// Typedefs and qualifiers between a member and its structure.
const MAX_INDIRECTION: usize = 12;

/// Reads every structure that `wanted` accepts by its tag or typedef name out of an ELF file, or out
/// of the separate file under `debug_root` that has its build-id. Members held by value are opened
/// `levels` deep: some structures have thousands further down.
pub fn read(
    elf: &Path,
    debug_root: Option<&Path>,
    levels: usize,
    wanted: &dyn Fn(&str) -> bool,
    found: &mut BTreeMap<String, Shapes>,
) -> Result<()> {
    let file = with_debug_info(elf, debug_root)?;
    let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let object = object::File::parse(&*bytes)?;
    let endian = if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let load = |id: gimli::SectionId| -> Result<Cow<[u8]>> {
        let section = object.section_by_name(id.name());
        Ok(section.map(|s| s.uncompressed_data()).transpose()?.unwrap_or_default())
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        Reader { dwarf: &dwarf, unit: &unit }.structures(levels, wanted, found)?;
    }
    Ok(())
}

/// `elf` itself when it carries DWARF, else `usr/lib/debug/.build-id/xx/yyy.debug` under the root.
fn with_debug_info(elf: &Path, debug_root: Option<&Path>) -> Result<PathBuf> {
    let bytes = std::fs::read(elf).with_context(|| elf.display().to_string())?;
    let object = object::File::parse(&*bytes)?;
    if object.section_by_name(".debug_info").is_some() {
        return Ok(elf.to_owned());
    }
    let id = object.build_id()?.with_context(|| format!("{} has no build-id", elf.display()))?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (head, tail) = hex.split_at(2);
    let path = format!("usr/lib/debug/.build-id/{head}/{tail}.debug");
    let file = debug_root.map(|root| root.join(path)).filter(|file| file.is_file());
    file.with_context(|| format!("{} has no DWARF, nor is there any for build-id {hex}", elf.display()))
}

struct Reader<'r, 'a> {
    dwarf: &'r gimli::Dwarf<Slice<'a>>,
    unit: &'r Unit<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn structures(
        &self,
        levels: usize,
        wanted: &dyn Fn(&str) -> bool,
        found: &mut BTreeMap<String, Shapes>,
    ) -> Result<()> {
        let name = self.unit.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut entries = self.unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let body = match entry.tag() {
                gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => Some(entry.offset()),
                gimli::DW_TAG_typedef => self.structure_of(entry)?,
                _ => None,
            };
            let Some(body) = body else { continue };
            let Some(tag) = self.name(entry)?.filter(|tag| wanted(tag)) else { continue };
            let Some(structure) = self.structure(body, levels)? else { continue };
            let shapes = found.entry(tag).or_default();
            match shapes.iter_mut().find(|(known, _)| *known == structure) {
                Some((_, units)) if units.last() == Some(&name) => (),
                Some((_, units)) => units.push(name.clone()),
                None => shapes.push((structure, vec![name.clone()])),
            }
        }
        Ok(())
    }

    fn structure(&self, at: UnitOffset, levels: usize) -> Result<Option<Structure>> {
        let mut tree = self.unit.entries_tree(Some(at))?;
        let root = tree.root()?;
        let declaration =
            matches!(root.entry().attr_value(gimli::DW_AT_declaration), Some(AttributeValue::Flag(true)));
        let size = root.entry().attr_value(gimli::DW_AT_byte_size).and_then(|v| v.udata_value());
        let Some(size) = size.filter(|_| !declaration) else { return Ok(None) };
        let mut members = Vec::new();
        let mut children = root.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let name = self.name(entry)?;
            let inside = match (self.structure_of(entry)?, &name) {
                (Some(body), None) => self.structure(body, levels)?,
                (Some(body), Some(_)) if levels > 0 => self.structure(body, levels - 1)?,
                _ => None,
            };
            members.push(Member { name, offset: self.offset(entry)?, inside });
        }
        Ok(Some(Structure { size, members }))
    }

    /// The struct or union that an entry's type is, behind typedefs and qualifiers.
    fn structure_of(&self, entry: &Entry<'a>) -> Result<Option<UnitOffset>> {
        let mut at = type_of(entry);
        for _ in 0..MAX_INDIRECTION {
            let Some(offset) = at else { return Ok(None) };
            let entry = self.unit.entry(offset)?;
            at = match entry.tag() {
                gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => return Ok(Some(offset)),
                gimli::DW_TAG_typedef
                | gimli::DW_TAG_const_type
                | gimli::DW_TAG_volatile_type
                | gimli::DW_TAG_atomic_type => type_of(&entry),
                _ => return Ok(None),
            };
        }
        Ok(None)
    }

    fn name(&self, entry: &Entry<'a>) -> Result<Option<String>> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name) else { return Ok(None) };
        let name = self.dwarf.attr_string(self.unit, value)?;
        Ok(Some(name.to_string_lossy().into_owned()))
    }

    /// Members of a union have no location: all start at 0. A bit field has one in bits (DWARF 4 on).
    fn offset(&self, entry: &Entry<'a>) -> Result<u64> {
        let udata = |name| entry.attr_value(name).and_then(|v| v.udata_value());
        let bits = udata(gimli::DW_AT_data_bit_offset).map(|bits| bits / 8);
        Ok(udata(gimli::DW_AT_data_member_location).or(bits).unwrap_or(0))
    }
}

fn type_of(entry: &Entry<'_>) -> Option<UnitOffset> {
    match entry.attr_value(gimli::DW_AT_type) {
        Some(AttributeValue::UnitRef(offset)) => Some(offset),
        _ => None,
    }
}
