#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    printf("hail %s, built by %s, as %d:%d\n", argc > 1 ? argv[1] : "nobody", BUILDER, getuid(), getgid());
    return access("/bin/sh", F_OK) ? 0 : 1;
}
