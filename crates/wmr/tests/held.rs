//! Who holds what, and what would go with it, as the program itself can tell.

mod common;

use common::{failure, json, stdout, wmr};
use serde_json::Value;
use wmr_testing::{READY, python};

/// A module with a list that grows, and a dict that alone holds what is in it.
const SCRIPT: &str = r#"
import sys, types
leaky = types.ModuleType('leaky'); sys.modules['leaky'] = leaky
class Event(object):
    def __init__(self, n): self.n = n + 100000; self.text = 'event %d' % self.n
leaky.EVENTS = [Event(n) for n in range(1000)]
ONLY = dict((n, bytearray(1000)) for n in range(500))
print('%d %d' % (id(ONLY), id(leaky.EVENTS)))
"#;

/// The names of the steps to the first row of that type.
fn steps(path: &Value, name: &str) -> Vec<String> {
    let rows = path["rows"].as_array().unwrap();
    let mut at = rows.iter().position(|row| row["type"] == name).expect("it is held");
    let mut steps = vec![rows[at]["by"].as_str().unwrap().to_owned()];
    while let Some(parent) = rows[at]["parent"].as_u64() {
        at = parent as usize;
        steps.push(rows[at]["by"].as_str().unwrap().to_owned());
    }
    steps.reverse();
    steps
}

#[test]
fn a_path_leads_from_the_module_to_the_object() {
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.14"] {
        let target = python(tag).unwrap().spawn(&format!("{SCRIPT}{READY}")).unwrap();
        let pid = target.pid().to_string();
        let path = json(&["path", &pid, "--type", "__main__.Event"]);
        assert_eq!((path["count"].as_u64(), path["unreached"].as_u64()), (Some(1000), Some(0)), "{tag}");
        assert_eq!(steps(&path, "__main__.Event"), ["module leaky", ".EVENTS", "[0]"], "{tag}");
        let said: Vec<u64> = target.truth()[0].split(' ').map(|word| word.parse().unwrap()).collect();
        let of_list = json(&["path", &pid, &said[1].to_string()]);
        assert_eq!(of_list["rows"].as_array().unwrap().len(), 2, "{tag}: {of_list}");

        let retained = json(&["retained", &pid, "--limit", "0"]);
        let only = format!("{:#x}", said[0]);
        let row = retained["rows"].as_array().unwrap().iter().find(|row| row["address"] == only);
        let kept = row.unwrap_or_else(|| panic!("{tag}: no row {only}"))["retained"].as_u64().unwrap();
        // 500 bytearrays of 1,001 bytes with their objects, and the dict's table; what malloc rounds.
        assert!((500 * 1050..500 * 1250).contains(&kept), "{tag}: {kept}");
        let types = json(&["retained", &pid, "--by", "type"]);
        let arrays = types["rows"].as_array().unwrap().iter().find(|row| row["type"] == "bytearray").unwrap();
        assert!(arrays["count"].as_u64().unwrap() >= 500, "{tag}: {arrays}");
        // On a terminal many alike are one line.
        let text = stdout(&mut wmr(&["path", &pid, "--type", "__main__.Event"]));
        assert!(text.contains("… 997 more") && text.lines().count() < 20, "{text}");
    }
}

#[test]
fn what_is_no_object_has_no_path() {
    let target = python("3.11").unwrap().spawn(&format!("{SCRIPT}{READY}")).unwrap();
    let pid = target.pid().to_string();
    let said = failure(&["path", &pid, "--type", "Evnt"]);
    assert!(said.starts_with("exit 1") && said.contains("no type is called Evnt"), "{said}");
    let near = failure(&["path", &pid, "--type", "even"]);
    assert!(near.contains("there is __main__.Event"), "{near}");
    for addr in ["0x10", "0xffffffffffffffff", "1"] {
        assert!(failure(&["path", &pid, addr]).contains("no Python object is at"), "{addr}");
    }
    assert!(failure(&["path", &pid, "zz"]).starts_with("exit 2"));
    assert!(failure(&["path", &pid]).starts_with("exit 2"));
}
