"""A client of the Debug Adapter Protocol: an editor that debugs a program over its standard streams."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time

from tests.support.waiting import patient


class DebugAdapter:
    """One program; a context manager that ends it."""

    def __init__(self, command, environment):
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._sent, self._data = 0, b""
        self.waiting = []  # messages that nobody has looked for yet
        self.output = ""  # of the program that is debugged
        self.terminals = []  # commands that are to run in a terminal

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()

    @property
    def pid(self):
        return self._process.pid

    def request(self, command, **arguments):
        """Ask for something; the body of the answer."""
        number = self.begin(command, **arguments)
        answer = self.expect(lambda one: one["type"] == "response" and one["request_seq"] == number, command)
        assert answer["success"], answer
        return answer.get("body") or {}

    def begin(self, command, **arguments):
        """Ask for something, and do not wait for the answer; the number of the request."""
        self._sent += 1
        self._write({"seq": self._sent, "type": "request", "command": command, "arguments": arguments})
        return self._sent

    def event(self, name):
        """Wait for an event; its body."""
        return self.expect(lambda one: one["type"] == "event" and one["event"] == name, name).get("body") or {}

    def expect(self, wanted, what):
        """Wait for a message."""
        deadline = time.monotonic() + patient(30)
        while True:
            for number, one in enumerate(self.waiting):
                if wanted(one):
                    return self.waiting.pop(number)
            left = deadline - time.monotonic()
            assert left > 0, f"no {what}: {self.waiting} {self.output}"
            self._read(left, what)

    def wait(self):
        """The program's exit code, when all that it has written is here."""
        while data := os.read(self._process.stdout.fileno(), 65536):
            self._came(data)
        return self._process.wait(patient(30))

    def _write(self, message):
        data = json.dumps(message).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))

    def _read(self, seconds, what):
        out = self._process.stdout.fileno()
        if not select.select([out], [], [], seconds)[0]:
            return
        data = os.read(out, 65536)
        assert data, f"no {what}: the adapter has ended: {self._process.stderr.read()} {self.waiting} {self.output}"
        self._came(data)

    def _came(self, data):
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            size = int(head.rpartition(b":")[2])
            if len(rest) < size:
                return
            self._data = rest[size:]
            self._take(json.loads(rest[:size]))

    def _take(self, message):
        if message["type"] == "event" and message["event"] == "output":
            self.output += message["body"]["output"]
        elif message["type"] == "request":
            assert message["command"] == "runInTerminal", message
            self.terminals.append(message["arguments"]["args"])
            self._sent += 1
            head = {"seq": self._sent, "type": "response", "request_seq": message["seq"], "success": True}
            self._write({**head, "command": message["command"], "body": {}})
        else:
            self.waiting.append(message)
