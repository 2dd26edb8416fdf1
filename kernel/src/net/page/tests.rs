use super::*;
use crate::record::{DeviceRecord, NetRecord, Place, QueueRecord, Record, SummaryRecord};
use std::vec;

fn page(records: &[Record<'_>]) -> String {
    render(&Snapshot {
        records: records.iter().map(|it| it.to_json().into()).collect(),
        dropped: 0,
    })
}

fn summary(case: &'static str, p50: f64) -> Record<'static> {
    Record::Summary(SummaryRecord {
        case,
        device: "virtio-blk".into(),
        place: Place {
            bdf: Some("0000:00:01.0".into()),
            mmio: None,
        },
        transport: Some("pci-modern".into()),
        notify: Some("mmio".into()),
        interrupts: None,
        subtest: None,
        n: 10_050,
        delivered: 10_050,
        batch: 3,
        samples: 3350,
        overhead: 1.0,
        min: 936.0,
        p50,
        p90: 1247.4,
        p99: 4410.0,
        p999: 34_357.0,
        max: 1_044_053.0,
        mean: 12.25,
        unit: "cycles",
    })
}

fn world() -> Record<'static> {
    Record::World {
        cpu: Some("QEMU \"TCG\" <CPU>"),
        hypervisor: Some("TCGTCGTCGTCG"),
        tsc_hz: Some(2_596_113_019),
        tsc_source: Some("acpi-pm-timer".into()),
        tsc_step: 26,
        tsc_read: 1,
        nop: 1,
        caveat: Some("these are not hardware's figures"),
    }
}

/// The text between the first `start` and the next `end`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).expect(start).1;
    rest.split_once(end).expect(end).0
}

#[test]
fn the_world_stands_before_the_figures() {
    let boot = Record::Boot {
        name: "doorbell",
        version: "0.1.0",
        build: "release",
        entry: "pvh",
        cmdline: "doorbell; net",
        memory_kib: 15_999,
    };
    let page = page(&[boot, world(), summary("doorbell-idle", 1032.0)]);
    let (first, figures) = page.split_once("<h2>Doorbell, idle").unwrap();
    assert!(first.contains("<dd>doorbell 0.1.0 release</dd>"), "{first}");
    assert!(first.contains("<dd>16 MiB</dd>"), "{first}");
    assert!(first.contains("<dd>QEMU &quot;TCG&quot; &lt;CPU&gt;</dd>"));
    assert!(first.contains("<dd>TSC, 2596 MHz by acpi-pm-timer, in steps of 26</dd>"));
    assert!(first.contains("<p class=note>these are not hardware&#39;s figures</p>"));
    assert!(first.contains("no errors so far"), "{first}");
    assert!(figures.contains("0000:00:01.0"), "{figures}");
}

#[test]
fn figures_are_a_row_each_with_a_bar_by_the_longest() {
    let page = page(&[
        summary("round-trip", 200.0),
        summary("doorbell-idle", 1032.0),
        summary("round-trip", 50.5),
    ]);
    let table = between(&page, "<h2>Round trip</h2>", "</section>");
    assert!(table.contains("cycles; from the doorbell to the answer"));
    let rows: Vec<_> = table.split("<tr>").skip(2).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[1].trim_end(),
        "<th>virtio-blk<span>pci-modern mmio</span><span class=mono>0000:00:01.0</span></th>\
         <td class=\"n bar\" style=\"--part:25%\">50.5</td>\
         <td class=n>1\u{202f}247</td><td class=n>4\u{202f}410</td><td class=n>34\u{202f}357</td>\
         <td class=n>1\u{202f}044\u{202f}053</td><td class=n>936</td><td class=n>12.2</td>\
         <td class=n>10\u{202f}050</td></tr>\n</tbody></table></div>"
    );
    assert!(rows[0].contains("--part:100%"));
    assert!(page.find("Doorbell, idle") < page.find("Round trip"));
}

#[test]
fn a_case_without_a_title_is_shown_too() {
    let page = page(&[summary("interrupt", 5.0), summary("interrupt", 6.0)]);
    assert_eq!(
        page.matches("<h2>interrupt</h2><p class=soft>cycles</p>")
            .count(),
        1
    );
}

