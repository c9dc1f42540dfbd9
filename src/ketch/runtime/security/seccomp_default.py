"""Docker's default seccomp profile, as facts in our own form.

A system call is allowed when it is harmless for everybody (`_ALLOWED`), when the container has the capability
that guards it (`_BY_CAPABILITY`), or when its arguments are (socket families, personalities, clone flags).
Everything else fails with EPERM.  Which calls these are follows moby's profiles/seccomp (v28).
"""

from __future__ import annotations

import os

from ketch.notation import architectures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ketch.runtime.oci_types import DockerSeccomp, DockerSyscall, OciSeccomp, OciSyscall, OciSyscallArg


_ALLOWED = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
    get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
    ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
    prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
    readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64
    send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
    setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
    process_vm_readv process_vm_writev ptrace
"""
_BY_ARCHITECTURE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}
_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
# What root of a new user namespace needs for a container.
_NESTING = """
    clone clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root
    setdomainname sethostname setns umount umount2 unshare
"""
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
_ENOSYS = 38
_AF_ALG, _AF_VSOCK = 38, 40
# personality(2): PER_LINUX, UNAME26, PER_LINUX32, PER_LINUX32|UNAME26, and asking for the present one
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: none of them may be set
_CLONE_NAMESPACES = 0x7E020000


def profile(capabilities: list[str], arch: str | None = None, *, nesting: bool = False) -> OciSeccomp:
    """The OCI seccomp object for a container with these (bounding) capabilities.

    ``arch`` is a machine as uname(2) names it; default: this one.  ``nesting``: namespaces may be made, and used.
    """
    arch = arch or os.uname().machine
    allowed = _ALLOWED.split() + _BY_ARCHITECTURE.get(arch, "").split()
    for capability, names in _BY_CAPABILITY.items():
        if capability in capabilities:
            allowed += names.split()
    if nesting:
        allowed += _NESTING.split()
    rules: list[OciSyscall] = [{"names": list(dict.fromkeys(allowed)), "action": "SCMP_ACT_ALLOW"}]
    for operator, family in (("LT", _AF_ALG), ("EQ", _AF_ALG + 1), ("GT", _AF_VSOCK)):
        rules.append(_allow_if("socket", 0, operator, family))
    rules += [_allow_if("personality", 0, "EQ", value) for value in _PERSONALITIES]
    if "CAP_SYS_ADMIN" not in capabilities and not nesting:
        rules.append(_allow_if("clone", 0, "MASKED_EQ", _CLONE_NAMESPACES, 0))
        # clone3's flags are behind a pointer, out of a filter's reach; ENOSYS makes libc fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ARCHITECTURES.get(arch, []),
        "syscalls": rules,
    }


def _allow_if(name: str, index: int, operator: str, value: int, value_two: int | None = None) -> OciSyscall:
    condition: OciSyscallArg = {"index": index, "value": value, "op": f"SCMP_CMP_{operator}"}
    if value_two is not None:
        condition["valueTwo"] = value_two
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}


_SAME = ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")


def from_docker(document: DockerSeccomp, capabilities: list[str], arch: str | None = None) -> OciSeccomp:
    """The OCI object for a profile in Docker's own format (``archMap``, rules with ``includes`` and ``excludes``).

    A document that is an OCI object already comes back the same, but for rules that do not apply.
    """
    machine = arch or os.uname().machine
    short = architectures.goarch(machine)
    kept: tuple[Literal["names", "action", "args", "errnoRet"], ...] = ("names", "action", "args", "errnoRet")
    result: Any = {key: value for key, value in document.items() if key in _SAME and value is not None}
    result["syscalls"] = rules = []
    for rule in document.get("syscalls") or ():
        if _applies(rule, short, capabilities):
            clean: dict[str, object] = {key: rule[key] for key in kept if rule.get(key)}
            if "name" in rule and "names" not in clean:
                clean["names"] = [rule["name"]]
            rules.append(clean)
    result["architectures"] = list(document.get("architectures") or ())
    for entry in document.get("archMap") or ():
        if entry.get("architecture") in ARCHITECTURES.get(machine, [])[:1]:
            result["architectures"] = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    profile: OciSeccomp = result
    return profile


def _applies(rule: DockerSyscall, arch: str, capabilities: list[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if not all(capability in capabilities for capability in includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and _kernel() < _version(includes["minKernel"]):
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]):
        return False
    return not any(capability in capabilities for capability in excludes.get("caps") or ())


def _kernel() -> tuple[int, int]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return _number(major), _number(minor)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
