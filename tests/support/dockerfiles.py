"""Dockerfiles of all kinds, with which readers are compared."""

from __future__ import annotations

# What may follow FROM scratch in a file; each line is a file.
LINES = r"""
RUN echo hi
run echo hi
RuN echo hi
RUN	echo	tabs
RUN   echo   many   spaces
RUN ["echo", "hi"]
RUN ["echo", "hi",]
RUN [ "echo" , "h i" ]
RUN ["echo", "ü\u00fc\n"]
RUN ['echo']
RUN ["a"] && b
RUN [ -f x ] && y
RUN echo "a b" 'c d' \e
RUN echo $HOME ${HOME:-/root}
RUN --mount=type=cache,target=/x make
RUN --mount=type=bind,source=a,target=b --mount=type=secret,id=s --network=none true
RUN --network=host --security=insecure true
RUN --mount="type=bind,source=a b,target=c" true
RUN --mount='type=cache,target=/x' true
RUN --mount=type=cache\,target=/x true
RUN -- echo
RUN --flag -- echo
RUN --device=vendor.com/device=name true
RUN --
RUN
RUN #not a comment
RUN a # no comment either
CMD echo hi
CMD ["sh", "-c", "a b"]
CMD []
CMD [ ]
CMD
cmd  [ "x" ]
CMD "quoted text"
CMD {"a": 1}
CMD ["a"]b
ENTRYPOINT ["/x"]
ENTRYPOINT /x --flag
ENTRYPOINT []
ENTRYPOINT exec top -b
SHELL ["/bin/bash", "-c"]
SHELL /bin/bash
SHELL []
ENV A=b
ENV A b
ENV A   b  c
ENV A="b c" D='e f' G=h\ i
ENV A=b \ c=d
ENV A=
ENV A=b=c
ENV A="b\"c"
ENV A='b\'
ENV A=b\
ENV "A B"=c
ENV A="unclosed
ENV A $B
ENV A=$B C=${A}x
ENV A	b
ENV a=1 b=2 c=3 d=4
ENV
LABEL a=b
LABEL a b
LABEL "com.example.vendor"="ACME Incorporated"
LABEL version="1.0" description="text \
LABEL a.b-c_d=1 e="f"g'h'
LABEL multi='1 2' other="3
LABEL
ARG a
ARG a=b
ARG a="b c" d
ARG a b c=d
ARG a= b=
ARG
EXPOSE 80
EXPOSE 80/tcp 53/udp
EXPOSE 8000-8010   9000
EXPOSE $PORT ${PORT}/udp
EXPOSE "80"
EXPOSE
VOLUME /data
VOLUME /a /b
VOLUME ["/a", "/b c"]
VOLUME ["/a" "/b"]
VOLUME []
VOLUME
USER me
USER me:us
USER 1000:1000
USER  two words
USER
WORKDIR /app
WORKDIR app dir
WORKDIR "/quoted dir"
WORKDIR $HOME/x
WORKDIR
HEALTHCHECK NONE
HEALTHCHECK none
HEALTHCHECK CMD true
HEALTHCHECK CMD ["true", "x"]
HEALTHCHECK --interval=5m --timeout=3s CMD curl -f http://localhost/ || exit 1
HEALTHCHECK --start-period=1s --start-interval=2s --retries=3 CMD ["x"]
HEALTHCHECK   CMD    spaces   inside
HEALTHCHECK CMD
HEALTHCHECK
HEALTHCHECK --interval=1s
HEALTHCHECK WHAT ever
STOPSIGNAL SIGTERM
STOPSIGNAL 9
STOPSIGNAL $SIG
STOPSIGNAL
MAINTAINER Some One <some@one.example>
MAINTAINER
ONBUILD RUN make
ONBUILD COPY . /app
ONBUILD COPY --from=x a b
onbuild  env a=b c=d
ONBUILD HEALTHCHECK --interval=1s CMD x
ONBUILD ONBUILD RUN x
ONBUILD CMD ["a", "b"]
ONBUILD LABEL a b
ONBUILD NOPE x
ONBUILD
COPY a b
COPY a b c/
COPY . .
COPY ["a b", "c d/"]
COPY ["a", "b"
COPY --from=build /a /b
COPY --chown=1:2 --chmod=755 a b
COPY --link --parents --exclude=*.o --exclude=x a b
COPY --link=false a b
COPY --chown=$U:$G a\ b c
COPY "a b" c
COPY *.txt [a-z]? /x/
COPY a
COPY
ADD a b
ADD https://example.com/a.tar.gz /
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a /
ADD --keep-git-dir=true https://github.com/a/b.git#v1 /b
ADD --keep-git-dir --unpack=false a b
ADD ["x", "y"]
ADD git@github.com:a/b.git /b
FROM scratch
FROM scratch AS b
FROM scratch as B
from scratch As c
FROM --platform=linux/amd64 scratch AS d
FROM --platform=$BUILDPLATFORM scratch
FROM scratch AS
FROM scratch AS a b
FROM
FROM a b
FROM ${BASE:-alpine}:3
UNKNOWN x y
RUNN x
123 a
"JSON" b
COPY --from=a --from=b c d
RUN echo «ünïcödé» 日本
RUN printf 'a\tb' | sed "s/a/b/"
RUN if [ "$a" = b ]; then c; fi
RUN awk '{ print $1 }' <x >y 2>&1
RUN cat <<< word
RUN echo $((1<<2))
RUN echo a<<b
RUN echo "<<EOF"
RUN echo \<<EOF
"""

