//! The stories of bodies and of connections held open, at the size that makes no more haste possible.

use crate::{bodies, faults, pairs};

#[tokio::test]
async fn a_gibibyte_passes_both_ways_unchanged_and_in_flat_memory() {
    bodies::pass_both_ways(1024 * bodies::MIB).await;
}

#[tokio::test]
async fn a_gibibyte_passes_both_ways_at_once_unchanged_and_in_flat_memory_by_every_pair_of_ways() {
    pairs::pass_by_every_pair_in_flat_memory(1024 * bodies::MIB).await;
}

#[tokio::test]
async fn nine_thousand_connections_held_open_cost_little_and_hold_up_nobody() {
    faults::held_open(9_000).await;
}
