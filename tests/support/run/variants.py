"""What is different with ``--userns auto``, ``--rootless``, and other runtimes than the built-in one.

Tests of that are skipped.  One is named as ``room/file.py::function``, with all that it is parametrized with;
``tests/unit/support`` checks that each is there.
"""

from __future__ import annotations

import re

from ketch.runtime.cgroups import common, files

USERNS = {
    "host namespaces and --privileged are refused in user namespaces": (
        "api/test_contract.py::test_command_line",
        "api/test_failures.py::test_status_and_sentence_are_dockers",
        "api/test_inspect_side_by_side.py::test_the_same_keys_and_types",
        "api/test_refused_options.py::test_kept_or_warned_of",
        "api/test_values.py::test_values_of_rows",
        "containers/test_events.py::test_the_stream_is_dockers",
        "containers/test_surroundings.py::test_hosts_and_resolvers_in_the_hosts_network",
        "files/test_mount_requests.py::test_capabilities_and_options",
        "files/test_mount_requests.py::test_refused_at_the_start",
        "files/test_shared_memory.py::test_a_shareable_namespace_is_joined",
        "files/test_shared_memory.py::test_read_only_covers_the_networks_files",
        "files/test_shared_memory.py::test_the_hosts_shared_memory",
        "files/test_volumes_more.py::test_mounts_inside_a_shared_bind_reach_the_host_and_come_from_there",
        "network/test_network.py::test_network_of_the_host",
    ),
    "directories of the machine's root are nobody's in user namespaces": (
        "containers/test_pending.py::test_mounts",
        "containers/test_stats.py::test_a_reading",
        "containers/test_stats.py::test_every_column",
        "containers/test_stats.py::test_one_stream_for_many",
        "files/test_deep_trees.py::test_a_directory_to_mount_that_is_made",
        "files/test_deep_trees.py::test_directories_that_are_made_in_a_container",
        "files/test_mount_requests.py::test_accepted",
        "files/test_shared_memory.py::test_read_only_leaves_the_users_own_mounts",
        "files/test_volumes.py::test_a_bound_dev_is_the_hosts",
        "files/test_volumes.py::test_a_mount_on_dev_is_named",
        "files/test_volumes.py::test_bind",
        "files/test_volumes.py::test_bind_source_is_made_or_refused",
        "files/test_volumes.py::test_bind_sources_are_made_by_each_start",
        "files/test_volumes.py::test_read_only_bind",
        "files/test_volumes_more.py::test_a_mount_on_etc_is_below_the_files_of_the_engine",
        "files/test_volumes_more.py::test_bind_of_what_is_mounted_below",
        "files/test_volumes_more.py::test_mounts_are_ordered_by_their_depth",
        "files/test_volumes_more.py::test_without_it_files_belong_to_the_containers_user",
    ),
    "nobody makes devices in user namespaces": (
        "containers/test_surroundings.py::test_tun_is_among_the_devices_of_everybody",
        "containers/test_users.py::test_devices_in_place_of_the_files_are_not_opened",
        "files/test_diff_export_commit.py::test_export",
        "files/test_mount_requests.py::test_devices_of_a_directory",
    ),
    "ids are shown as the machine's, and there are fewer": (
        "containers/test_surroundings.py::test_any_user_may_listen_on_low_ports_and_ping",
        "containers/test_surroundings.py::test_options_of_a_tmpfs",
    ),
}
RUNTIMES = {
    "runc": {
        "it reads the container's /etc/passwd and /etc/group itself": (
            "containers/test_users.py::test_added_groups",
            "containers/test_users.py::test_directories_in_place_of_the_files_name_nobody",
            "containers/test_users.py::test_the_kernels_messages_are_not_read",
            "containers/test_users.py::test_users_of_containers_and_execs",
        ),
        "runc 1.1 gives a tmpfs the mode of what it covers, or 755": (
            "containers/test_surroundings.py::test_mode_of_a_tmpfs",
        ),
        "its errors have other words": ("files/test_mount_requests.py::test_refused_at_the_start",)
        + ("files/test_volumes.py::test_a_mount_on_dev_is_named",),
    },
    "crun": {
        "its errors have other words, by which docker decides what it exits with": (
            "attach/test_frames.py::test_what_an_exec_answers_without_running",
            "containers/test_run.py::test_exit_codes",
            "files/test_mount_requests.py::test_refused_at_the_start",
            "files/test_volumes.py::test_a_mount_on_dev_is_named",
        ),
        "it does not wait until what it freezes is frozen": (
            "build/test_build_files.py::test_builds_leave_the_files_that_dockerds_leave",
            "build/test_recorded_builds.py::test_ketch_build_leaves_the_same",
            "build_faults/test_clients_gone.py::test_while_nobody_reads_results",
            "build_faults/test_clients_gone.py::test_while_results_are_written",
            "build_faults/test_swapped_files.py::test_of_a_context",
            "cli/test_build.py::test_contexts_from_elsewhere",
            "confinement/test_seccomp_notify.py::test_a_supervisor_answers_for_the_kernel",
            "confinement/test_seccomp_notify.py::test_the_execution_itself_may_be_asked_about",
            "confinement/test_seccomp_notify.py::test_without_a_supervisor_nothing_runs",
            "containers/test_busy_kernel.py::test_a_pause_that_waits",
        ),
        "crun 1.8 has other modes and options of a tmpfs": (
            "containers/test_surroundings.py::test_mode_of_a_tmpfs",
            "containers/test_surroundings.py::test_options_of_a_tmpfs",
        ),
        "crun 1.8 cannot take a limit of processes away": ("containers/test_update.py::test_limits_change_at_once",),
        "crun 1.8 takes `bind` for `rbind`, and fails with binds that are shared": (
            "files/test_volumes_more.py::test_bind_of_what_is_mounted_below",
            "files/test_volumes_more.py::test_mounts_inside_a_shared_bind_reach_the_host_and_come_from_there",
            "files/test_volumes_more.py::test_propagation_needs_a_mount_that_has_it",
        ),
    },
}


