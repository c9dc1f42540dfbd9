"""What is different with ``--userns auto``, and with other runtimes than the built-in one: tests of that are skipped.

A test is named as ``room/file.py::function``, with all that it is parametrized with; ``tests/unit/support`` checks that
each is there.
"""

from __future__ import annotations

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


def reason(nodeid: str, userns: str, runtime: str) -> str:
    """Why a test is skipped in a run with these options; empty: it is not."""
    name = nodeid.partition("[")[0].removeprefix("tests/integration/")
    for table in (USERNS if userns else {}, RUNTIMES.get(runtime, {})):
        for why, names in table.items():
            if name in names:
                return why
    return ""
