use serde_json::json;

use super::*;
use crate::qemu::tests::options;

fn line(options: &Options) -> String {
    let files = Files::new("/o,ut".into()).unwrap();
    arguments(options, &files).unwrap().join(" ")
}

fn with(machine: Machine, groups: &[Group]) -> Options {
    Options {
        groups: groups.to_vec(),
        ..options(machine)
    }
}

fn assert_parts(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
}

#[test]
fn q35_has_both_kinds_of_place_for_each_kind_of_device() {
    use Group::*;
    let groups = [
        Disks,
        Entropy,
        Testdev,
        Net,
        NetBehind,
        Console,
        ConsoleBehind,
        Balloon,
    ];
    let line = line(&with(Machine::Q35, &groups));
    assert_parts(
        &line,
        &[
            "driver=raw,node-name=disk0,discard=unmap,detect-zeroes=off,\
             file.driver=file,file.filename=/o,,ut/disk0.img",
            "-object iothread,id=io0,poll-max-ns=0",
            "virtio-blk-pci,id=blk0,ioeventfd=on,drive=disk0,serial=doorbell-disk0,iothread=io0,\
             bus=pcie.0,modern-pio-notify=on",
            "virtio-rng-pci,id=rng0,ioeventfd=on,rng=entropy,bus=pcie.0,modern-pio-notify=on",
            "pcie-root-port,id=bridge1,bus=pcie.0,chassis=1,slot=1",
            "serial=doorbell-disk1,iothread=io0,bus=bridge1 ",
            "virtio-rng-pci,id=rng1,ioeventfd=on,rng=entropy,bus=bridge2 ",
            "pci-testdev,id=testdev,bus=pcie.0",
            "virtio-net-pci,id=net0,ioeventfd=on,netdev=netdev0,mac=52:54:00:db:00:00,bus=pcie.0",
            "netdev=netdev1,mac=52:54:00:db:00:01,mrg_rxbuf=off,ctrl_mac_addr=off,mq=on,host_mtu=4000,bus=bridge3 ",
            "virtio-serial-pci,id=con0,ioeventfd=on,max_ports=8,bus=pcie.0",
            "virtio-serial-pci,id=con1,ioeventfd=on,max_ports=8,bus=bridge4 ",
            "-chardev socket,id=con0-console,server=on,wait=off,path=/o,,ut/con0-console.sock",
            "virtconsole,id=con0port0,bus=con0.0,nr=0,chardev=con0-console,\
             name=org.doorbell.con0.console",
            "virtserialport,id=con1port2,bus=con1.0,nr=2,chardev=con1-data1,\
             name=org.doorbell.con1.data1",
            "virtio-balloon-pci,id=balloon0,deflate-on-oom=on,bus=pcie.0",
        ],
    );
}

