"""The rules of ``--check``, with BuildKit's names, and the options by which a file chooses among them."""

from __future__ import annotations

import msgspec

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.notation import booleans

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


class Rule(msgspec.Struct, frozen=True):
    """One rule; an experimental one is checked only where it is asked for."""

    name: str
    description: str
    page: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """The page that explains it."""
        return f"{_PAGES}{self.page}/" if self.page else ""


CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "consistent-instruction-casing",
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore", "copy-ignored-file", True
)
DUPLICATE_STAGE_NAME = Rule("DuplicateStageName", "Stage names should be unique", "duplicate-stage-name")
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
    "expose-invalid-format",
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", "expose-proto-casing"
)
FROM_AS_CASING = Rule("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", "from-as-casing")
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "from-platform-flag-const-disallowed",
)
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform", "Base image platform does not match expected target platform", ""
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "invalid-default-arg-in-from",
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
    "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "invalid-definition-description",
    True,
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "json-args-recommended",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    "legacy-key-value-format",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "maintainer-deprecated",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "multiple-instructions-disallowed",
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation", "Empty continuation lines will become errors in a future release", "no-empty-continuation"
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "redundant-target-platform",
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName", "Reserved words should not be used as stage names", "reserved-stage-name"
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "secrets-used-in-arg-or-env",
)
STAGE_NAME_CASING = Rule("StageNameCasing", "Stage names should be lowercase", "stage-name-casing")
UNDEFINED_ARG_IN_FROM = Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", "undefined-arg-in-from")
UNDEFINED_VAR = Rule("UndefinedVar", "Variables should be defined before their use", "undefined-var")
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
    "image changes",
    "workdir-relative-path",
)

ALL = {rule.name: rule for rule in list(globals().values()) if isinstance(rule, Rule)}


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``# check=``: rules left out, and experimental ones asked for.

    ``all`` stands for all of them; ``error``: a warning makes the build fail.
    """

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        """Whether a rule is checked."""
        if rule.experimental and not self.experimental & {rule.name, "all"}:
            return False
        asked = rule.experimental and rule.name in self.experimental
        return rule.name not in self.skip and ("all" not in self.skip or asked)


def read_options(text: str) -> CheckOptions:
    """``skip=RULE,…;error=true;experimental=RULE,…`` (DockerfileError)."""
    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error = False
    for part in text.strip().split(";") if text.strip() else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise _wrong(part)
        if name.strip() == "skip":
            skip = _names(value)
        elif name.strip() == "experimental":
            experimental = _names(value)
        elif name.strip() == "error":
            found = booleans.parse(value.strip())
            if found is None:
                why = f"strconv.ParseBool: parsing {quoted(value.strip())}: invalid syntax"
                raise _wrong(part, f"failed to parse check option {quoted(part)}: {why}")
            error = found
        else:
            raise _wrong(name.strip())
    return CheckOptions(skip=skip, experimental=experimental, error=error)


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(","))


def _wrong(part: str, why: str = "") -> DockerfileError:
    why = why or f"invalid check option {quoted(part)}"
    return DockerfileError(
        f"failed to parse check options: {why}", word=part.strip(), hint="the options are skip, error and experimental"
    )
