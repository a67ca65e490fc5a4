"""docs/FAULTS.md lists what clients, files, registries and kills cannot do, and each entry has existing tests."""

from __future__ import annotations

import re
from pathlib import Path

import fault_table
import pytest
from fault_table import Guarantee

TESTS = Path(__file__).parent
NO_VARIANT = "test_no_variant_reaches_a_management_route"
BEYOND_LIMITS = "test_requests_beyond_the_limits_never_reach_the_server"
SERVING = (
    ("a management route in 500 generated spellings of path and headers", "404 or 405, before routing", {
        "serving/test_allowlist": [NO_VARIANT, "test_websockets_are_closed",
                                   "test_the_root_path_of_a_proxy_does_not_hide_a_route"],
        "serving/test_real_vllm": [NO_VARIANT],
    }),
    ("a client reads metrics, or sends other requests to their port", "404", {
        "serving/test_metrics": ["test_clients_do_not_read_metrics_and_prometheus_needs_no_key",
                                 "test_nothing_but_metrics_is_reachable_on_their_port"],
        "rollout/test_service_manifests": ["test_only_pods_of_the_namespace_reach_the_server",
                                           "test_prometheus_reaches_the_metrics_only"],
    }),
    ("no API key, a part of one, or one in another header", "401", {
        "serving/test_api_keys": ["test_requests_without_a_valid_key_never_reach_the_server",
                                  "test_a_key_is_accepted_in_its_header_only", "test_only_the_exact_key_is_found"],
    }),
    ("a key is added or removed; the Secret is deleted", "applies without a restart; everything is rejected", {
        "serving/test_api_keys": ["test_keys_are_rotated_without_a_restart",
                                  "test_a_removed_secret_rejects_everything"],
    }),
    ("a key in a log, error, object of Kubernetes or file of a run", "none has one", {
        "serving/test_api_keys": ["test_no_key_is_logged_or_kept", "test_the_key_is_not_passed_to_the_server"],
        "rollout/test_server_access": ["test_hot_load_canary_and_promotion_send_a_key",
                                       "test_a_local_server_requires_the_keys_of_its_folder"],
        "workflows/cluster/test_forward": ["test_chat_sends_a_key_to_a_cluster",
                                           "test_chat_without_a_key_of_the_cluster_has_a_fix"],
    }),
    ("more requests or tokens per minute than the limit", "429 with Retry-After, for this key only", {
        "serving/test_rate_limits": ["test_each_key_has_its_own_request_rate",
                                     "test_the_tokens_of_the_answer_are_charged",
                                     "test_a_bucket_never_exceeds_its_rate"],
    }),
    ("a body, prompt, n, max_tokens, stop list or grammar beyond its limit", "400 or 413, before tokenization", {
        "serving/test_request_limits": [BEYOND_LIMITS, "test_a_body_has_a_maximum_size"],
    }),
    ("a client's chat_template or chat_template_kwargs", "400", {"serving/test_request_limits": [BEYOND_LIMITS]}),
    ("a client hangs up, also while it waits", "the generation ends", {
        "serving/test_generation": ["test_a_hung_up_client_ends_its_generation",
                                    "test_a_client_that_hangs_up_in_the_queue_costs_no_step"],
        "serving/test_real_vllm": ["test_hanging_up_cancels_the_generation"],
    }),
    ("a prompt beyond the context, behind other requests", "400, at once", {
        "serving/test_generation": ["test_a_prompt_beyond_the_context_is_refused_before_the_queue"],
        "serving/test_real_vllm": ["test_a_prompt_beyond_the_context_is_rejected_at_once"],
    }),
    ("an adapter with patterns as target_modules, layer_replication or r of 10^9", "rejected with the reason", {
        "models/test_adapter_compat": ["test_harmful_settings_are_rejected"],
        "serving/test_real_vllm": ["test_an_invalid_adapter_never_reaches_vllm"],
    }),
    ("adapter weights with NaN or infinity, without a layer, or of another shape", "rejected with the reason", {
        "models/test_adapter_compat": ["test_weights_that_are_not_finite_are_rejected",
                                       "test_weights_that_do_not_fit_are_rejected",
                                       "test_an_adapter_tuned_on_a_directory_is_checked_by_shapes"],
    }),
    ("an adapter that is rejected, does not load, or does not answer", "the old one stays live; the next can load", {
        "serving/test_adapter_reloader": ["test_an_adapter_that_does_not_fit_the_base_is_never_loaded",
                                          "test_a_failure_leaves_the_old_adapter_live",
                                          "test_a_failure_is_not_reported_for_the_next_configuration"],
        "serving/test_real_vllm": ["test_a_failed_load_leaves_the_old_adapter_live"],
    }),
    ("a server drops or replaces the adapter silently", "found by the probabilities of tokens; rolled back", {
        "rollout/test_probability_check": ["test_a_weak_adapter_that_is_dropped_is_found_on_the_server_itself",
                                           "test_the_rollout_is_rejected_although_the_texts_are_the_same"],
        "serving/test_real_vllm": ["test_an_adapter_that_vllm_drops_is_rejected"],
    }),
    ("an adapter is withdrawn during a slow pull", "never becomes live", {
        "serving/test_adapter_reloader": ["test_an_adapter_withdrawn_during_a_slow_pull_never_becomes_live"],
    }),
    ("a client that does not read its stream, while adapters change", "delays no change; is cut after a minute", {
        "serving/test_adapter_reloader": ["test_a_stuck_request_delays_no_change_and_is_cut",
                                          "test_the_next_change_ends_an_earlier_drain"],
        "serving/test_cancellation": ["test_a_request_that_is_cut_ends_its_generation",
                                      "test_the_generator_of_a_client_that_does_not_read_is_closed"],
        "serving/test_real_vllm": ["test_a_request_of_a_replaced_adapter_is_aborted"],
    }),
    ("an adapter is withdrawn, live again, and withdrawn again", "its newer requests have a minute too", {
        "serving/test_adapter_drain": [
            "test_an_earlier_drain_does_not_cut_requests_of_an_adapter_that_was_live_again"],
    }),
    ("1,200 requests during 4 changes, with such a client", "none fails", {
        "serving/test_swaps": ["test_no_request_is_lost_while_adapters_change"],
        "serving/test_real_vllm": ["test_no_request_fails_while_adapters_are_swapped"],
    }),
    ("the folder of a failed adapter", "is deleted", {
        "serving/test_adapter_reloader": ["test_the_folder_of_a_failed_adapter_is_deleted"],
    }),
    ("a completion without a model", "answered by the first adapter", {
        "serving/test_adapter_reloader": ["test_a_request_without_a_model_is_answered_by_the_first_adapter"],
        "serving/test_real_vllm": ["test_a_request_without_a_model_is_answered_by_the_adapter"],
    }),
    ("the interpreter of the vllm script is in another directory", "is found in its first lines", {
        "serving/test_vllm_probe": ["test_the_interpreter_is_that_of_the_script",
                                    "test_the_interpreter_of_a_relocatable_environment_is_next_to_the_script"],
    }),
    ("a pod whose vLLM does not work", "fails with the reason, and never serves with transformers", {
        "serving/test_vllm_probe": ["test_a_pod_never_falls_back_to_transformers",
                                    "test_a_failed_start_is_reported_with_its_last_lines"],
        "serving/test_serve_pod": ["test_a_pod_without_a_usable_vllm_fails_with_the_reason"],
    }),
    ("vLLM exits while it starts", "the rollout fails with its last error; the old server stays live", {
        "rollout/test_rollout_cluster": ["test_a_pod_that_does_not_start_is_diagnosed_and_rolled_back"],
        "serving/test_real_vllm": ["test_a_vllm_that_cannot_start_fails_with_its_error"],
    }),
    ("another server answers than the requested one", "named in the output and the report", {
        "rollout/test_rollout_cluster": ["test_the_output_names_the_server_that_answered"],
        "report/test_report": ["test_report_of_a_successful_run"],
    }),
    ("a pod waits for its base model or adapters", "each wait is in the log", {
        "serving/test_serve_pod": ["test_an_error_is_the_last_line_of_the_log"],
    }),
    ("vLLM flags of several API servers, or that the rollout sets, in any spelling", "rejected by name", {
        "serving/test_vllm_flags": ["test_a_reserved_flag_is_rejected_in_every_spelling"],
        "serving/test_real_vllm": ["test_reserved_flags_are_those_of_vllm"],
    }),
    ("vLLM is stopped during an answer", "has 5 s for it (--shutdown-timeout)", {
        "serving/test_server_command": ["test_vllm_ends_its_responses_before_it_is_killed"],
    }),
    ("vLLM warns of the limit of open files, then fails", "the failure is reported, not the warning", {
        "serving/test_server": ["test_last_error_of_a_log"],
    }),
    ("presets with load-format mistral", "consolidated*.safetensors is downloaded", {
        "models/test_model": ["test_weights_in_the_format_of_mistral_are_downloaded_where_the_flags_need_them"],
        "serving/test_server_command": ["test_presets_of_mistral_need_consolidated_weights"],
    }),
)  # fmt: skip
FILES = (
    ("a whiteout or another name that leads out of the layer", "deletes and writes nothing outside", {
        "oci/test_image_data": ["test_invalid_whiteouts_delete_nothing", "test_no_name_writes_or_deletes_outside"],
    }),
    ("a layer or body that unpacks to too much", "rejected", {
        "oci/test_image_data": ["test_a_layer_that_unpacks_to_too_much_is_rejected"],
        "oci/test_registry_auth": ["test_bodies_are_not_unpacked", "test_a_token_response_is_limited"],
        "data/test_fetch": ["test_an_encoded_body_that_unpacks_to_too_much_is_rejected"],
    }),
    ("a URL, image, redirect or DNS name of a metadata service", "nothing is sent to it", {
        "download/test_private_hosts": ["test_metadata_services_are_rejected_even_if_private_hosts_are_allowed",
                                        "test_dns_rebinding_to_a_metadata_service_is_rejected"],
        "oci/test_registry_addresses": ["test_no_image_is_pulled_from_a_metadata_service",
                                        "test_a_redirect_to_a_metadata_service_is_rejected",
                                        "test_the_address_of_the_peer_is_checked_too"],
    }),
    ("a redirect to another host", "carries no credentials", {
        "oci/test_registry_auth": ["test_redirects_to_other_hosts_carry_no_credentials"],
        "runtime/test_hosts": ["test_redirects_to_other_hosts_carry_no_netrc_entry"],
    }),
    ("the same host in another case or with its default port", "is the same host", {
        "oci/test_registry_auth": ["test_hosts_are_compared_without_case_and_default_port"],
        "runtime/test_hosts": ["test_origins_are_compared_without_case_and_default_port"],
    }),
    ("$(NAME) in an argument, output or message", "Kubernetes and the local runner leave it as it is", {
        "workflows/compile/test_compile": ["test_kubernetes_expands_no_argument",
                                           "test_escaped_text_expands_to_itself",
                                           "test_the_local_runner_expands_as_kubernetes"],
        "runtime/test_references": ["test_kubernetes_expands_no_output_and_no_message"],
    }),
    ("a claim without a name", "rejected with its line", {
        "workflows/spec/test_spec_sources": ["test_invalid_source_is_the_only_problem_at_its_line"],
    }),
    ("a NUL or another control character", "rejected with its field", {
        "workflows/spec/test_spec_load": ["test_control_characters_are_rejected_with_their_path"],
    }),
    ("a text, or URLs, that do not fit into an argument", "travel as a file", {
        "workflows/compile/test_long_texts": ["test_a_long_text_is_a_file", "test_many_long_urls_are_downloaded",
                                              "test_urls_that_are_set_on_submission_have_any_length"],
    }),
    ("signed URLs in the files of a run", "in one file, readable by the owner only, until the run succeeds", {
        "workflows/runner/test_runner_files": ["test_only_the_owner_can_read_document_and_state"],
        "download/test_signed_urls_of_runs": ["test_a_run_resumes_with_renewed_signatures_and_only_one_file_has_them"],
        "runtime/test_query_values": ["test_no_text_about_a_url_has_a_value_of_its_query"],
    }),
    ("a run resumes with URLs whose signature was renewed", "fetches no file again; forgets the old signature", {
        "workflows/runner/test_runner_parameters": [
            "test_a_renewed_signature_replaces_the_old_one_and_repeats_nothing"],
        "download/test_signed_urls_of_runs": ["test_urls_of_a_parameter_are_renewed_and_other_urls_are_rejected"],
    }),
    ("a password in a parameter (-p)", "rejected", {
        "workflows/plan/test_field_bounds": ["test_parameters_have_no_password_and_no_reference"],
    }),
    ("labels that Kubernetes rejects", "rejected with their line", {
        "workflows/spec/test_spec_rules": ["test_labels_of_the_selector_are_those_kubernetes_allows"],
    }),
    ("terminal escapes in foreign text", "printed as text", {
        "runtime/test_terminal": ["test_no_control_character_remains",
                                  "test_logs_and_messages_of_a_run_are_escaped",
                                  "test_answers_of_a_model_are_escaped"],
    }),
    ("hex digests in upper case", "accepted", {
        "oci/test_fuzz_layers": ["test_hex_digits_in_upper_case_are_accepted"],
    }),
    ("ten times the URLs", "ten times the work", {
        "download/test_many_urls": ["test_ten_times_the_urls_are_ten_times_the_work"],
    }),
    ("damaged foreign data, 10,000 inputs for each reader", "read, or rejected with a fix", {
        "test_damaged_data_table": ["test_every_reader_is_listed"],
    }),
)  # fmt: skip
RUNNER = (
    ("killed in the exit handler", "resumes it; report and release are not lost", {
        "workflows/runner/test_runner_resume": ["test_a_runner_killed_in_the_exit_handler_resumes_it"],
        "workflows/runner/test_runner_kills": ["test_a_runner_killed_at_any_write_resumes_to_the_same_end"],
    }),
    ("a setting differs when a run resumes", "the newest value counts, or is rejected by name", {
        "workflows/runner/test_runner_parameters": [
            "test_the_newest_value_of_a_parameter_counts",
            "test_a_later_value_that_results_depend_on_is_rejected_instead_of_ignored",
            "test_other_urls_are_rejected_by_name"],
        "workflows/commands/test_resume_settings": ["test_a_later_set_comes_before_an_earlier_parameter"],
    }),
    ("300 random kills, exit handler included", "the same adapter digest, and a report", {
        "test_random_kills": ["test_killed_runs_end_like_an_undisturbed_one"],
    }),
    ("a full or failing disk", "reported at once, without retries", {
        "workflows/runner/test_runner_files": ["test_errors_of_the_disk_are_not_retried",
                                               "test_a_full_disk_is_reported_before_the_run"],
        "workflows/runner/test_runner_kills": ["test_a_disk_that_fails_during_a_run_is_reported_without_a_retry"],
    }),
    ("HOME or the working directory is read-only", "reported before anything starts", {
        "workflows/runner/test_runner_files": ["test_a_read_only_home_is_reported_before_the_run",
                                               "test_directories_that_cannot_be_written_are_reported_together"],
    }),
    ("the system clock is corrected", "processes are found again", {
        "workflows/runner/test_process_identity": [
            "test_an_orphan_is_found_after_the_system_clock_was_corrected"],
        "serving/test_server": ["test_a_server_is_found_after_the_clock_was_corrected"],
    }),
    ("a proxy answers 407 or 502", "reported with its cause; only 502 is retried", {
        "runtime/test_connection_failure": [
            "test_the_cause_is_reported_and_tried_again_where_it_can_pass"],
    }),
)  # fmt: skip
SECTIONS = {"serving": SERVING, "files, images and registries": FILES, "local runner": RUNNER}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_guarantee_has_tests(name: str) -> None:
    rows = []
    for fault, outcome, tests in SECTIONS[name]:
        lines = []
        for file, names in tests.items():
            path = find_file(file)
            text = path.read_text()
            missing = [one for one in names if not re.search(rf"^def {one}\(", text, re.MULTILINE)]
            assert not missing, f"{path} has no {', '.join(missing)}"
            lines.append(f"`{path.relative_to(TESTS)}`: {', '.join(names)}")
        rows.append(Guarantee(fault, outcome, "; ".join(lines)))
    fault_table.check_guarantees(f"Guarantees: {name}", rows)


def find_file(name: str) -> Path:
    """Return a test file, by its path below ``tests`` or ``tests/steps`` without ``.py``."""
    [path] = [path for path in (TESTS / f"{name}.py", TESTS / "steps" / f"{name}.py") if path.is_file()]
    return path