#[test]
fn the_network_ends_where_it_is_told_to() {
    let netdev = |network| {
        let line = line(&Options {
            network,
            ..with(Machine::Q35, &[Group::Net])
        });
        line.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(netdev(Network::Closed), "user,id=netdev0,restrict=on");
    assert_eq!(
        netdev(Network::Forwarded {
            host: 8000,
            guest: 80
        }),
        "user,id=netdev0,hostfwd=tcp:127.0.0.1:8000-:80,hostfwd=udp:127.0.0.1:8000-:7"
    );
    assert_eq!(
        netdev(Network::Socket),
        "stream,id=netdev0,server=on,addr.type=unix,addr.path=/o,,ut/net0.sock"
    );
}

#[test]
fn each_of_two_is_there_by_itself() {
    let both = [Group::Net, Group::NetBehind, Group::ConsoleBehind];
    for (machine, groups, nets, cons) in [
        (Machine::Q35, &both[..1], vec![0], vec![]),
        (Machine::Q35, &both[1..], vec![1], vec![1]),
        (Machine::Pc, &both[..], vec![0, 1], vec![1]),
        (Machine::Microvm, &both[..], vec![0], vec![]),
    ] {
        let options = with(machine, groups);
        assert_eq!(adapters(&options), nets);
        assert_eq!(consoles(&options), cons);
    }
}

#[test]
fn an_adapter_with_pairs_has_a_tap_with_queues() {
    let parts = "tap,id=netdev2,queues=2,vhost=off,script=/o,,ut/net2.sh,downscript=no";
    let pci = line(&with(Machine::Pc, &[Group::NetPairs]));
    assert_parts(
        &pci,
        &[
            parts,
            "netdev=netdev2,mac=52:54:00:db:00:02,mq=on,vectors=6,bus=pci.0",
        ],
    );
    let mmio = line(&with(Machine::Microvm, &[Group::NetPairs]));
    assert_parts(&mmio, &[parts, "virtio-net-device,id=net2,netdev=netdev2"]);
    assert!(mmio.ends_with(",mq=on"), "{mmio}");
}

#[test]
fn direct_devices_have_no_eventfd_and_no_iothread() {
    use Group::*;
    let line = line(&Options {
        doorbells: Doorbells::Direct,
        ..with(Machine::Pc, &[Disks, Entropy, BalloonBehind])
    });
    assert_eq!(line.matches("ioeventfd=off").count(), 4);
    assert!(!line.contains("iothread") && !line.contains("pcie"));
    assert_parts(
        &line,
        &[
            "pci-bridge,id=bridge1,bus=pci.0,chassis_nr=1",
            "deflate-on-oom=on,bus=bridge3",
        ],
    );
}

#[test]
fn each_virtio_device_offers_packed_rings_where_asked() {
    use Group::*;
    let groups = [
        Disks,
        SpecialDisks,
        HotPlug,
        Entropy,
        Testdev,
        Net,
        NetBehind,
        NetPairs,
        Console,
        Balloon,
    ];
    for (machine, bus) in [(Machine::Q35, "pci"), (Machine::Microvm, "device")] {
        let options = with(machine, &groups);
        assert!(!line(&options).contains("packed"));
        let line = line(&Options {
            packed: true,
            ..options.clone()
        });
        let virtio = format!("-{bus},id=");
        let devices: Vec<_> = line
            .split(' ')
            .filter(|word| word.starts_with("virtio-") && word.contains(&virtio))
            .collect();
        assert!(devices.len() > 8, "{line}");
        for device in devices {
            assert!(device.contains(",packed=on"), "{device}");
        }
        assert_eq!(
            line.matches("packed=on").count(),
            line.matches(&virtio).count()
        );
    }
    let packed = Options {
        packed: true,
        ..with(Machine::Q35, &[HotPlug, Ports(2)])
    };
    assert_eq!(plug(&packed, "blk8").unwrap()["packed"], true);
    assert_eq!(line(&packed).matches("packed=on").count(), 1 + 2);
}

#[test]
fn direct_mmio_has_no_eventfd_either() {
    let line = line(&Options {
        doorbells: Doorbells::Direct,
        ..with(Machine::Microvm, &[Group::Keyboard])
    });
    assert_parts(
        &line,
        &[
            "-global virtio-mmio.ioeventfd=off",
            "virtio-keyboard-device,id=kbd0",
        ],
    );
}

#[test]
fn the_others_have_what_they_show_behind_them() {
    use Group::*;
    let line = line(&Options {
        doorbells: Doorbells::Direct,
        ..with(Machine::Q35, &[KnownEntropy, Gpu, Keyboard, Share, Sound])
    });
    assert_parts(
        &line,
        &[
            "-object rng-random,id=known,filename=/o,,ut/entropy.bin",
            "virtio-rng-pci,id=rng0,ioeventfd=off,rng=known,bus=pcie.0,modern-pio-notify=on",
            "virtio-gpu-pci,id=gpu0,ioeventfd=off,bus=pcie.0",
            "virtio-keyboard-pci,id=kbd0,bus=pcie.0",
            "-fsdev local,id=share,path=/o,,ut/share,security_model=none",
            "virtio-9p-pci,id=share0,ioeventfd=off,fsdev=share,mount_tag=doorbell,bus=pcie.0",
            "-audiodev wav,id=sound,path=/o,,ut/sound.wav",
            "virtio-sound-pci,id=sound0,ioeventfd=off,audiodev=sound,streams=1,bus=pcie.0",
        ],
    );
}

#[test]
fn special_disks_stand_beside_the_ordinary_ones() {
    let options = with(Machine::Q35, &[Group::Disks, Group::SpecialDisks]);
    let disks = disks(&options);
    let plain: Vec<_> = disks.iter().map(|disk| (disk.n, disk.is_plain())).collect();
    assert_eq!(plain[..3], [(0, true), (1, true), (2, false)]);
    assert_eq!(disks.len(), 7);
    assert!(disks[0].bytes() > disks[2].bytes());
    let line = line(&options);
    assert_eq!(line.matches("virtio-blk-pci").count(), 7);
    assert_parts(
        &line,
        &[
            "drive=disk2,serial=doorbell-readonly",
            "serial=doorbell-queues,num-queues=4",
            "drive=disk6,serial=doorbell-full,rerror=report,werror=report",
        ],
    );
}

#[test]
fn what_can_be_plugged_has_a_port() {
    let options = with(Machine::Q35, &[Group::HotPlug]);
    let text = line(&options);
    assert_parts(
        &text,
        &[
            "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            "pcie-root-port,id=slot1,bus=pcie.0,chassis=101,slot=101",
            "pcie-root-port,id=slot2,bus=pcie.0,chassis=102,slot=102",
            "serial=doorbell-disk7,iothread=io0,bus=slot1",
            "node-name=disk8",
        ],
    );
    assert!(!text.contains("drive=disk8"));
    assert_eq!(
        plug(&options, "blk8"),
        Some(json!({
            "driver": "virtio-blk-pci", "id": "blk8", "ioeventfd": true, "drive": "disk8",
            "serial": "doorbell-disk8", "iothread": "io0", "bus": "slot2",
        }))
    );
    assert_eq!(plug(&options, "blk0"), None);
    assert_eq!(plug(&with(Machine::Q35, &[Group::Disks]), "blk8"), None);
}

#[test]
fn ports_stand_eight_to_a_slot() {
    let line = line(&with(Machine::Q35, &[Group::Ports(10)]));
    assert_eq!(line.matches("virtio-rng-pci-transitional").count(), 10);
    assert_parts(
        &line,
        &[
            "-object rng-builtin,id=entropy",
            "id=port7,bus=pcie.0,chassis=7,slot=7,multifunction=on,addr=0x3.7",
            "id=port8,bus=pcie.0,chassis=8,slot=8,multifunction=on,addr=0x4.0",
        ],
    );
    assert!(!line.contains("drive"));
}

#[test]
fn microvm_has_one_version_of_mmio_and_nothing_behind() {
    use Group::*;
    let groups = [Disks, Entropy, Testdev, NetBehind, Console, BalloonBehind];
    let microvm = with(Machine::Microvm, &groups);
    let line1 = line(&Options {
        mmio_version: 1,
        ..microvm.clone()
    });
    assert!(line1.starts_with("-global virtio-mmio.force-legacy=true "));
    assert_parts(
        &line1,
        &[
            "virtio-blk-device,id=blk0,drive=disk0,serial=doorbell-disk0 ",
            "virtio-rng-device,id=rng0,rng=entropy ",
            "virtio-serial-device,id=con0,max_ports=8 ",
            "virtio-balloon-device,id=balloon0,deflate-on-oom=on",
        ],
    );
    for part in ["blk1", "rng1", "net", "testdev", "iothread", "eventfd"] {
        assert!(!line1.contains(part), "`{part}` in {line1}");
    }
    let bare = with(Machine::Microvm, &[]);
    assert_eq!(line(&bare), "-global virtio-mmio.force-legacy=false");
    assert_eq!((disks(&bare).len(), disks(&microvm).len()), (0, 1));
}
