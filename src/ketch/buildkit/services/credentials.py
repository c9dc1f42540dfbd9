"""Methods of a build's client: credentials, secrets, SSH agents."""

from __future__ import annotations

from typing import ClassVar

from ketch.buildkit.wire.credentials import auth_pb2, secrets_pb2, ssh_pb2
from ketch.rpc.method import Method, Service


class AuthService(Service, of=auth_pb2.DESCRIPTOR.services_by_name["Auth"]):
    """moby.filesync.v1.Auth."""

    Credentials: ClassVar[Method[auth_pb2.CredentialsRequest, auth_pb2.CredentialsResponse]]
    FetchToken: ClassVar[Method[auth_pb2.FetchTokenRequest, auth_pb2.FetchTokenResponse]]
    GetTokenAuthority: ClassVar[Method[auth_pb2.GetTokenAuthorityRequest, auth_pb2.GetTokenAuthorityResponse]]
    VerifyTokenAuthority: ClassVar[Method[auth_pb2.VerifyTokenAuthorityRequest, auth_pb2.VerifyTokenAuthorityResponse]]


class SecretsService(Service, of=secrets_pb2.DESCRIPTOR.services_by_name["Secrets"]):
    """moby.buildkit.secrets.v1.Secrets."""

    GetSecret: ClassVar[Method[secrets_pb2.GetSecretRequest, secrets_pb2.GetSecretResponse]]


class SSHService(Service, of=ssh_pb2.DESCRIPTOR.services_by_name["SSH"]):
    """moby.sshforward.v1.SSH."""

    CheckAgent: ClassVar[Method[ssh_pb2.CheckAgentRequest, ssh_pb2.CheckAgentResponse]]
    ForwardAgent: ClassVar[Method[ssh_pb2.BytesMessage, ssh_pb2.BytesMessage]]
