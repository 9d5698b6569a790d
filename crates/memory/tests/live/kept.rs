//! A clone that is let go before all is read: what was kept is there, what was not is told.

use crate::picture;
use std::process::Command;
use wmr_memory::{Backing, Fault, Why};
use wmr_testing::{READY, Target};

#[test]
fn what_is_kept_outlives_the_clone() {
    let script = format!("x = [bytearray(b'%5d' % n * 2000) for n in range(500)]{READY}");
    let mut command = Command::new("python3");
    command.args(["-c", &script]);
    let process = Target::start(command).unwrap();
    let target = picture(process.pid());
    let memory = &*target.memory;
    let page = target.page_size;
    // Private pages, of which every third is kept.
    let mappings = target.mappings.iter().filter(|m| m.backing == Backing::Anonymous);
    let runs = mappings.flat_map(|m| &m.residency.runs).filter(|run| run.state.present && !run.state.zero);
    let pages: Vec<u64> = runs.flat_map(|run| (run.start..run.end).step_by(page as usize)).collect();
    assert!(pages.len() > 300, "{}", pages.len());
    let read = |addr| {
        let mut bytes = vec![0; page as usize];
        memory.read(addr, &mut bytes).map(|()| bytes)
    };
    let before: Vec<Vec<u8>> = pages.iter().map(|&addr| read(addr).unwrap()).collect();
    let wanted: Vec<_> = pages.iter().step_by(3).map(|&addr| addr + 8..addr + 16).rev().collect();
    let room = wanted.len() as u64 * page;
    assert!(!memory.keep(wanted.clone(), room - 1), "it takes more room than there is");
    assert_eq!(read(pages[1]).as_ref(), Ok(&before[1]), "nothing was let go");

    assert!(memory.keep(wanted, room));
    assert!(memory.finish().unwrap().is_some(), "the clone's life is known");
    for (at, (&addr, bytes)) in pages.iter().zip(&before).enumerate().step_by(3) {
        assert_eq!(read(addr).as_ref(), Ok(bytes), "page {at}");
        assert_eq!(
            target.reader().u64(addr + 16),
            Ok(u64::from_le_bytes(*bytes[16..].first_chunk().unwrap()))
        );
    }
    assert_eq!(memory.troubles(), Vec::<String>::new());
    assert_eq!(read(pages[1]), Err(Fault::new(pages[1], Why::Gone)));
    assert!(memory.troubles()[0].contains(&format!("{:#x}", pages[1])), "{:?}", memory.troubles());
    assert!(!memory.keep(Vec::new(), u64::MAX), "once only");
}
