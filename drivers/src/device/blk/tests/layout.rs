//! Requests whose status is behind their data.

use super::*;

fn read(rig: &Rig<'_>, sector: u64, len: usize) -> Result<(), DeviceError> {
    let mut blk = rig.start().unwrap();
    let buffer = DmaRegion::new(rig.dma, len, SECTOR).unwrap();
    let request = Request::ReadAndStatus { sector, buffer };
    blk.submit(request).map_err(|(error, _)| error)?;
    blk.queue(0).kick();
    rig.run();
    let done = blk.poll().unwrap().unwrap();
    done.result?;
    let buffer = done.request.into_buffer().unwrap();
    let (data, status) = buffer.split_at(len - 1);
    for (index, data) in data.chunks(SECTOR).enumerate() {
        assert_eq!(data, [sector as u8 + index as u8; SECTOR]);
    }
    assert_eq!(status, [super::super::disk::OK]);
    Ok(())
}

#[test]
fn a_status_behind_the_data_takes_a_buffer_less() {
    for ring in [Features::empty(), RING] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN | ring, |_| ());
        rig.disk.borrow_mut().any_layout = true;
        assert_eq!(read(&rig, 5, 2 * SECTOR + 1), Ok(()));
        rig.disk.borrow_mut().status = IOERR;
        assert_eq!(read(&rig, 5, 2 * SECTOR + 1), Err(DeviceError::Io));
        rig.disk.borrow_mut().status = 77;
        let bad = DeviceError::BadAnswer {
            status: 77,
            written: 2 * SECTOR as u32 + 1,
        };
        assert_eq!(read(&rig, 5, 2 * SECTOR + 1), Err(bad));

        rig.disk.borrow_mut().status = 0;
        let mut blk = rig.start().unwrap();
        let buffer = DmaRegion::new(&dma, SECTOR + 1, SECTOR).unwrap();
        let at = buffer.address();
        let sector = 0;
        blk.submit(Request::ReadAndStatus { sector, buffer })
            .unwrap();
        let chain = rig.device.take(0).unwrap();
        let [header, data] = chain.buffers() else {
            panic!("{:?}", chain.buffers())
        };
        assert_eq!((header.len, header.writable), (16, false));
        assert_eq!((data.address, data.len as usize), (at, SECTOR + 1));
        // A device that says nothing has not answered.
        rig.device.finish(0, &chain, SECTOR as u32 + 1);
        let silent = blk.poll().unwrap().unwrap().result;
        let nothing = DeviceError::BadAnswer {
            status: 0xff,
            written: SECTOR as u32 + 1,
        };
        assert_eq!(silent, Err(nothing));
    }
}

#[test]
fn a_status_behind_the_data_needs_a_free_layout_and_room() {
    let dma = FakeDma::default();
    let legacy_rig = Rig::new(&dma, FLUSH, legacy);
    let error = read(&legacy_rig, 0, SECTOR + 1);
    assert_eq!(error, Err(DeviceError::Unsupported));

    // The whole buffer is one segment, which may have 4096 bytes.
    let rig = Rig::new(&dma, MODERN | SIZE_MAX, |_| ());
    rig.disk.borrow_mut().any_layout = true;
    assert_eq!(read(&rig, 0, 7 * SECTOR + 1), Ok(()));
    for len in [1, SECTOR, SECTOR + 2, 8 * SECTOR + 1] {
        let refused = DeviceError::BufferLength {
            len: len - 1,
            multiple: SECTOR,
            max: 4095,
        };
        assert_eq!(read(&rig, 0, len), Err(refused));
    }
}
