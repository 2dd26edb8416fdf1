use super::*;
use crate::dma::fake::FakeDma;
use crate::queue::tests::rig::Random;

mod faults;
mod layout;
mod model;
mod notification;

const LEGACY: RingLayout = RingLayout::Contiguous { align: 4096 };
const DIRECT: Features = Features::VERSION_1;
const INDIRECT: Features = Features::VERSION_1.union(Features::INDIRECT_DESC);
const EVENT_IDX: Features = Features::VERSION_1.union(Features::EVENT_IDX);

type Rig<'d> = crate::queue::tests::rig::Rig<'d, SplitRing<&'d FakeDma>>;
