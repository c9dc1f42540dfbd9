"""Conversions of recorded Dockerfiles, with the options that their command lines set and the images that were there."""

from __future__ import annotations

import argparse
import asyncio
import shlex

from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import ConvertOptions, ImageContext, LocalContext, ResolvedImage
from ketch.build.llb import ops_pb2 as pb
from ketch.oci import platform as platforms
from ketch.oci.config import History, ImageConfig, RootFS, RunConfig
from tests.support.recordings import conversions

AMD64 = platforms.parse("linux/amd64")


class Images:
    """The images that the daemon had."""

    def __init__(self):
        self.asked = []

    async def image(self, name, platform):
        self.asked.append((name, platforms.text(platform)))
        short = name.removeprefix("docker.io/library/")
        assert short in ("b:1", "b:2", *conversions.TRIGGERS), name
        env = [conversions.PATH, "A=b"] if short == "on:1" else [conversions.PATH]
        steps = [History(created_by="", comment="Imported from -")]
        if short == "on:1":
            steps.append(History(created_by="ENV A=b", empty_layer=True))
        image = ImageConfig(
            architecture="amd64",
            os="linux",
            config=RunConfig(env=env, cmd=["/bin/sh"], on_build=conversions.TRIGGERS.get(short)),
            rootfs=RootFS(diff_ids=["sha256:" + "9" * 64]),
            history=steps,
        )
        return ResolvedImage(reference=name, config=image)


def given(words):
    """A command line's options, as they are written."""
    parser = argparse.ArgumentParser()
    for name in ("build-arg", "build-context", "label", "no-cache-filter", "add-host", "ulimit", "secret", "allow"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("platform", "target", "network", "shm-size", "cgroup-parent"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--no-cache", action="store_true")
    return parser.parse_args(shlex.split(words))


def options_of(row, **more):
    """The options that a row's command line sets."""
    asked = given(row["args"])
    args = dict(item.split("=", 1) for item in asked.build_arg if "=" in item)
    contexts = {}
    for name, value in (item.split("=", 1) for item in asked.build_context):
        image = value.startswith("docker-image://")
        contexts[name] = ImageContext(reference=value[15:]) if image else LocalContext(name=name)
    fields = {
        "args": args,
        "contexts": contexts,
        "labels": dict(item.split("=", 1) for item in asked.label),
        "target": asked.target,
        "platform": platforms.parse(asked.platform) if asked.platform else None,
        "build_platform": AMD64,
        "network": {"host": pb.HOST, "none": pb.NONE}.get(asked.network, pb.UNSET),
        "hosts": [tuple(item.replace("=", ":", 1).split(":", 1)) for item in asked.add_host],
        "ulimits": [limit(item) for item in asked.ulimit],
        "shm_size": 64 << 20 if asked.shm_size else 0,
        "cgroup_parent": asked.cgroup_parent,
        "hostname": args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
        "cache_namespace": args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        "no_cache": [] if asked.no_cache else asked.no_cache_filter or None,
    }
    if row["name"].startswith("ignore"):
        fields["context"] = LocalContext(name="context", ignore=conversions.IGNORED)
    return ConvertOptions(**{**fields, **more})


def limit(text):
    name, numbers = text.split("=")
    soft, _, hard = numbers.partition(":")
    return name, int(soft), int(hard or soft)


def converted(row, **more):
    return asyncio.run(convert(row["dockerfile"], options_of(row, **more), Images()))
