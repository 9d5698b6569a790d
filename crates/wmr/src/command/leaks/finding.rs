//! What a leak is told as, whichever module found it.

use crate::open::Subject;
use clap::ValueEnum;
use serde::Serialize;

/// Which question a finding answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Blocks that are no objects.
    Native,
    /// Objects with a count that nobody holds.
    Objects,
    /// Cycles of objects that the collector has not taken.
    Garbage,
    /// Objects with higher counts than references.
    Surplus,
    /// Objects with lower counts than references.
    Deficit,
    /// Extension types that hide references from the collector.
    Audit,
    /// What is held, and should perhaps not be.
    Suspects,
    /// What is more in each picture of a series.
    Growth,
}

/// How sure a finding is, surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sure {
    Certain,
    Likely,
    Possible,
}

impl Sure {
    pub fn name(self) -> &'static str {
        match self {
            Sure::Certain => "certain",
            Sure::Likely => "likely",
            Sure::Possible => "possible",
        }
    }
}

/// One finding. Text of the target is not escaped.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub section: Section,
    pub sure: Sure,
    /// What there is too much of.
    pub what: String,
    /// The variable, type or library to look at, as a person would write it.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// From a root to what is held, step by step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// The same for the same leak in every process: without addresses and counts.
    pub signature: String,
    pub count: u64,
    pub bytes: u64,
    /// The evidence.
    pub why: String,
    /// File name of a library whose addresses are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mentions: Option<String>,
    pub examples: Vec<String>,
    /// The command that shows more.
    pub next: String,
    /// It is there because of another one, which comes first.
    #[serde(skip)]
    pub follows: bool,
}

impl Finding {
    /// With what every finding has; the rest is added by whoever has it.
    pub fn new(section: Section, sure: Sure, what: String, signature: String) -> Finding {
        Finding {
            section,
            sure,
            what,
            place: None,
            path: Vec::new(),
            signature,
            count: 0,
            bytes: 0,
            why: String::new(),
            mentions: None,
            examples: Vec::new(),
            next: String::new(),
            follows: false,
        }
    }

    /// What has most of it comes first. That much is held is no evidence that it is lost: beside what is, it
    /// counts for a part of its bytes. What will crash the program comes before all else.
    pub fn weight(&self) -> u64 {
        const SUSPICION: u64 = 16;
        match self.section {
            Section::Deficit => u64::MAX,
            _ if self.follows => 0,
            Section::Suspects => self.bytes / SUSPICION,
            _ => self.bytes,
        }
    }

    /// What counts for gates and comes first.
    pub fn is_sure(&self) -> bool {
        self.sure <= Sure::Likely
    }
}

/// 64 bits of the name of a leak, in hexadecimal digits.
pub fn signature(section: &str, name: &str) -> String {
    // FNV-1a: it has to be the same in every version of the program.
    let hash = format!("{section} {name}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The command to look closer with.
pub fn next(subject: &Subject, command: &str, arguments: &str) -> String {
    format!("wmr {command} {}{arguments}", subject.typed)
}
