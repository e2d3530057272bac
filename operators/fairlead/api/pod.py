"""The fields of PodSpec and Container that KServe inlines: names known, so that a typo is an error; contents passed on as given."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiType, Open, OpenList

ContainerName = Annotated[str, Field(max_length=63)]


class ContainerFields(ApiType):
    """`core/v1 Container`. Its fields are inlined into `model` and the framework fields, where they override the runtime's container."""

    name: ContainerName | None = None
    image: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: OpenList | None = None
    env_from: OpenList | None = None
    image_pull_policy: str | None = None
    lifecycle: Open | None = None
    liveness_probe: Open | None = None
    ports: OpenList | None = None
    readiness_probe: Open | None = None
    resize_policy: OpenList | None = None
    resources: Open | None = None
    restart_policy: str | None = None
    restart_policy_rules: OpenList | None = None
    security_context: Open | None = None
    startup_probe: Open | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    tty: bool | None = None
    volume_devices: OpenList | None = None
    volume_mounts: OpenList | None = None
    working_dir: str | None = None

    def container_fields(self) -> Open:
        """The Container fields as given, without those that a subclass adds."""
        return self.to_dict(only=ContainerFields)


class Container(ContainerFields):
    """A container of a pod."""


Containers = Annotated[list[Container], Field(max_length=32)]


class PodFields(ApiType):
    """`core/v1 PodSpec`, inlined into every component."""

    containers: Containers | None = None
    init_containers: OpenList | None = None
    active_deadline_seconds: int | None = None
    affinity: Open | None = None
    automount_service_account_token: bool | None = None
    dns_config: Open | None = None
    dns_policy: str | None = None
    enable_service_links: bool | None = None
    ephemeral_containers: OpenList | None = None
    host_aliases: OpenList | None = None
    host_ipc: bool | None = Field(None, alias="hostIPC")
    host_network: bool | None = None
    host_pid: bool | None = Field(None, alias="hostPID")
    host_users: bool | None = None
    hostname: str | None = None
    hostname_override: str | None = None
    image_pull_secrets: OpenList | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    os: Open | None = None
    overhead: Open | None = None
    preemption_policy: str | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    readiness_gates: OpenList | None = None
    resource_claims: OpenList | None = None
    resources: Open | None = None
    restart_policy: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    scheduling_gates: OpenList | None = None
    scheduling_group: Open | None = None
    security_context: Open | None = None
    service_account: str | None = None
    service_account_name: str | None = None
    set_hostname_as_fqdn: bool | None = Field(None, alias="setHostnameAsFQDN")
    share_process_namespace: bool | None = None
    subdomain: str | None = None
    termination_grace_period_seconds: int | None = None
    tolerations: OpenList | None = None
    topology_spread_constraints: OpenList | None = None
    volumes: OpenList | None = None

    def pod_fields(self) -> Open:
        """The PodSpec fields as given, without those that a subclass adds."""
        return self.to_dict(only=PodFields)
