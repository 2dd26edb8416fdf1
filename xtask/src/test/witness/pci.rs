//! `query-pci` against the guest's `pci` records.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Places, hex, same};
use crate::record::Record;

/// The ROM is QEMU's region 6; it is no BAR.
const BARS: u64 = 6;
/// How QEMU shows a BAR without an address, or one that isn't decoded.
const UNMAPPED: i64 = -1;

/// QEMU's functions by address, those behind bridges too.
fn functions(answer: &Value) -> BTreeMap<String, &Value> {
    fn walk<'a>(devices: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
        for device in devices.as_array().into_iter().flatten() {
            let part = |name: &str| device[name].as_u64().unwrap_or_default();
            let bdf = format!(
                "0000:{:02x}:{:02x}.{}",
                part("bus"),
                part("slot"),
                part("function")
            );
            found.insert(bdf, device);
            walk(&device["pci_bridge"]["devices"], found);
        }
    }
    let mut found = BTreeMap::new();
    for bus in answer.as_array().into_iter().flatten() {
        walk(&bus["devices"], &mut found);
    }
    found
}

/// Where the devices with an `id=` are.
pub(crate) fn places(answer: &Value) -> Places {
    functions(answer)
        .into_iter()
        .filter_map(|(bdf, function)| {
            let id = function["qdev_id"].as_str().filter(|id| !id.is_empty())?;
            Some((bdf, id.to_owned()))
        })
        .collect()
}

/// Compares function by function; `check` gets each verdict.
pub(crate) fn compare(
    answer: &Value,
    claims: &[&Record],
    mut check: impl FnMut(&str, Result<(), String>),
) {
    let functions = functions(answer);
    let mut guests: Vec<&str> = claims.iter().filter_map(|claim| claim.address()).collect();
    guests.sort_unstable();
    let qemus: Vec<&str> = functions.keys().map(String::as_str).collect();
    check("functions", same("the functions", guests, qemus));
    for claim in claims {
        let bdf = claim.address().unwrap_or_default();
        if let Some(function) = functions.get(bdf) {
            check(bdf, compare_function(function, claim.value()));
        }
    }
}

fn compare_function(qemu: &Value, guest: &Value) -> Result<(), String> {
    for (name, key) in [
        ("vendor", "vendor"),
        ("device", "device"),
        ("subsystem_vendor", "subsystem-vendor"),
        ("subsystem", "subsystem"),
    ] {
        // QEMU has no subsystem IDs for bridges.
        if let Some(id) = qemu["id"][key].as_u64() {
            same(name, hex(&guest[name]), Some(id))?;
        }
    }
    // The guest's class has the programming interface as its last byte.
    let class = hex(&guest["class"]).map(|class| class >> 8);
    same("class", class, qemu["class_info"]["class"].as_u64())?;
    compare_bars(qemu, guest)?;
    if qemu["pci_bridge"].is_object() {
        compare_bridge(&qemu["pci_bridge"]["bus"], guest)?;
    }
    Ok(())
}

fn compare_bars(qemu: &Value, guest: &Value) -> Result<(), String> {
    let list = |value: &Value| -> BTreeMap<u64, Value> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|bar| Some((bar["bar"].as_u64()?, bar.clone())))
            .filter(|(n, _)| *n < BARS)
            .collect()
    };
    let (qemus, guests) = (list(&qemu["regions"]), list(&guest["bars"]));
    same(
        "the BARs",
        guests.keys().collect::<Vec<_>>(),
        qemus.keys().collect(),
    )?;
    for (n, theirs) in &qemus {
        let ours = &guests[n];
        let kind = match (theirs["type"].as_str(), theirs["mem_type_64"].as_bool()) {
            (Some("io"), _) => "io",
            (_, Some(true)) => "mem64",
            _ => "mem32",
        };
        let bar = format!("BAR{n}");
        same(&format!("{bar}'s kind"), ours["kind"].as_str(), Some(kind))?;
        same(
            &format!("{bar}'s size"),
            hex(&ours["size"]),
            theirs["size"].as_u64(),
        )?;
        if kind != "io" {
            same(
                &format!("{bar} prefetchable"),
                ours["prefetchable"].as_bool(),
                theirs["prefetch"].as_bool(),
            )?;
        }
        // Addresses above 2^63 come as negative numbers; -1 is none at all.
        let address = match theirs["address"].as_i64() {
            Some(UNMAPPED) => None,
            Some(address) => Some(address as u64),
            None => theirs["address"].as_u64(),
        };
        if address.is_none() && !decoded(guest, kind) {
            continue;
        }
        same(&format!("{bar}'s address"), hex(&ours["address"]), address)?;
    }
    Ok(())
}

/// Whether the function decodes this kind of address, as far as the guest says:
/// its `command` is the command register. QEMU shows no address where it doesn't.
fn decoded(guest: &Value, kind: &str) -> bool {
    let bit = if kind == "io" { 1 } else { 2 };
    hex(&guest["command"]).is_none_or(|command| command & bit != 0)
}

