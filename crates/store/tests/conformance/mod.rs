//! What every backend must do: many small tests against the traits, run by `store_conformance!(name, make)`.
#![allow(missing_docs, unreachable_pub, dead_code)]

pub mod admin;
pub mod fixture;
pub mod operations;
pub mod registry;
pub mod stock;
pub mod sync;

pub use fixture::{Fixture, TestClock};

#[macro_export]
macro_rules! store_conformance {
    ($backend:ident, $make:ident) => {
        $crate::store_conformance!(@tests $backend, $make, sync:
            a_write_becomes_a_commit a_write_without_a_difference_makes_no_commit a_stock_movement_is_a_patch_of_the_stock
            changes_after_a_cursor_hold_only_what_changed a_snapshot_is_ordered_and_sums_up_to_the_digest deletions_are_lines_of_a_catch_up
            a_broken_answer_goes_on_where_it_stopped a_deletion_after_the_break_is_part_of_the_resumed_answer
            another_epoch_requires_a_snapshot a_cursor_ahead_of_the_head_starts_a_new_epoch_once a_cursor_with_another_tag_is_not_remembered
            every_branch_sees_the_catalogue a_new_branch_gets_the_catalogue a_branch_price_is_seen_there_only
            a_bulk_import_is_one_commit_without_frames frames_rebuild_the_rows fresh_entries_come_in_order_and_acknowledged_ones_go
            an_overflow_of_fresh_entries_is_read_from_the_table sub_digests_add_up rows_of_a_range_are_those_of_the_sub_digest
            an_unknown_branch_has_no_changes a_mass_deletion_is_held_until_confirmed a_recipe_is_part_of_the_row
            a_price_in_another_currency_is_refused concurrent_writers_get_dense_numbers the_sweep_of_a_true_mirror_finds_nothing);
    };
    (@tests $backend:ident, $make:ident, $module:ident: $($test:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::conformance::$module::$test(super::$make()).await;
            })*
        }
    };
}
