//! Tests that every backend passes: they speak to a `Runtime` and compare with numbers from PEFT.

pub mod adalora;
mod cases;
pub mod conformance;
pub mod delta_lora;
pub mod families;
pub mod golden;
pub mod lifecycle;
pub mod loftq;
pub mod lora_drop;
pub mod lora_fa;
pub mod lora_plus;
pub mod parity;
pub mod quantised;
pub mod races;
pub mod seq2seq;
pub mod tasks;
mod traces;
pub mod training;

/// One `#[test]` for each check of the suite, on the runtime given.
macro_rules! on {
    ($runtime:expr) => {
        $crate::suite::on!(@tests $runtime;
            conformance: every_method_has_every_property;
            parity: base_logits, rope_scaling, left_padding, greedy_generation, adapters_written_by_peft,
                first_gradients, bf16_base_is_close;
            families: base_logits, variants, greedy_generation, adapters_written_by_peft, first_gradients,
                twenty_steps_equal_peft, merged_models_open, everything_may_train, four_bit_bases_are_close;
            seq2seq: base_logits, configurations_without_a_scale, greedy_generation, cached_decoding_equals_one_pass,
                adapters_written_by_peft, first_gradients, twenty_steps_equal_peft, merged_models_open, everything_may_train,
                tables_of_distances_train, energies_do_not_depend_on_padding, four_bit_bases_are_close;
            tasks: base_outputs_and_losses, adapters_written_by_peft, first_gradients, twenty_steps_equal_peft,
                merged_models_open, everything_may_train, texts_do_not_see_each_other, four_bit_bases_are_close,
                heads_are_made_where_there_are_none;
            lifecycle: adapters_alternate_over_one_base, converted_adapters_compute_the_same, training_goes_on_from_an_adapter,
                a_resumed_run_may_move_its_moments,
                an_adapter_of_another_shape_is_no_start;
            loftq: the_start_is_closer_to_the_weights_than_their_quantisation, trains_as_over_the_dequantised_weights,
                a_run_keeps_its_own_base, what_belongs_to_another_base_is_refused;
            adalora: ranks_settle_and_stay, a_run_broken_while_pruning_ends_with_the_same_ranks,
                importances_are_taken_once_a_step, the_saved_adapter_computes_the_same;
            training: twenty_steps_equal_peft, pissa_equals_peft, checkpointed_gradients_equal_plain_ones, only_the_adapter_moves,
                random_projections_are_shared_and_stay,
                full_fine_tuning_equals_transformers, a_tied_head_stays_when_the_embedding_trains,
                accumulation_equals_one_big_batch, dropout_is_counted_not_streamed, moments_survive_a_round_trip,
                moments_on_the_host_change_nothing,
                the_trainable_set_is_known_beforehand, norms_train_whole;
            delta_lora: resumes_to_the_bit, micro_batches_are_one_step, only_optimizer_steps_count,
                is_read_back_as_lora, the_shared_base_stays;
            lora_drop: energy_is_the_squared_norm_of_the_correction, energies_do_not_depend_on_batches_order_or_padding,
                doubling_b_quadruples_the_energy, planted_corrections_are_found, keeping_every_module_is_lora,
                a_shared_gradient_is_the_sum_over_its_uses, modules_go_on_sharing_after_steps;
            lora_fa: a_stays_and_the_update_stays_in_its_rows, what_adapters_keep_is_what_was_foretold,
                corrected_training_survives_a_round_trip, saved_as_lora_it_gives_the_same_logits;
            lora_plus: rates_differ_and_the_gradient_norm_does_not;
            races: a_race_changes_nothing_for_its_members;
            quantised: equals_bitsandbytes_and_peft, takes_the_bits_it_says, a_trained_weight_is_its_dequantised_self);
    };
    (@tests $runtime:expr; $($module:ident: $($name:ident),*);*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                if $runtime.devices().is_empty() {
                    eprintln!("skipped: no {} device", $runtime.name());
                    return;
                }
                $crate::suite::$module::$name(*$runtime);
            })*
        })*
    };
}
pub(crate) use on;
