"""Callback plugin of Ansible: appends the result of each task, as JSON, to the file that $KETCH_RESULTS names."""

# Ansible loads it by its path, in an environment that has nothing of ours.
import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: stdout
short_description: results as lines of JSON
description: One line a task.
"""


class CallbackModule(CallbackBase):
    """Writes as tasks end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def _write(self, result, failed=False):
        task = getattr(result, "task", None) or result._task
        found = result.result if hasattr(result, "result") else result._result
        with open(os.environ["KETCH_RESULTS"], "a", encoding="utf-8") as f:
            json.dump({"name": task.get_name(), "failed": failed, **found}, f, default=str)
            f.write("\n")

    def v2_runner_on_ok(self, result):
        self._write(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write(result, failed=True)

    def v2_runner_on_unreachable(self, result):
        self._write(result, failed=True)
