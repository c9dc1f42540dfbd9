"""Dockerfiles whose files are compared with BuildKit's: those of `tests.support.recordings.build_files`."""

from __future__ import annotations

_PLAIN = """
COPY f /
COPY f /copied
COPY f /new/dir/f
COPY f x /many/
COPY f /f/
COPY secret setuid x /modes/
COPY d /d
COPY d /new/d/
COPY d/ /
COPY . /
COPY d d/e /both/
COPY empty /empty
COPY empty /some/where/
COPY ["sp ace", "ünicode", "/odd/"]
COPY link /followed
COPY link dangling /links/
COPY dlink /dlink
COPY absolute /a
COPY outside /o
COPY through /through/
COPY d/up /up
COPY dlink/a dlink/up /dl/
COPY loop /loop
COPY missing /m
COPY d/missing /m
COPY f/x /m
COPY *.none /n/
COPY d/*.txt /t/
COPY d/* /all/
COPY d[!a]* de* /ds/
COPY d /ds\\nCOPY d*p /ds/
COPY */e /es/
COPY ?ink /q
COPY [fx] /fx/
COPY star[[]1] /s
COPY d/e/* deep/*/* /mix/
COPY deep /deep
COPY deep/1/2/3/z hard/z /hard/
COPY hard /hard
COPY . /all
COPY --chown=5:6 f /c
COPY --chown=5 d /c/d
COPY --chown=5:6 d /new/path/d
COPY --chmod=600 d /m
COPY --chmod=4751 f /m
COPY --chmod=700 f /new/path/m
COPY --chmod=6777 f /new/path/m
COPY --chmod=777 --chown=4 d /new/path/m
COPY --chmod=u=rwX,g+s,o-r deep /new/path/m
COPY --chmod=-x,+X d /m
COPY --chmod=ug=rws,o=t d /m
COPY --chmod=u+x,go=rX d /m
COPY --chmod=+w f /m
COPY --chmod=a=r,u+ws f /m
COPY --chmod=g=u,o=g secret /m
COPY --chmod=o+t,-r d /m
COPY --chown=5:6 --chmod=640 deep /m
COPY --chown=7 link d/up /l/
COPY --exclude=*.txt d /x
COPY --exclude=d/e --exclude=e/*.md d deep /x
COPY --exclude=e d /x
COPY --exclude=*tar --exclude=t.* --exclude=!t.tgz . /x
COPY --exclude=** --exclude=!**/c.txt . /x
COPY --link f /linked/f
COPY --link d /linked/
COPY --link --chown=9:8 d/ /linked/d/
ADD t.tar /
ADD t.tar /unpacked/here
ADD t.tgz t.bz2 /u/
ADD --chown=55:66 t.tar /u/
ADD --chmod=700 t.tar /u/
ADD not.tar /u/
ADD not.tar cut.tgz f /u/
ADD --unpack=false t.tar /u
ADD d /u
ADD t.* /u/
COPY t.tar /u/
WORKDIR /w/x
WORKDIR /f\\nWORKDIR rel
"""
_ON_ROOT = """
COPY f /etc/
COPY f /etc/passwd
COPY over/ /
COPY over/etc /etc
COPY over/bin/ /bin/
COPY over/bin /
COPY over/bin /bin
COPY f /usr/bin/old
COPY f /bin/new
COPY f /bin
COPY f /abs/bin/x
COPY f /escape/x
COPY f /gone
COPY f /gone/x
COPY d /file
COPY d/ /file/
COPY f /file/x
COPY f /var
COPY d /var/f
COPY f /var/
COPY d /usr/bin
COPY --chown=me f /o
COPY --chown=me:us d /o
COPY --chown=odd f /o
COPY --chown=nobody:us f /o
COPY --chown=:us f /o
COPY --chown=me f /usr/bin/sh
ADD names.tar /
ADD names.tar /usr
ADD t.tar /usr/bin
ADD root.tar /
WORKDIR /usr/bin
WORKDIR /bin/deep
WORKDIR /file
WORKDIR /gone/dir
COPY f /usr/bin/sh\\nCOPY x /usr/bin/sh
COPY over/usr /abs2\\nCOPY d /abs2
COPY d /d\\nCOPY x /d/a
COPY d /d\\nCOPY deep/ /d/e/
COPY d /d\\nCOPY --chown=3:3 d /d
COPY --link over/bin /bin
COPY --link f /usr/bin/old
COPY --link over /o\\nCOPY f /o/etc/f
"""
_STAGES = """
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one / /
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one /usr /usr
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one /bin /bin
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one /bin/sh /abs/bin/old /x/
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one /escape/old /x
FROM scratch AS one\\nADD root.tar /\\nFROM scratch\\nCOPY --from=one /gone /x
FROM scratch AS one\\nADD t.tar /\\nFROM scratch\\nCOPY --from=one /in /in
FROM scratch AS one\\nADD t.tar /\\nFROM scratch\\nCOPY --from=one /in/h* /in/f* /x/
FROM scratch AS one\\nADD t.tar /\\nFROM scratch\\nCOPY --from=one --chown=1:2 /in /in
FROM scratch AS one\\nADD t.tar /\\nFROM scratch\\nCOPY --from=one --chmod=644 /in /in
FROM scratch AS one\\nCOPY f /a\\nCOPY f /b\\nFROM scratch\\nCOPY --from=one / /
FROM scratch AS one\\nADD root.tar /\\nCOPY f /usr/bin/sh\\nFROM one\\nCOPY --from=one /usr /usr
"""

_LINKED = """
COPY --link over/bin /bin
COPY --link f /usr/bin/old
COPY --link d /file
COPY --link f /var/f
COPY --link --chown=5 over/bin/ /usr/bin/
COPY --link d /d\\nCOPY --link deep/ /d/e/
COPY --link d /d\\nCOPY deep/ /d/e/
COPY --link f /gone
COPY --link --chown=me:us d /o
COPY --link over/etc /etc
COPY --link t.tar /x\\nADD --link t.tar /var/
COPY --link hard /hard
WORKDIR /w\\nCOPY --link f x .
COPY --link f /abs/bin/new
COPY f /usr/bin/sh\\nCOPY --link x /usr/bin/sh\\nCOPY f /usr/bin/old
"""

CASES = [
    *(f"FROM scratch\n{line}\n" for line in _PLAIN.strip().splitlines()),
    *(f"FROM scratch\nADD root.tar /\n{line}\n" for line in _ON_ROOT.strip().splitlines()),
    *(f"{line}\n" for line in _STAGES.strip().splitlines()),
]
CASES = [case.replace("\\n", "\n") for case in CASES]
LINKED = [f"FROM scratch\nADD root.tar /\n{line}\n".replace("\\n", "\n") for line in _LINKED.strip().splitlines()]
