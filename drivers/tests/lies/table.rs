//! The table of lies: what a device may write or present, and how it may lie with it.
//! A cell is a test, or a word on why there is no such lie.

use crate::{balloon, bars, block, config, console, events, msix, net, pci, ring, setup};

/// Does what the cell says, and returns what the driver said of it.
pub(crate) enum Cell {
    Test(fn() -> String),
    /// There is no such lie.
    Not(&'static str),
}

use Cell::{Not, Test};

/// The columns.
pub(crate) const LIES: [&str; 7] = [
    "out of range",
    "replayed",
    "never finishing",
    "changing between two reads",
    "too long",
    "too short",
    "looping",
];

pub(crate) struct Row {
    pub(crate) structure: &'static str,
    /// In the order of [`LIES`].
    pub(crate) cells: [Cell; LIES.len()],
}

const fn row(structure: &'static str, cells: [Cell; LIES.len()]) -> Row {
    Row { structure, cells }
}

pub(crate) static TABLE: &[Row] = &[
    row(
        "used ring: index",
        [
            Test(ring::index_ahead),
            Test(ring::index_that_goes_back),
            Test(ring::index_that_stays),
            Test(ring::index_that_changes),
            Not("a number"),
            Not("a number"),
            Test(ring::index_that_runs_for_ever),
        ],
    ),
    row(
        "used ring: id",
        [
            Test(ring::id_out_of_range),
            Test(ring::id_given_twice),
            Test(ring::id_that_never_comes),
            Test(ring::id_that_changes),
            Test(ring::id_of_more_than_16_bits),
            Not("a number"),
            Test(ring::id_amid_a_loop),
        ],
    ),
    row(
        "used ring: length",
        [
            Test(ring::length_out_of_range),
            Test(ring::length_of_another_request),
            Not("comes with the id"),
            Test(ring::length_that_changes),
            Test(ring::length_of_one_more),
            Test(ring::length_of_nothing),
            Not("a number"),
        ],
    ),
    row(
        "packed ring: flags",
        [
            Test(ring::flags_of_neither),
            Test(ring::flags_of_a_lap_before),
            Test(ring::flags_that_stay),
            Test(ring::flags_that_change),
            Not("bits"),
            Not("bits"),
            Test(ring::flags_of_the_whole_ring),
        ],
    ),
    row(
        "packed ring: id, length",
        [
            Test(ring::packed_id_out_of_range),
            Test(ring::packed_id_given_twice),
            Test(ring::packed_id_that_never_comes),
            Test(ring::packed_id_that_changes),
            Test(ring::packed_length_of_one_more),
            Test(ring::packed_length_of_nothing),
            Test(ring::packed_chain_that_goes_on),
        ],
    ),
    row(
        "event suppression",
        [
            Test(events::out_of_range),
            Test(events::of_before),
            Test(events::doorbells_never_wanted),
            Test(events::that_change),
            Not("a number"),
            Not("a number"),
            Not("no links"),
        ],
    ),
    row(
        "feature bits",
        [
            Test(config::features_of_all_kinds),
            Not("no history"),
            Test(config::features_that_are_never_agreed_on),
            Not("read once"),
            Not("bits"),
            Test(config::features_without_version_1),
            Not("no links"),
        ],
    ),
    row(
        "configuration: fields",
        [
            Test(config::fields_out_of_range),
            Test(config::fields_of_before),
            Test(config::fields_that_never_stand_still),
            Test(config::fields_that_change_once),
            Test(config::more_queues_than_there_are),
            Test(config::a_configuration_that_ends_early),
            Not("no links"),
        ],
    ),
    row(
        "configuration: generation",
        [
            Test(config::generation_at_its_end),
            Test(config::generation_that_is_as_before),
            Test(config::generation_that_never_stands_still),
            Test(config::generation_that_changes_late),
            Not("a number"),
            Not("a number"),
            Test(config::generation_back_and_forth),
        ],
    ),
    row(
        "device status",
        [
            Test(config::status_bits_that_are_reserved),
            Test(config::status_of_before_the_reset),
            Test(config::reset_that_never_ends),
            Test(config::status_that_is_another),
            Not("a byte"),
            Not("a byte"),
            Test(config::reset_wanted_for_ever),
        ],
    ),
    row(
        "capability list",
        [
            Test(pci::a_link_out_of_the_list),
            Test(pci::a_structure_that_is_there_twice),
            Test(pci::a_list_as_long_as_can_be),
            Test(pci::a_link_that_changes),
            Test(pci::a_structure_beyond_its_bar),
            Test(pci::a_structure_without_room),
            Test(pci::a_list_that_comes_back),
        ],
    ),
    row(
        "BAR sizes",
        [
            Test(bars::sizes_that_cannot_be),
            Test(bars::two_at_one_address),
            Test(bars::a_bar_that_takes_no_writes),
            Test(bars::a_size_that_changes),
            Test(bars::a_bar_larger_than_memory),
            Test(bars::a_bar_shorter_than_its_structures),
            Not("no links"),
        ],
    ),
    row(
        "queue sizes",
        [
            Test(setup::queue_sizes_that_no_ring_has),
            Not("no history"),
            Test(setup::a_queue_that_is_never_enabled),
            Test(setup::a_queue_size_that_changes),
            Test(setup::a_queue_for_which_there_is_no_memory),
            Test(setup::a_queue_of_none_or_one),
            Not("no links"),
        ],
    ),
    row(
        "ISR status",
        [
            Test(setup::isr_bits_that_are_reserved),
            Test(setup::isr_of_an_interrupt_that_was),
            Test(setup::isr_that_never_clears),
            Not("read once"),
            Not("a byte"),
            Not("a byte"),
            Not("no links"),
        ],
    ),
    row(
        "MSI-X table",
        [
            Test(msix::a_table_in_no_bar),
            Not("no history"),
            Test(msix::a_vector_that_is_never_taken),
            Test(msix::a_table_that_grows),
            Test(msix::a_table_longer_than_its_bar),
            Test(msix::a_capability_without_room),
            Test(msix::a_list_that_never_has_it),
        ],
    ),
    row(
        "block: status",
        [
            Test(block::status_out_of_range),
            Test(block::status_of_an_earlier_request),
            Test(block::status_that_never_comes),
            Test(block::status_that_changes),
            Test(block::more_than_data_and_status),
            Test(block::success_with_half_of_the_data),
            Not("a byte"),
        ],
    ),
    row(
        "console: control message",
        [
            Test(console::ports_and_events_out_of_range),
            Test(console::a_port_added_twice),
            Test(console::answers_that_are_never_taken),
            Test(console::a_message_that_changes),
            Test(console::messages_that_are_too_long),
            Test(console::messages_that_are_too_short),
            Test(console::a_port_that_comes_and_goes),
        ],
    ),
    row(
        "net: header, num_buffers",
        [
            Test(net::num_buffers_out_of_range),
            Test(net::a_buffer_given_twice),
            Test(net::a_packet_that_never_ends),
            Test(net::num_buffers_that_changes),
            Test(net::more_than_the_buffer),
            Test(net::less_than_the_header),
            Test(net::each_buffer_begins_a_packet),
        ],
    ),
    row(
        "balloon: target, pages",
        [
            Test(balloon::a_target_out_of_range),
            Test(balloon::pages_acknowledged_twice),
            Test(balloon::pages_never_acknowledged),
            Test(balloon::a_target_that_changes),
            Test(balloon::an_acknowledgement_that_wrote_something),
            Test(balloon::a_configuration_that_ends_early),
            Test(balloon::a_target_up_and_down),
        ],
    ),
];
