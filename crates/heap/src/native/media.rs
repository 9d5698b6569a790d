//! Structures of FreeType and Xlib, known by functions of the library that are in them.

use super::Native;
use crate::kinds::{Domain, Sure};
use rustc_hash::FxHashSet;
use wmr_alloc::Block;
use wmr_memory::{Image, Reader};

pub(super) const PIXELS: &str = "X11 image pixels";

/// `FT_MemoryRec`: what the user likes, then three functions.
const FT_MEMORY: u64 = 32;
/// `FT_LibraryRec`: memory, version, how many modules, then these; `FT_ModuleRec`: class, library, memory.
const FT_LIBRARY_MODULES: u64 = 24;
const FT_MODULE_LIBRARY: u64 = 8;
/// Words of a `FT_FaceRec` in which driver, memory and stream are.
const FT_FACE_WORDS: u64 = 32;
/// `XImage` (`X11/Xlib.h`): the pixels, and six functions at its end.
const XIMAGE_DATA: u64 = 16;
const XIMAGE_FUNCTIONS: std::ops::Range<u64> = 88..136;

impl Native<'_> {
    /// Names them; returns those that lead on.
    pub(super) fn name_media(&mut self) -> Vec<u32> {
        let image = |name: &str| self.target.images.iter().find(|image| image.symbol(name).is_some());
        let (freetype, xlib) = (image("FT_Init_FreeType"), image("XInitImage"));
        if let Some(xlib) = xlib {
            self.name_images(xlib);
        }
        freetype.map_or_else(Vec::new, |image| self.name_fonts(image))
    }

    /// Is an address a function of the image?
    fn is_code_of(&self, image: &Image, addr: u64) -> bool {
        self.images.at(addr).is_some_and(|(there, exec)| exec && std::ptr::eq(there, image))
    }

    fn name_images(&mut self, xlib: &Image) {
        let found = self.ask_open(|reader, block| {
            if block.usable < XIMAGE_FUNCTIONS.end {
                return None;
            }
            let mut functions = XIMAGE_FUNCTIONS.step_by(8);
            let all = functions
                .all(|at| reader.u64(block.start + at).is_ok_and(|word| self.is_code_of(xlib, word)));
            all.then(|| reader.u64(block.start + XIMAGE_DATA).ok()).flatten()
        });
        let kind = self.intern(Domain::Native, "X11 image", Sure::Signature);
        let pixels = self.intern(Domain::Native, PIXELS, Sure::Owner);
        for (block, data) in found {
            self.set(block, kind);
            if let Some(to) = self.blocks.at(data).filter(|to| self.census.mark(*to).is_none()) {
                self.set(to, pixels);
            }
        }
    }

    /// The library begins with its memory functions, as some others do, and has modules that lead back to it;
    /// a module has the library and them, a face its module and them.
    fn name_fonts(&mut self, freetype: &Image) -> Vec<u32> {
        let memories = self.ask_open(|reader, block| {
            if block.usable < FT_MEMORY {
                return None;
            }
            let mut functions = (8..FT_MEMORY).step_by(8);
            functions
                .all(|at| reader.u64(block.start + at).is_ok_and(|word| self.is_code_of(freetype, word)))
                .then_some(block.start)
        });
        let memories: FxHashSet<u64> = self.all_named("FreeType memory", memories, &mut Vec::new());
        let mut sources = Vec::new();
        if memories.is_empty() {
            return sources;
        }
        let library = |reader: &mut Reader, block: Block| {
            reader.u64(block.start).ok().filter(|memory| memories.contains(memory))?;
            let module = reader.u64(block.start + FT_LIBRARY_MODULES).ok()?;
            let back = reader.u64(module.wrapping_add(FT_MODULE_LIBRARY)).ok()?;
            (back == block.start).then_some(block.start)
        };
        let libraries = self.ask_open(library);
        let libraries = self.all_named("FreeType library", libraries, &mut sources);
        let module = |reader: &mut Reader, block: Block| {
            let [_, library, memory] = words::<3>(reader, block.start)?;
            (libraries.contains(&library) && memories.contains(&memory)).then_some(block.start)
        };
        let modules = self.ask_open(module);
        let modules = self.all_named("FreeType module", modules, &mut sources);
        let face = |reader: &mut Reader, block: Block| {
            let count = (block.usable / 8).min(FT_FACE_WORDS);
            (0..count.saturating_sub(1))
                .any(|i| {
                    words::<2>(reader, block.start + 8 * i).is_some_and(|[driver, memory]| {
                        modules.contains(&driver) && memories.contains(&memory)
                    })
                })
                .then_some(block.start)
        };
        let faces = self.ask_open(face);
        self.all_named("FreeType face", faces, &mut sources);
        sources
    }

    fn all_named(&mut self, name: &str, found: Vec<(u32, u64)>, sources: &mut Vec<u32>) -> FxHashSet<u64> {
        let kind = self.intern(Domain::Native, name, Sure::Signature);
        for (block, _) in &found {
            self.set(*block, kind);
            sources.push(*block);
        }
        found.into_iter().map(|(_, addr)| addr).collect()
    }
}

fn words<const N: usize>(reader: &mut Reader, addr: u64) -> Option<[u64; N]> {
    let mut out = [0; N];
    for (i, word) in out.iter_mut().enumerate() {
        *word = reader.u64(addr.wrapping_add(8 * i as u64)).ok()?;
    }
    Some(out)
}