# Whole files.
FILES = [
    "FROM scratch\nRUN a \\\n  b \\\n  c\nRUN d\n",
    "FROM scratch\nRUN a \\  \n  b\\\t\nc\n",
    "FROM scratch\nRUN a \\\\\nRUN b\n",
    "FROM scratch\nRUN a \\\n# comment\n  b \\\n   # another\n c\n",
    "FROM scratch\nRUN a \\\n\n  b \\\n\n\n c\n",
    "FROM scratch\nRUN a \\\n",
    "FROM scratch\nRUN a \\",
    "FROM scratch\nRUN a \\\n# only comments\n",
    "FROM scratch\n\\\nRUN a\n",
    "FROM scratch\nRU\\\nN a\n",
    "  FROM scratch\n\tRUN a\n",
    "FROM scratch\r\nRUN a \\\r\n  b\r\nCMD c\r\n",
    "\ufeffFROM scratch\nRUN a\n",
    "\ufeff# escape=`\nFROM scratch\nRUN a `\n  b\\\n",
    "# escape=\\\nFROM scratch\nRUN a \\\n b\n",
    "#escape = ` \nFROM scratch\nENV a=b` c d=`$e\nCOPY a` b c\n",
    "# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nRUN a `\n b\n",
    "# syntax=docker/dockerfile:1\n\n# escape=`\nFROM scratch\nRUN a `\nRUN b\n",
    "# comment\n# escape=`\nFROM scratch\nRUN a `\nRUN b\n",
    "# check=skip=all;error=true\nFROM scratch\n",
    "# unknown=x\n# escape=`\nFROM scratch\nRUN a `\nRUN b\n",
    "# ESCAPE=`\nFROM scratch\nRUN a `\n b\n",
    " # escape=`\nFROM scratch\nRUN a `\n b\n",
    "# escape=`\n# escape=`\nFROM scratch\n",
    "# escape=x\nFROM scratch\n",
    "# only a comment\n",
    "",
    "\n\n\n",
    "\\\n",
    "FROM scratch\n\n\n# c\n\nRUN a\n\n",
    "FROM scratch\nRUN <<EOF\na\nb\nEOF\nRUN c\n",
    "FROM scratch\nRUN <<-EOF\n\ta\n\t\tb\n\tEOF\nRUN c\n",
    "FROM scratch\nRUN <<'EOF'\n$a\nEOF\n",
    'FROM scratch\nRUN <<"E F"\n$a\nE F\n',
    "FROM scratch\nRUN <<E\\ F\n$a\nE F\n",
    "FROM scratch\nRUN cat <<A <<B > x\na\nA\nb\nB\n",
    "FROM scratch\nRUN 3<<A python3 - 4<<-'B'\na\nA\n\tb\n\tB\n",
    "FROM scratch\nRUN <<EOF python3\nprint(1)\nEOF\n",
    "FROM scratch\nRUN --mount=type=cache,target=/c <<EOF\na\nEOF\n",
    "FROM scratch\nRUN <<EOF\na\n",
    "FROM scratch\nRUN <<EOF\na\nEOF ",
    "FROM scratch\nRUN <<EOF\r\na\r\nEOF\r\nRUN b\r\n",
    "FROM scratch\nRUN << EOF\nENV a=b\n",
    "FROM scratch\nRUN it's <<EOF\nENV a=b\n",
    "FROM scratch\nRUN echo ${x:- <<EOF}\nENV a=b\n",
    "FROM scratch\nRUN echo ${x <<EOF\nENV a=b\n",
    "FROM scratch\nRUN echo $x <<EOF\na\nEOF\n",
    "FROM scratch\nRUN echo ${x:?no} ${y#z} <<EOF\na\nEOF\n",
    'FROM scratch\nRUN ["<<EOF"]\nENV a=b\n',
    "FROM scratch\nRUN <<a<b\nENV a=b\n",
    "FROM scratch\nRUN <<$X\na\n$X\n",
    "FROM scratch\nCMD <<EOF\nENV a=b\n",
    "FROM scratch\nENV a=<<EOF\nENV c=d\n",
    "FROM scratch\nCOPY <<EOF /x\na\nEOF\n",
    "FROM scratch\nCOPY <<-a <<b c /x/\n\t1\na\n2\nb\n",
    'FROM scratch\nCOPY <<"a.txt" /x\n# not a comment \\\n  b\na.txt\nRUN x\n',
    "FROM scratch\nADD <<EOF /x\nEOF\n",
    "FROM scratch\nONBUILD RUN <<EOF\na\nEOF\n",
    "FROM scratch\nONBUILD COPY <<EOF /x\na\nEOF\n",
    "FROM scratch\nRUN a \\\n <<EOF \\\n b\nc\nEOF\n",
    "FROM scratch\nRUN <<EOF\n\\\nEOF\n",
    "FROM scratch\nRUN <<EOF\n#a\n\n  b\nEOF\n\n# c\nRUN d\n",
    "ARG V=1\nFROM alpine:$V AS a\nARG V\nRUN echo $V\nFROM a AS b\nCOPY --from=a /x /y\n",
    "FROM scratch\nENV a=b \\\n    c=d \\\n    # why\n    e='f g'\n",
    'FROM scratch\nLABEL a=b \\\n  c="d \\\n  e"\n',
    "FROM scratch\nRUN a && \\\n    b; \\\n    c\n",
    'FROM scratch\nCMD [ "a", \\\n  "b" ]\n',
    "FROM scratch\nRUN a\x0bb\x0cc\x85d\u2028e\x1cf\n",
    "FROM scratch\nRUN\u00a0a\n",
    "FROM scratch\nUSER\u2003x\n",
    "FROM scratch\nENV a=1\u00a0b=2\n",
    "FROM scratch\nRUN a\rRUN b\n",
    "FROM scratch\nRUN a\x00b\n",
    "FROM scratch\nLABEL a\n",
    "FROM scratch\nENV a=b c\n",
    "FROM scratch\nRUN [1, 2]\n",
    "FROM scratch\nCOPY [null]\n",
    'FROM scratch\nCMD ["a", {"b": []}]\n',
    "FROM scratch\nRUN " + "x" * 65000 + "\n",
    "FROM scratch\nRUN " + "x" * 65531 + "\nRUN b\n",
    "FROM scratch\nRUN " + "x" * 65532 + "\nRUN b\n",
    "FROM scratch\nRUN " + "x" * 40000 + "\\\n" + "y" * 40000 + "\n",
    """# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM python:3.12-slim AS build
WORKDIR /src
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=bind,source=requirements.txt,target=requirements.txt \\
    pip install -r requirements.txt
COPY . .
RUN <<EOF
python -m compileall .
rm -rf tests
EOF

FROM python:3.12-slim
COPY --from=build --chown=1000:1000 /src /app
USER 1000
EXPOSE 8000/tcp
HEALTHCHECK --interval=30s --timeout=3s \\
  CMD ["python", "-m", "app.health"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["--port", "8000"]
""",
    """FROM debian:trixie AS base
RUN apt-get update \\
 && apt-get install -y --no-install-recommends \\
      # the compiler
      gcc \\
      libc6-dev \\
 && rm -rf /var/lib/apt/lists/*
FROM base AS test
RUN make test
FROM scratch
COPY --from=base /lib /lib
""",
]

CORPUS = [f"FROM scratch\n{line}\n" for line in LINES.strip("\n").split("\n")] + FILES