ROOTLESS = {
    "what the test makes as root is a stranger's for a user": (
        "build_faults/test_clients_gone.py::test_while_nobody_reads_results",
        "build_faults/test_clients_gone.py::test_while_results_are_written",
        "build_faults/test_swapped_files.py::test_of_a_context",
        "cli/test_build.py::test_contexts_from_elsewhere",
        "cli/test_ready.py::test_no_polling",
        "confinement/test_seccomp_notify.py::test_a_supervisor_answers_for_the_kernel",
        "confinement/test_seccomp_notify.py::test_the_execution_itself_may_be_asked_about",
        "confinement/test_seccomp_notify.py::test_without_a_supervisor_nothing_runs",
        "containers/test_busy_kernel.py::test_a_pause_that_waits",
        "containers/test_busy_kernel.py::test_killed_while_it_is_frozen",
        "files/test_cp.py::test_out_names",
        "files/test_cp.py::test_out_over_a_file_and_into_a_directory",
        "files/test_deep_trees.py::test_a_volume_that_cannot_be_removed",
        "files/test_deep_trees.py::test_cp_of_our_client_backup_and_restore",
        "files/test_deep_trees.py::test_remove_a_volume",
        "files/test_secrets.py::test_a_file_for_every_user_by_default",
        "files/test_secrets.py::test_owners_modes_and_places",
        "files/test_secrets.py::test_secrets_are_read_at_each_start",
        "files/test_secrets.py::test_the_mount_point_stays_as_an_empty_directory",
        "files/test_shared_memory.py::test_read_only_leaves_the_users_own_mounts",
        "files/test_volumes.py::test_a_bound_dev_is_the_hosts",
        "files/test_volumes_more.py::test_without_it_files_belong_to_the_containers_user",
        "images/test_pull_faults.py::test_a_damaged_part_is_found_out",
        "images/test_pull_faults.py::test_a_damaged_part_that_cannot_be_had_again",
        "logs/test_log_forwarding.py::test_fluentd_gets_what_dockerd_sends",
    ),
    "mounts of a user's engine are seen by nobody else, nor is it shared what others mount": (
        "files/test_archive_api.py::test_nothing_appears_on_the_host",
        "files/test_volumes_more.py::test_a_volume_in_memory_lives_while_it_is_used",
        "files/test_volumes_more.py::test_bind_of_what_is_mounted_below",
        "files/test_volumes_more.py::test_mounts_inside_a_shared_bind_reach_the_host_and_come_from_there",
        "files/test_volumes_more.py::test_propagation_needs_a_mount_that_has_it",
    ),
    "users make no devices": (
        "containers/test_surroundings.py::test_tun_is_among_the_devices_of_everybody",
        "containers/test_users.py::test_devices_in_place_of_the_files_are_not_opened",
        "files/test_archive_api.py::test_all_kinds_of_files_go_both_ways",
        "files/test_copy_up.py::test_a_new_volume_has_what_the_images_files_have",
        "files/test_diff_export_commit.py::test_export",
    ),
    "users bind a directory only with what is mounted below": (
        "cli/test_recreate.py::test_compose_again",
        "cli/test_recreate.py::test_run_again",
    ),
    "cgroups are the user's, on the unified hierarchy, as no version 1 has them": (
        "api/test_limits_of_cgroups.py::test_limits_of_v1",
        "api/test_limits_of_cgroups.py::test_real_time",
        "api/test_limits_of_cgroups.py::test_an_update_drops_what_is_not_there",
        "api/test_versions.py::test_cgroups_of_the_host",
    ),
    "bridges of a user's engine are in a network namespace of their own": (
        "buildkit/test_gateway_containers.py::test_networks",
        "daemon/test_daemon.py::test_two_daemons_side_by_side",
        "network/test_networks.py::test_options_of_a_bridge",
    ),
    "only root's engine maps owners": (
        "files/test_volumes_more.py::test_a_file_system_that_cannot_map_owners_says_so",
        "files/test_volumes_more.py::test_a_full_mapping",
        "files/test_volumes_more.py::test_files_belong_to_the_directorys_owner",
        "files/test_volumes_more.py::test_files_belong_to_the_owner_whoever_runs",
        "runtimes/test_containers.py::test_what_is_read_only_is_so_in_the_kernel",
        "runtimes/test_init.py::test_user_namespace",
    ),
    "ids are shown as the machine's, and there are fewer": (
        "containers/test_surroundings.py::test_any_user_may_listen_on_low_ports_and_ping",
        "containers/test_surroundings.py::test_options_of_a_tmpfs",
    ),
    "a container's namespace that is the machine's is not joined through it": (
        "files/test_shared_memory.py::test_a_shareable_namespace_is_joined",
    ),
    "info has `rootless`, and no profiles of root's": (
        "containers/test_security_options.py::test_info_says_what_containers_get",
    ),
    "root of a user namespace has each of its capabilities": ("runtimes/test_containers.py::test_capabilities",),
}
LIMITS = {
    "users have no limits here: the controllers are not on the unified hierarchy": (
        "api/test_bad_input.py::test_command_line",
        "api/test_contract.py::test_command_line",
        "api/test_failures.py::test_status_and_sentence_are_dockers",
        "api/test_go_json.py::test_create",
        "api/test_go_json.py::test_names_in_any_case_at_any_depth",
        "api/test_inspect_side_by_side.py::test_the_same_keys_and_types",
        "api/test_values.py::test_no_number_is_larger_than_clients_can_read",
        "api/test_values.py::test_values_of_what_was_created",
        "api/test_versions.py::test_the_limit_of_processes_in_an_update",
        "cli/test_flags.py::test_the_same_is_asked_for",
        "cli/test_flags.py::test_the_same_is_refused",
        "cli/test_recreate.py::test_little_is_said",
        "clients/test_docker_py.py::test_ports_and_mounts",
        "clients/test_docker_py_api.py::test_create_refuses",
        "clients/test_docker_py_api.py::test_host_config",
        "clients/test_docker_py_objects.py::test_updates",
        "containers/test_lifecycle.py::test_inspect",
        "containers/test_lifecycle.py::test_stats",
        "containers/test_pending.py::test_one_change_follows_another_and_can_undo_it",
        "containers/test_resources.py::test_cgroup_is_under_the_daemons_parent_and_goes",
        "containers/test_resources.py::test_limits_are_in_the_kernel",
        "containers/test_resources.py::test_out_of_memory",
        "containers/test_resources.py::test_out_of_memory_is_told_at_once",
        "containers/test_resources.py::test_too_many_processes",
        "containers/test_states.py::test_states",
        "containers/test_stats.py::test_a_reading",
        "containers/test_stats.py::test_containers_of_the_stream",
        "containers/test_stats.py::test_every_column",
        "containers/test_stats.py::test_one_stream_for_many",
        "containers/test_update.py::test_bad_changes_are_refused",
        "containers/test_update.py::test_limits_change_at_once",
        "containers/test_update.py::test_stopped_container",
        "runtimes/test_containers.py::test_memory_that_runs_out",
        "runtimes/test_containers.py::test_pause_update_stats",
    ),
}
# Files whose tests start daemons of their own, which are a user's with --rootless; others make what is root's alone:
# disks, mounts, damage to files of the data root.
OWN_DAEMONS = ("crash/test_survival.py",)
_OTHER_RUNTIME = re.compile(r"runtimes/.*\[(.+-)?(runc|crun)\b")
OF_VERSION_1 = "runc and crun ask for cgroups of version 1 where there are any, which users may not make"


def may_be_a_users(nodeid: str) -> bool:
    """Whether the daemon that a test starts itself can be a user's."""
    return nodeid.partition("::")[0].removeprefix("tests/integration/") in OWN_DAEMONS


def limited() -> bool:
    """Whether a user's containers can have limits of memory here."""
    unified = common.layout().unified
    return bool(unified) and "memory" in files.read(unified, "cgroup.controllers").split()


def reason(nodeid: str, userns: str = "", runtime: str = "", *, rootless: bool = False) -> str:
    """Why a test is skipped in a run with these options; empty: it is not."""
    name = nodeid.partition("[")[0].removeprefix("tests/integration/")
    if rootless and common.machine_version() == 1 and (runtime or _OTHER_RUNTIME.search(nodeid)):
        return OF_VERSION_1
    users = {**ROOTLESS, **({} if limited() else LIMITS)} if rootless else {}
    for table in (USERNS if userns else {}, RUNTIMES.get(runtime, {}), users):
        for why, names in table.items():
            if name in names:
                return why
    return ""
