//! All cases, in the order of the catalogue, with what proves each.

use super::{Case, Play, Proof, http, ice, identity, media, quic};

pub use super::named::{missing_tests, tests_of_the_workspace};

const fn played(
    number: u8,
    name: &'static str,
    expected: &'static str,
    peers: u64,
    play: Play,
    tests: &'static [&'static str],
) -> Case {
    Case { number, name, expected, proof: Proof::Played { peers, play }, tests }
}

const fn elsewhere(number: u8, name: &'static str, expected: &'static str, tests: &'static [&'static str]) -> Case {
    Case { number, name, expected, proof: Proof::Elsewhere, tests }
}

const fn absent(number: u8, name: &'static str, reason: &'static str, shown: Option<Play>) -> Case {
    Case { number, name, expected: "does not apply", proof: Proof::Absent { reason, shown }, tests: &[] }
}

const NO_TURN: &str = "there is no TURN server of our own; coturn's own rules apply";
const NO_ENGINE: &str = "no store is shared between nodes: each gate alone counts its epochs";

/// All of them.
pub const ALL: &[Case] = &[
    played(
        1,
        "bi_01_header_drip",
        "closed at 5 s, the place is free again",
        4,
        http::bi_01_header_drip,
        &["slow_and_silent_clients_are_closed"],
    ),
    played(
        2,
        "bi_02_idle_connections",
        "a bound per address and network; others are served",
        8,
        http::bi_02_idle_connections,
        &["connections_are_bounded_per_peer_and_given_back", "one_network_leaves_places_to_the_others"],
    ),
    played(
        3,
        "bi_03_endless_body",
        "413 before it is buffered",
        1,
        http::bi_03_endless_body,
        &[
            "large_bodies_are_refused_whether_announced_or_not",
            "a_body_that_never_ends_is_given_up",
            "bodies_that_drip_are_bounded_too",
        ],
    ),
    played(4, "bi_04_large_header", "431", 1, http::bi_04_large_header, &["a_huge_header_is_refused"]),
    Case {
        number: 5,
        name: "bi_05_http2",
        expected: "no HTTP/2 is spoken",
        proof: Proof::Absent {
            reason: "HTTP/2 is not compiled in and not offered by ALPN",
            shown: Some(http::bi_05_http2),
        },
        tests: &[],
    },
    played(
        6,
        "bi_06_websocket_frames",
        "closed with 1009, 1008 or 1002; no compression",
        4,
        http::bi_06_websocket_frames,
        &["broken_and_large_messages_close_the_socket", "a_flood_of_messages_closes_the_socket"],
    ),
    played(
        7,
        "bi_07_foreign_origin",
        "403",
        1,
        http::bi_07_foreign_origin,
        &["pages_of_other_origins_and_other_protocols_are_refused", "another_website_gets_nothing_and_is_counted"],
    ),
    played(
        8,
        "bi_08_client_that_never_reads",
        "bounded, then closed",
        2,
        http::bi_08_client_that_never_reads,
        &[
            "a_client_that_never_reads_is_closed_and_holds_nobody_up",
            "a_full_queue_ends_the_socket_and_captures_go_first",
            "a_client_that_does_not_read_its_answers_is_cut_off",
        ],
    ),
    played(
        9,
        "bi_09_json",
        "400 that names the field",
        1,
        http::bi_09_json,
        &[
            "json_problems_name_the_field",
            "deep_json_is_refused_without_much_work",
            "a_key_that_nobody_knows_does_not_echo_whole",
        ],
    ),
    played(
        10,
        "bi_10_join_flood",
        "429 with Retry-After",
        1,
        http::bi_10_join_flood,
        &[
            "a_flood_of_joins_is_told_to_wait",
            "one_participant_cannot_ask_without_end",
            "a_failed_attempt_leaves_no_guest_and_guessing_is_slowed_down",
        ],
    ),
    played(
        11,
        "bi_11_names",
        "400",
        1,
        http::bi_11_names,
        &["names_that_deceive_are_refused", "names_that_could_break_out_are_refused"],
    ),
    played(
        12,
        "bi_12_token_algorithms",
        "401",
        1,
        identity::bi_12_token_algorithms,
        &["tokens_of_other_algorithms_are_refused", "another_key_another_algorithm_and_no_algorithm_are_refused"],
    ),
    played(
        13,
        "bi_13_token_times",
        "401",
        1,
        identity::bi_13_token_times,
        &["claims_of_the_wrong_type_are_refused", "clocks_may_be_five_seconds_apart"],
    ),
    played(
        14,
        "bi_14_token_of_another",
        "401 or 403",
        1,
        identity::bi_14_token_of_another,
        &[
            "tokens_of_another_key_issuer_or_audience_are_refused",
            "an_observer_cannot_publish_invite_or_manage",
            "joins_and_denials_are_recorded",
        ],
    ),
    played(
        15,
        "bi_15_token_from_another_device",
        "no media to another certificate, counted",
        1,
        identity::bi_15_token_from_another_device,
        &["a_station_needs_a_token_of_its_session_that_is_bound_to_its_certificate"],
    ),
    played(
        16,
        "bi_16_removed_while_watching",
        "cut off within a second; a holder goes to HOLD first",
        1,
        identity::bi_16_removed_while_watching,
        &["a_removed_participant_is_cut_off", "f23_certificate_revoked"],
    ),
    played(
        17,
        "bi_17_key_from_the_header",
        "401, nothing is fetched",
        1,
        identity::bi_17_key_from_the_header,
        &["tokens_of_other_algorithms_are_refused"],
    ),
    played(
        18,
        "bi_18_client_certificates",
        "the connection does not come about",
        2,
        identity::bi_18_client_certificates,
        &[
            "a_certificate_of_another_realm_authority_or_without_a_name_does_not_get_in",
            "a_list_that_cannot_be_used_leaves_the_former_one_in_force",
            "another_authority_a_revoked_certificate_and_a_wrong_role_get_no_channel_either_way",
        ],
    ),
    played(
        19,
        "bi_19_resources_of_others",
        "401 or 404, as fast as where nothing is",
        1,
        identity::bi_19_resources_of_others,
        &["a_resource_is_its_owners_alone"],
    ),
    played(
        20,
        "bi_20_monstrous_sdp",
        "413 or 400, at once",
        1,
        ice::bi_20_monstrous_sdp,
        &[
            "offers_of_monstrous_size_are_refused_at_once",
            "the_largest_offer_that_is_taken_is_parsed_within_its_time_and_kept_within_its_bounds",
        ],
    ),
    played(
        21,
        "bi_21_munged_sdp",
        "400, 406 or 422",
        1,
        ice::bi_21_munged_sdp,
        &["what_is_wrong_is_named", "plain_rtp_and_rtp_without_rtcp_mux_are_named"],
    ),
    played(
        22,
        "bi_22_other_certificate",
        "no media",
        1,
        ice::bi_22_other_certificate,
        &[
            "a_certificate_that_is_not_the_one_of_the_sdp_is_refused_before_any_key",
            "a_peer_that_shows_no_certificate_gets_no_keys",
        ],
    ),
    played(
        23,
        "bi_23_null_cipher",
        "the session is unaffected",
        2,
        ice::bi_23_null_cipher,
        &["a_forged_client_hello_during_and_after_the_handshake_does_not_end_the_session"],
    ),
    played(
        24,
        "bi_24_dtls_fragments",
        "bounded; unvalidated sources are dropped",
        2,
        ice::bi_24_dtls_fragments,
        &[
            "fragments_that_are_empty_or_lie_or_never_end_are_not_kept",
            "a_handshake_that_never_ends_is_given_up_after_its_time",
            "a_flood_of_pieces_is_bounded_and_the_true_client_hello_is_taken_after_it",
        ],
    ),
    played(
        25,
        "bi_25_stun",
        "dropped; answers are no longer than requests",
        1,
        ice::bi_25_stun,
        &["floods_of_attributes_and_lies_about_length_end_early"],
    ),
    played(
        26,
        "bi_26_ice_storms",
        "429; nothing is sent to candidates",
        1,
        ice::bi_26_ice_storms,
        &["a_peer_may_check_from_a_bounded_number_of_addresses"],
    ),
    played(
        27,
        "bi_27_consent_lost",
        "media ends 5 s after the last check",
        1,
        ice::bi_27_consent_lost,
        &["a_peer_that_never_checks_is_dropped"],
    ),
    absent(28, "bi_28_turn_permissions", NO_TURN, Some(ice::bi_28_turn)),
    absent(29, "bi_29_turn_allocations", NO_TURN, None),
    absent(30, "bi_30_turn_reflection", NO_TURN, None),
    played(
        31,
        "bi_31_srtp_flood",
        "counted, dropped, never the end of the session",
        1,
        media::bi_31_srtp_flood,
        &["replays_and_forgeries_are_refused_and_leave_the_state_alone"],
    ),
    played(
        32,
        "bi_32_plain_rtp",
        "dropped",
        1,
        media::bi_32_plain_rtp,
        &["every_bit_of_an_rtp_packet_is_protected_and_so_is_the_roll_over"],
    ),
    played(
        33,
        "bi_33_replay",
        "dropped",
        1,
        media::bi_33_replay,
        &[
            "replays_and_forgeries_are_refused_and_leave_the_state_alone",
            "short_packets_and_unencrypted_rtcp_are_refused_without_harm",
        ],
    ),
    played(
        34,
        "bi_34_ssrc_flood",
        "at most 32 sources",
        1,
        media::bi_34_ssrc_flood,
        &[
            "a_peer_with_too_many_sources_is_refused",
            "a_flood_of_sources_leaves_one_for_media_and_one_for_repair_in_each_lane",
        ],
    ),
    played(
        35,
        "bi_35_header_extensions",
        "dropped; the feed goes on",
        1,
        media::bi_35_header_extensions,
        &["malformed_packets_are_refused_without_a_panic", "every_prefix_of_every_two_byte_start_is_survived"],
    ),
    played(
        36,
        "bi_36_rtcp",
        "at most two key frames a second are asked for",
        1,
        media::bi_36_rtcp,
        &[
            "truncated_and_lying_packets_end_the_walk",
            "a_flood_of_requests_leaves_at_most_two_key_frames_a_second_to_the_publisher",
            "unknown_symbols_and_truncated_packets_are_refused",
        ],
    ),
    played(
        37,
        "bi_37_codec_headers",
        "dropped",
        4,
        media::bi_37_codec_headers,
        &[
            "no_random_byte_string_is_a_panic_and_no_size_is_out_of_range",
            "sizes_that_overflow_are_malformed",
            "a_short_paci_packet_is_malformed",
        ],
    ),
    played(
        38,
        "bi_38_above_the_grant",
        "policed to the grant",
        1,
        media::bi_38_above_the_grant,
        &["who_sends_twice_its_grant_loses_whole_frames_and_another_feed_loses_nothing"],
    ),
    Case {
        number: 39,
        name: "bi_39_sctp",
        expected: "no association",
        proof: Proof::Absent {
            reason: "there are no data channels and no SCTP in the relay",
            shown: Some(ice::bi_39_sctp),
        },
        tests: &["data_channels_and_names_with_odd_characters_do_no_harm"],
    },
    played(40, "bi_40_bad_initials", "CONNECTION_CLOSE or silence", 1, quic::bi_40_bad_initials, &[]),
    played(
        41,
        "bi_41_initial_flood",
        "at most three times what came, the last datagram whole; Retry above 64",
        2,
        quic::bi_41_initial_flood,
        &["whoever_forges_an_address_cannot_lock_its_owner_out"],
    ),
    played(
        42,
        "bi_42_streams",
        "bounded streams and windows",
        1,
        quic::bi_42_streams,
        &[
            "a_length_that_no_packet_has_ends_the_stream_before_anything_is_kept",
            "a_stream_that_brings_nothing_is_given_up_and_one_that_brings_something_is_not",
        ],
    ),
    played(43, "bi_43_migration", "others unaffected", 1, quic::bi_43_migration, &["f15_path_changes"]),
    played(44, "bi_44_ack_of_unsent", "PROTOCOL_VIOLATION", 1, quic::bi_44_ack_of_unsent, &[]),
    played(45, "bi_45_early_data", "none is taken", 1, quic::bi_45_early_data, &[]),
    absent(46, "bi_46_moq", "there is no MoQ", None),
    elsewhere(
        47,
        "bi_47_stale_epoch",
        "refused, the register unchanged",
        &["f20_forged_and_flooded", "a_command_of_another_epoch_moves_nothing", "f4_commands_after_take"],
    ),
    elsewhere(
        48,
        "bi_48_sequence_jump",
        "refused; the honest sender goes on",
        &[
            "a_forward_jump_is_adopted",
            "no_seed_breaks_an_invariant_and_remote_is_reached_and_moves",
            "f20_forged_and_flooded",
        ],
    ),
    elsewhere(
        49,
        "bi_49_replay_of_commands",
        "0 carried out",
        &[
            "a_datagram_repeated_under_another_counter_or_kind_does_not_open",
            "commands_move_the_device_once_each_in_order_with_the_granted_set",
            "no_counter_check",
            "f20_forged_and_flooded",
        ],
    ),
    elsewhere(
        50,
        "bi_50_old_command",
        "refused by the gate's own clock",
        &["a_command_with_a_loop_age_above_the_limit_is_refused", "age_from_the_senders_clock", "f10_clocks_jump"],
    ),
    elsewhere(
        51,
        "bi_51_right_epoch_wrong_key",
        "refused and recorded",
        &[
            "a_command_under_anothers_key",
            "only_live_bindings_open_and_another_channels_keys_never_do",
            "f20_forged_and_flooded",
        ],
    ),
    elsewhere(
        52,
        "bi_52_two_accept",
        "exactly one, or none",
        &[
            "f11_two_experts_accept_at_once",
            "accept_from_anybody",
            "accept_without_oid",
            "take_wins_over_whatever_it_crosses",
        ],
    ),
    elsewhere(
        53,
        "bi_53_estop_flood",
        "outsiders are dropped, local's TAKE always wins",
        &[
            "one_estop_counts_per_ten_seconds_and_sender_and_none_of_whom_local_muted",
            "take_reaches_the_device_in_the_step_that_reads_it_whatever_the_network_does",
            "f20_forged_and_flooded",
        ],
    ),
    elsewhere(
        54,
        "bi_54_control_flood",
        "policed to 1 kHz, TAKE within 50 ms",
        &[
            "more_than_a_thousand_a_second_do_not_pass",
            "a_flood_of_sealed_datagrams_is_cut_to_what_a_holder_may_send",
            "a_flood_from_the_network_delays_no_act_of_local_and_is_counted",
            "a_flood_of_datagrams_is_cut_to_its_senders_rate_and_disturbs_nobody",
            "f20_forged_and_flooded",
        ],
    ),
    elsewhere(
        55,
        "bi_55_epoch_from_elsewhere",
        "refused",
        &[
            "where_the_numbers_end_nothing_is_granted_and_nothing_wraps",
            "an_older_copy_of_the_epochs_that_is_brought_back_is_found",
            "a_store_behind_the_devices_fence_is_not_believed",
            "f22_second_gate",
        ],
    ),
    absent(56, "bi_56_engine_goes_back", NO_ENGINE, None),
    absent(57, "bi_57_lease_lost", NO_ENGINE, None),
    absent(58, "bi_58_watch_events", NO_ENGINE, None),
    absent(59, "bi_59_malformed_value", NO_ENGINE, None),
    elsewhere(
        60,
        "bi_60_store",
        "no start, and a clear error",
        &[
            "a_second_process_is_kept_away",
            "unknown_foreign_and_broken_files_are_refused",
            "a_store_whose_epochs_cannot_be_read_is_unreadable_and_says_which_file_and_why",
            "a_second_gate_cannot_have_the_same_directory_until_the_first_is_gone",
        ],
    ),
    elsewhere(
        61,
        "bi_61_audit_file",
        "the first bad record is named",
        &[
            "a_changed_byte_is_found_at_its_line",
            "a_removed_line_is_found_where_it_was",
            "swapped_and_repeated_lines_are_found_at_the_first_of_them",
            "a_cut_tail_is_found_by_the_head_the_copy_and_the_next_intent",
        ],
    ),
    elsewhere(
        62,
        "bi_62_configuration",
        "no start; the key is named",
        &[
            "a_configuration_is_checked_and_an_unknown_key_named",
            "secrets_that_others_can_read_are_refused",
            "what_is_wrong_is_named_with_its_line_or_value_and_what_would_be_right",
        ],
    ),
    elsewhere(
        63,
        "bi_63_injection",
        "escaped or left out",
        &[
            "what_people_said_cannot_write_lines_or_colours_into_the_story",
            "text_from_outside_cannot_write_on_the_terminal",
            "cleaned_text_is_short_and_harmless",
            "the_body_has_ids_and_names_and_nothing_private",
            "figures_are_rendered_with_labels_and_cumulative_buckets",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_63_cases_stand_in_order_and_every_test_that_one_names_exists() {
        let numbers: Vec<u8> = ALL.iter().map(|c| c.number).collect();
        assert_eq!(numbers, (1..=63).collect::<Vec<u8>>());
        for case in ALL {
            assert!(case.name.starts_with(&format!("bi_{:02}_", case.number)), "{}", case.name);
            let is_elsewhere = matches!(case.proof, Proof::Elsewhere);
            assert!(!is_elsewhere || !case.tests.is_empty(), "{} is proved by nothing", case.name);
        }
        let there = tests_of_the_workspace().unwrap();
        let missing = missing_tests(ALL.iter().flat_map(|c| c.tests).copied(), &there);
        assert_eq!(missing, Vec::<&str>::new());
        // The control: a name that no test has.
        assert_eq!(missing_tests(["no_test_is_called_so"], &there), ["no_test_is_called_so"]);
    }
}
