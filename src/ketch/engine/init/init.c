/* The first process of a container that is run with --init: it starts the container's program as its only child of its
 * own, passes signals on to it, reaps what is orphaned, and ends with the program's exit status.
 *
 *     docker-init [--] PROGRAM [ARGUMENT...]
 *
 * It is linked with nothing, since it runs among the container's files: scripts/init compiles it for each machine.
 * A program that cannot be started is exit status 127 (there is none) or 126; one that a signal ended, 128 and the
 * signal's number.  The program is the leader of a process group, which is in the foreground of the terminal, if there
 * is one: what is typed there (^C) reaches the program and not this process.
 */
typedef unsigned long word;

#if defined(__x86_64__)
enum { WRITE = 1, ACTION = 13, MASK = 14, IOCTL = 16, CLONE = 56, EXECVE = 59, EXIT = 231, WAIT = 61, KILL = 62,
       SETPGID = 109, GETPID = 39, TIMEDWAIT = 128 };

static long call(long number, word a, word b, word c, word d)
{
    long result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n hlt\n");
#elif defined(__aarch64__)
enum { WRITE = 64, ACTION = 134, MASK = 135, IOCTL = 29, CLONE = 220, EXECVE = 221, EXIT = 94, WAIT = 260, KILL = 129,
       SETPGID = 154, GETPID = 172, TIMEDWAIT = 137 };

static long call(long number, word a, word b, word c, word d)
{
    register word x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

__asm__(".globl _start\n_start: mov x29, #0\n mov x30, #0\n mov x0, sp\n bl begin\n brk #0\n");
#else
#error no system calls of this machine
#endif

enum { ENOENT = 2, EINTR = 4, ENOEXEC = 8, EACCES = 13, ENOTDIR = 20 };
enum { SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11, SIGCHLD = 17, SIGTTIN = 21,
       SIGTTOU = 22, SIGSYS = 31 };
enum { SETMASK = 2, NOHANG = 1, TIOCSPGRP = 0x5410, PATH_MAX = 4096, MASK_SIZE = 8 };

#define BIT(number) (1UL << ((number) - 1))
/* What the kernel sends for a fault of this program itself must not be held back. */
#define FAULTS \
    (BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGABRT) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGSEGV) | BIT(SIGSYS))

struct action {
    word handler, flags, restorer, mask; /* as the kernel has it; 0 is the default, 1 ignores the signal */
};

static word length(const char *text)
{
    word n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(const char *text)
{
    call(WRITE, 2, (word)text, length(text), 0);
}

static void set_action(int number, word handler, struct action *before)
{
    struct action action = {handler, 0, 0, 0};
    call(ACTION, number, (word)&action, (word)before, MASK_SIZE);
}

/* Execute a file; one that is neither a program nor names its interpreter is a script of /bin/sh, as for execvp(3). */
static long execute(const char *file, char **argv, char **envp)
{
    long error = call(EXECVE, (word)file, (word)argv, (word)envp, 0);
    if (error == -ENOEXEC) {
        word n = 0;
        while (argv[n])
            n++;
        const char *script[n + 2];
        script[0] = "/bin/sh";
        script[1] = file;
        for (word i = 1; i <= n; i++)
            script[i + 1] = argv[i];
        error = call(EXECVE, (word)script[0], (word)script, (word)envp, 0);
    }
    return error;
}

/* The value of PATH, or what a C library takes without one. */
static const char *search_path(char **envp)
{
    for (; *envp; envp++) {
        const char *e = *envp;
        if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
            return e + 5;
    }
    return "/bin:/usr/bin";
}

/* Execute argv[0], looked for in PATH if its name has no slash; returns only an error's number, negative. */
static long search_and_execute(char **argv, char **envp)
{
    const char *name = argv[0];
    word size = length(name);
    for (word i = 0; i < size; i++)
        if (name[i] == '/')
            return execute(name, argv, envp);
    if (!size)
        return -ENOENT;
    long error = -ENOENT;
    const char *path = search_path(envp);
    for (;;) {
        char file[PATH_MAX];
        word n = 0;
        for (; *path && *path != ':'; path++)
            if (n < sizeof file)
                file[n++] = *path;
        if (n + size + 2 <= sizeof file) {
            if (n) /* an empty element is the working directory */
                file[n++] = '/';
            for (word i = 0; i <= size; i++)
                file[n + i] = name[i];
            long result = execute(file, argv, envp);
            if (result != -ENOENT && result != -ENOTDIR) {
                error = result;
                if (result != -EACCES)
                    return error;
            }
        }
        if (!*path++)
            return error;
    }
}

static int cannot_execute(const char *name, long error)
{
    say("docker-init: exec ");
    say(name);
    say(error == -ENOENT    ? ": no such file or directory\n"
        : error == -EACCES  ? ": permission denied\n"
        : error == -ENOEXEC ? ": exec format error\n"
                            : ": it cannot be executed\n");
    return error == -ENOENT ? 127 : 126;
}

/* Reap what has ended; the exit status to end with, or -1 while the program runs. */
static int reap(long program, int options)
{
    int status;
    long pid;
    while ((pid = call(WAIT, -1UL, (word)&status, options, 0)) > 0 || pid == -EINTR)
        if (pid == program)
            return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
    return -1;
}

__attribute__((noreturn)) static void leave(int code)
{
    for (;;)
        call(EXIT, code, 0, 0, 0);
}

__attribute__((noreturn, used)) void begin(word *stack)
{
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    argv += stack[0] > 0;
    if (*argv && argv[0][0] == '-' && argv[0][1] == '-' && !argv[0][2])
        argv++;
    if (!*argv) {
        say("usage: docker-init [--] PROGRAM [ARGUMENT...]\n");
        leave(1);
    }
    word held = ~FAULTS, mask;
    struct action ttin, ttou;
    call(MASK, SETMASK, (word)&held, (word)&mask, MASK_SIZE);
    set_action(SIGCHLD, 0, 0);
    set_action(SIGTTIN, 1, &ttin); /* a process in the background may set the foreground group, and write */
    set_action(SIGTTOU, 1, &ttou);
    long program = call(CLONE, SIGCHLD, 0, 0, 0);
    if (program < 0) {
        say("docker-init: fork: too many processes, or no memory\n");
        leave(1);
    }
    if (!program) {
        int group = call(GETPID, 0, 0, 0, 0);
        call(SETPGID, 0, 0, 0, 0);
        call(IOCTL, 0, TIOCSPGRP, (word)&group, 0); /* fails without a terminal */
        set_action(SIGTTIN, ttin.handler, 0);
        set_action(SIGTTOU, ttou.handler, 0);
        call(MASK, SETMASK, (word)&mask, 0, MASK_SIZE);
        leave(cannot_execute(argv[0], search_and_execute(argv, envp)));
    }
    for (;;) {
        long number = call(TIMEDWAIT, (word)&held, 0, 0, MASK_SIZE);
        if (number > 0 && number != SIGCHLD)
            call(KILL, program, number, 0, 0);
        if (number == SIGCHLD || (number < 0 && number != -EINTR)) { /* or a seccomp filter forbids to wait so */
            int code = reap(program, number == SIGCHLD ? NOHANG : 0);
            if (code >= 0)
                leave(code);
        }
    }
}