#[test]
fn each_command_has_its_verdict() {
    let error = || Record::Error {
        what: "virtio-blk at <0>".into(),
        message: "it & \"that\" are 'gone'".into(),
    };
    let skip = Record::Skip {
        case: "device",
        place: Place::default(),
        reason: "there is no driver".into(),
    };
    let page = page(&[
        Record::Command { command: "lspci" },
        Record::Command {
            command: "doorbell rounds=1",
        },
        error(),
        error(),
        skip,
    ]);
    assert!(page.contains("<span class=\"badge bad\">2 errors so far</span>"));
    let commands = between(&page, "<h2>Commands</h2>", "</section>");
    let (first, second) = commands.split_once("doorbell rounds=1").unwrap();
    assert!(first.contains("lspci</code>") && first.contains("no errors</span></td><td>0</td>"));
    assert!(
        second.contains("2 errors</span></td><td>1</td>"),
        "{second}"
    );
    let errors = between(&page, "<h2>Errors</h2>", "</section>");
    assert!(errors.contains(
        "<th>virtio-blk at &lt;0&gt;</th><td>it &amp; &quot;that&quot; are &#39;gone&#39;</td>"
    ));
    assert!(between(&page, "<h2>Skipped</h2>", "</section>").contains("there is no driver"));
}

#[test]
fn devices_and_the_network_are_shown() {
    let place = Place {
        bdf: None,
        mmio: Some("0xfeb00e00".into()),
    };
    let queue = |index, size| QueueRecord {
        index,
        size,
        descriptors: 0,
        driver: 0,
        device: 0,
        avail_idx: 0,
        used_idx: 0,
    };
    let device = Record::Device(DeviceRecord {
        device: "virtio-net".into(),
        place: place.clone(),
        transport: "virtio-mmio".into(),
        notify: "mmio".into(),
        interrupts: "polling",
        features: vec![],
        queues: vec![queue(0, 256), queue(1, 256), queue(2, 64)],
        about: "MTU <1500>".into(),
    });
    let net = Record::Net(NetRecord {
        device: "virtio-net".into(),
        place,
        transport: "virtio-mmio".into(),
        notify: "mmio".into(),
        mac: "52:54:00:12:34:56".into(),
        mtu: 1500,
        address: "10.0.2.15/24".into(),
        router: Some("10.0.2.2".into()),
        dns: vec!["10.0.2.3".into(), "10.0.2.4".into()],
        server: "10.0.2.2".into(),
    });
    let ping = Record::Ping {
        address: "10.0.2.2".into(),
        sent: 4,
        received: 3,
        min_us: None,
        mean_us: Some(3088.054),
        max_us: Some(80.25),
    };
    let page = page(&[device, net, ping]);
    let devices = between(&page, "<h2>Devices</h2>", "</section>");
    assert!(devices.contains(
        "0xfeb00e00</span></th><td class=whole>virtio-mmio mmio</td><td>2 × 256, 64</td>\
         <td>MTU &lt;1500&gt;</td>"
    ));
    let network = between(&page, "<h2>Network</h2>", "</section>");
    assert!(network.contains(
        "<td class=mono>10.0.2.15/24</td><td class=mono>10.0.2.2</td>\
         <td class=mono>10.0.2.3, 10.0.2.4</td><td class=mono>52:54:00:12:34:56</td>"
    ));
    let pings = between(&page, "<h2>Pings</h2>", "</section>");
    assert!(pings.contains("<td class=n>–</td><td class=n>3\u{202f}088</td><td class=n>80.2</td>"));
}

#[test]
fn a_long_table_shows_the_latest_and_says_where_the_others_are() {
    let records: Vec<_> = (0..MAX_ROWS + 3)
        .map(|n| summary("baseline", n as f64))
        .collect();
    let page = page(&records);
    assert_eq!(page.matches("class=\"n bar\"").count(), MAX_ROWS);
    assert!(page.contains("3 older ones are in"), "{page}");
}

#[test]
fn without_records_there_is_a_page_and_what_was_dropped_is_said() {
    let snapshot = Snapshot {
        records: vec!["no JSON".into()],
        dropped: 7,
    };
    let page = render(&snapshot);
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(page.contains("The oldest 7 records were dropped"));
    assert!(!page.contains("<table>"), "{page}");
    // All that it needs is in it: no other resource is named but those of the
    // guest's own.
    let links: Vec<_> = page
        .match_indices("href=")
        .map(|(at, _)| &page[at..at + 12])
        .collect();
    assert_eq!(links, ["href=\"data:,", "href=results"]);
    assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("//"));
}

#[test]
fn figures_read_well() {
    let text = |value| Figure(value).to_string();
    assert_eq!(
        [0.0, 4.0, -0.5, 99.94, 100.4, -12_345.6, 1e6, f64::NAN].map(text),
        [
            "0",
            "4",
            "-0.5",
            "99.9",
            "100",
            "-12\u{202f}346",
            "1\u{202f}000\u{202f}000",
            "–"
        ]
    );
}