fn compare_bridge(bus: &Value, guest: &Value) -> Result<(), String> {
    for (name, key) in [
        ("primary", "number"),
        ("secondary", "secondary"),
        ("subordinate", "subordinate"),
    ] {
        same(name, guest["bus"][name].as_u64(), bus[key].as_u64())?;
    }
    for (kind, key) in [
        ("io", "io_range"),
        ("mem", "memory_range"),
        ("pref", "prefetchable_range"),
    ] {
        // A window whose limit is below its base is closed; the guest leaves it out.
        let range = (bus[key]["base"].as_u64(), bus[key]["limit"].as_u64());
        let open = range.0 <= range.1;
        let ours = guest["windows"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|window| window["kind"] == kind);
        let ours = ours.map(|window| (hex(&window["base"]), hex(&window["limit"])));
        same(&format!("the {kind} window"), ours, open.then_some(range))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        json!([{"bus": 0, "devices": [
            {"bus": 0, "slot": 1, "function": 0, "qdev_id": "blk0",
             "class_info": {"class": 256, "desc": "SCSI controller"},
             "id": {"device": 4097, "vendor": 6900, "subsystem": 2, "subsystem-vendor": 6900},
             "regions": [
                {"bar": 0, "size": 128, "address": 53504, "type": "io"},
                {"bar": 1, "size": 4096, "address": -1, "type": "memory",
                 "prefetch": false, "mem_type_64": false},
                {"bar": 6, "size": 4096, "address": -1, "type": "memory",
                 "prefetch": false, "mem_type_64": false}]},
            {"bus": 0, "slot": 3, "function": 0, "qdev_id": "",
             "class_info": {"class": 1540}, "id": {"device": 12, "vendor": 6966}, "regions": [],
             "pci_bridge": {
                "bus": {"number": 0, "secondary": 1, "subordinate": 1,
                    "io_range": {"base": 61440, "limit": 4095},
                    "memory_range": {"base": 4269801472u64, "limit": 4271898623u64},
                    "prefetchable_range": {"base": 1048576, "limit": 0}},
                "devices": [{"bus": 1, "slot": 0, "function": 0, "qdev_id": "rng1",
                    "class_info": {"class": 255}, "id": {"device": 4164, "vendor": 6900},
                    "regions": [{"bar": 4, "size": 16384, "address": 4253024256u64,
                        "type": "memory", "prefetch": true, "mem_type_64": true}]}]}}
        ]}])
    }

    fn claims() -> Vec<Value> {
        vec![
            json!({"v":1,"kind":"pci","bdf":"0000:00:01.0","vendor":"1af4","device":"1001",
                "subsystem_vendor":"1af4","subsystem":"0002","class":"010000","command":1,
                "bars":[
                    {"bar":0,"kind":"io","prefetchable":false,"size":128,"address":"0xd100"},
                    {"bar":1,"kind":"mem32","prefetchable":false,"size":4096,"address":"0x1000"}]}),
            json!({"v":1,"kind":"pci","bdf":"0000:00:03.0","vendor":"1b36","device":"000c",
                "class":"060400","bars":[],
                "bus":{"primary":0,"secondary":1,"subordinate":1},
                "windows":[{"kind":"mem","base":"0xfe800000","limit":"0xfe9fffff"}]}),
            json!({"v":1,"kind":"pci","bdf":"0000:01:00.0","vendor":"1af4","device":"1044",
                "class":"00ff00",
                "bars":[{"bar":4,"kind":"mem64","prefetchable":true,"size":16384,"address":"0xfd800000"}]}),
        ]
    }

    /// The names of the checks that failed.
    fn failures(claims: Vec<Value>) -> Vec<String> {
        let records: Vec<Record> = claims
            .iter()
            .map(|claim| Record::parse(&claim.to_string()).unwrap())
            .collect();
        let mut failed = Vec::new();
        compare(
            &answer(),
            &records.iter().collect::<Vec<_>>(),
            |what, result| {
                if let Err(why) = result {
                    failed.push(format!("{what}: {why}"));
                }
            },
        );
        failed
    }

    #[test]
    fn an_honest_guest_passes() {
        assert_eq!(failures(claims()), Vec::<String>::new());
    }

    #[test]
    fn every_lie_is_seen() {
        let lies: [(&str, Value, &str); 9] = [
            ("/0/bdf", json!("0000:00:02.0"), "functions"),
            ("/0/device", json!("1002"), "device"),
            ("/0/class", json!("020000"), "class"),
            ("/0/bars/0/address", json!("0xd200"), "BAR0's address"),
            ("/0/bars/0/size", json!(64), "BAR0's size"),
            ("/0/bars/1/kind", json!("mem64"), "BAR1's kind"),
            ("/0/command", json!(3), "BAR1's address"),
            ("/1/bus/secondary", json!(2), "secondary"),
            ("/1/windows/0/limit", json!("0xfe8fffff"), "mem window"),
        ];
        for (field, lie, expected) in lies {
            let mut claims = Value::Array(claims());
            *claims.pointer_mut(field).unwrap() = lie;
            let failed = failures(claims.as_array().unwrap().clone());
            assert_eq!(failed.len(), 1, "{field}: {failed:?}");
            assert!(failed[0].contains(expected), "{field}: {failed:?}");
        }
        assert_eq!(failures(claims()[1..].to_vec()).len(), 1);
    }

    #[test]
    fn a_bar_without_an_address_is_none_on_both_sides() {
        let mut claims = Value::Array(claims());
        claims[0]["command"] = json!(3);
        claims[0]["bars"][1]["address"] = json!(null);
        assert_eq!(failures(claims.as_array().unwrap().clone()).len(), 0);
    }

    #[test]
    fn devices_are_found_by_their_id() {
        let places = places(&answer());
        assert_eq!(places["0000:00:01.0"], "blk0");
        assert_eq!(places["0000:01:00.0"], "rng1");
        assert_eq!(places.len(), 2);
    }
}
