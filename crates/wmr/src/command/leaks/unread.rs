//! What is said where not all could be looked at.

use super::finding::{Finding, Section, Sure};
use crate::numbers::scaled;
use crate::open::Subject;
use wmr_heap::leaks::{Leaks, Unread};

/// What is behind a word that was not read may hold anything: nothing is called lost for more than possible then.
/// What is held is so whatever else there is.
pub fn doubt(unread: Unread, findings: &mut [Finding]) {
    if !unread.is_none() {
        let of_lost = findings.iter_mut().filter(|finding| finding.section != Section::Suspects);
        of_lost.for_each(|finding| finding.sure = Sure::Possible);
    }
}

/// Why all is in doubt.
pub fn notes(unread: Unread) -> Vec<String> {
    let mut what = Vec::new();
    if unread.bytes > 0 {
        what.push(format!("{} of memory", scaled(unread.bytes)));
    }
    if unread.threads {
        what.push("the registers and stack pointers of threads".to_owned());
    }
    let told = (!what.is_empty()).then(|| {
        format!(
            "{} could not be read: what is referred to from there looks lost, so that nothing is called lost for more than possible",
            what.join(" and ")
        )
    });
    told.into_iter().collect()
}

/// What nothing being found means: that nothing is lost, if all was looked at.
pub fn nothing_found(subject: &Subject, leaks: &Leaks) -> &'static str {
    let python = subject.inspection.python.is_ok();
    match subject.inspection.glibc {
        _ if !leaks.unread.is_none() => "Nothing was found, in what could be read.",
        Ok(_) if python => {
            "Everything in use is reached by something: no lost memory, no unreachable objects."
        }
        Ok(_) => "Every block of malloc in use is reached by something. No Python objects were looked at.",
        Err(_) if python => {
            "Every Python object and block of pymalloc in use is reached by something. malloc's blocks were not looked at."
        }
        Err(_) => "Nothing was looked at: neither a CPython nor glibc's malloc was found.",
    }
}
