//! What every backend must do: many small tests against the traits, run by `store_conformance!(name, make)`. `make` gives nothing where the backend's
//! server is not installed.
#![allow(missing_docs, unreachable_pub, dead_code)]

pub mod access;
pub mod admin;
pub mod admission;
pub mod dead_letters;
pub mod fixture;
pub mod foreign;
pub mod inbox;
pub mod operations;
pub mod personal;
pub mod registry;
pub mod stock;
pub mod stock_books;
pub mod sync;

pub use fixture::{Fixture, TestClock};

#[macro_export]
macro_rules! store_conformance {
    ($backend:ident, $make:ident) => {
        $crate::store_conformance!(@tests $backend, $make, sync:
            a_write_becomes_a_commit a_write_without_a_difference_makes_no_commit a_stock_movement_is_a_patch_of_the_stock
            changes_after_a_cursor_hold_only_what_changed a_snapshot_is_ordered_and_sums_up_to_the_digest deletions_are_lines_of_a_catch_up
            a_broken_answer_goes_on_where_it_stopped a_deletion_after_the_break_is_part_of_the_resumed_answer
            another_epoch_requires_a_snapshot a_cursor_ahead_of_the_head_starts_a_new_epoch_once a_cursor_with_another_tag_is_not_remembered a_broken_answer_of_a_lost_time_is_not_joined
            unknown_cursors_start_one_epoch_a_minute a_cursor_of_nothing_starts_no_epoch
            every_branch_sees_the_catalogue a_new_branch_gets_the_catalogue a_branch_price_is_seen_there_only
            a_bulk_import_is_one_commit_without_frames frames_rebuild_the_rows fresh_entries_come_in_order_and_acknowledged_ones_go
            an_overflow_of_fresh_entries_is_read_from_the_table sub_digests_add_up rows_of_a_range_are_those_of_the_sub_digest
            an_unknown_branch_has_no_changes a_recipe_is_part_of_the_row
            a_price_in_another_currency_is_refused concurrent_writers_get_dense_numbers a_refused_write_leaves_its_neighbours_alone the_sweep_of_a_true_mirror_finds_nothing);
        $crate::store_conformance!(@tests $backend, $make, operations:
            a_sale_moves_stock_and_makes_a_transaction a_duplicate_answers_the_first_seq a_duplicate_beside_its_first_gets_the_same_seq a_rejection_is_repeated an_id_with_another_body_is_reused
            one_bad_operation_blocks_no_other every_rejection_has_its_code frames_name_their_operations own_operations_are_those_of_the_device
            a_gap_is_alarmed_once_and_cleared_when_filled a_number_used_twice_is_alarmed_and_accepted a_recipe_consumes_and_gives_back
            a_transfer_is_out_here_and_in_there an_untracked_product_keeps_its_stock an_operation_without_effect_gets_the_head
            with_a_backend_deciding_operations_await_their_event events_are_idempotent_and_versioned an_upload_to_nowhere_is_refused
            an_operation_named_before_its_upload_does_not_wait an_event_for_another_branch_names_an_operation_in_its_own
            an_operation_named_elsewhere_before_its_upload_is_named_in_its_own a_transaction_event_becomes_a_row
            a_transaction_event_overwrites_nothing an_event_out_of_range_is_malformed);
        $crate::store_conformance!(@tests $backend, $make, stock:
            a_count_sets_the_base a_late_delta_has_no_effect a_late_count_keeps_later_deltas near_a_count_is_flagged
            the_clock_offset_corrects_the_order a_nonsense_offset_zeroes_no_effect the_policy_decides_below_zero the_same_movement_moves_once inventory_is_counted_too);
        $crate::store_conformance!(@tests $backend, $make, dead_letters:
            a_broken_operation_keeps_its_id a_replacement_of_what_was_accepted_is_refused an_operation_is_replaced_once
            an_operation_that_comes_after_its_replacement_is_refused a_reused_id_may_be_replaced_once
            an_operator_sends_again_what_can_be_accepted_now an_operator_corrects_what_cannot a_decision_at_the_server_overrules_the_till
            a_decision_at_the_till_overrules_the_server a_discarded_operation_stays_discarded a_till_decides_about_its_own_only
            dead_letters_are_listed_by_branch_and_till what_nobody_decided_about_keeps_its_body
            a_wild_number_of_a_rejected_operation_hides_no_gap a_far_number_is_alarmed_and_met_later a_number_told_of_later_closes_its_gap
            refused_uploads_are_alarmed_until_they_pass a_backend_may_not_rewrite_a_receipt);
        $crate::store_conformance!(@tests $backend, $make, inbox:
            only_what_a_backend_decides_is_put_into_its_inbox a_verdict_and_the_stock_of_one_transaction_are_one_commit
            a_verdict_that_changes_nothing_is_told_all_the_same a_rejected_operation_becomes_a_dead_letter a_verdict_counts_once
            an_event_that_names_an_operation_is_a_verdict deliveries_go_out_in_the_order_of_a_branch
            what_a_backend_does_not_take_lets_others_pass a_backend_that_is_away_is_alarmed_until_it_is_back
            another_answer_to_a_second_delivery_is_alarmed what_was_decided_is_forgotten_in_the_end);
        $crate::store_conformance!(@tests $backend, $make, stock_books:
            oversells_are_listed_until_settled a_transfer_in_transit_is_of_neither_branch transfers_come_to_nothing
            a_transfer_is_received_at_its_own_branch_once a_transfer_that_the_other_branch_cannot_hold_leaves_nothing
            old_movements_are_closed);
        $crate::store_conformance!(@tests $backend, $make, registry:
            a_claim_is_redeemed_once_per_nonce an_expired_or_unknown_claim_is_refused a_device_of_another_merchant_is_not_taken_over
            rotation_keeps_the_old_token_until_the_new_is_used a_revoked_device_comes_back_only_by_a_new_claim
            an_active_device_is_not_taken_to_another_branch_by_a_claim a_move_ends_open_claims a_new_life_begins_without_a_report
            a_moved_device_remembers_its_branches reports_are_kept devices_are_listed_by_page
            a_lost_device_is_out_and_says_so_until_it_enrols_again the_age_of_a_token_counts_from_its_making
            devices_of_a_merchant_are_listed_by_page the_journals_of_a_device_say_how_far_they_came);
        $crate::store_conformance!(@tests $backend, $make, access:
            a_token_is_known_by_its_hash_and_nothing_else a_token_expires_and_is_revoked the_old_text_ends_at_the_first_use_of_the_new
            the_old_text_may_end_at_a_time_instead a_second_rotation_keeps_the_text_that_people_have the_last_platform_token_stays
            a_token_is_of_a_merchant_that_exists the_token_of_a_file_is_taken_up_once every_act_on_a_device_is_in_the_log
            acts_on_tokens_and_books_are_in_the_log an_act_that_failed_is_not_in_the_log the_log_is_read_by_page_and_by_part
            the_log_is_not_changed_and_ends_with_its_time);
        $crate::store_conformance!(@tests $backend, $make, admin:
            listings_are_paged transactions_leave_their_window a_merchant_may_have_a_window_of_its_own forgotten_deletions_raise_the_floor alarms_are_listed_newest_first
            alarms_that_are_over_are_forgotten_in_time
            gauges_count service_levels_add_up_and_are_forgotten_in_time a_closed_store_says_so settings_of_a_merchant_are_checked);
        $crate::store_conformance!(@tests $backend, $make, admission:
            a_product_over_the_row_limit_is_refused a_recipe_counts_towards_its_products_row an_inventory_item_over_the_row_limit_is_refused
            what_is_admitted_is_a_row a_receipt_whose_row_would_not_fit_is_rejected a_stock_beyond_the_range_is_refused
            a_price_below_zero_is_refused a_sku_belongs_to_one_product);
        $crate::store_conformance!(@tests $backend, $make, personal:
            our_own_writes_with_personal_data_are_refused a_foreign_row_with_personal_data_stays_away_from_devices
            an_operation_with_personal_data_is_a_dead_letter_without_it);
        $crate::store_conformance!(@tests $backend, $make, foreign:
            a_foreign_write_is_noticed_by_itself a_catalogue_price_reaches_every_branch a_foreign_transaction_is_one_commit
            a_direct_stock_edit_becomes_a_movement a_foreign_movement_moves_the_stock a_row_moved_to_another_branch_leaves_the_first
            a_changed_key_is_a_deletion_and_a_row a_foreign_branch_gets_the_catalogue a_mass_deletion_is_held_until_confirmed
            a_mass_deletion_taken_back_is_forgotten a_row_that_breaks_the_rules_is_quarantined
            values_that_cannot_be_read_stop_no_other_row);
    };
    (@tests $backend:ident, $make:ident, $module:ident: $($test:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(fixture) = super::$make().await {
                    $crate::conformance::$module::$test(fixture).await;
                }
            })*
        }
    };
}
