"""A space in a temporary folder, with a clock that tests move: a platform's register and members' nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.home import Home, NodeConfig, PlatformConfig
from gateway.identity.invitation import Invitation
from gateway.identity.node import NodeKeys
from gateway.identity.platform import PlatformKeys
from parties.platform.enrolment import Enrolment
from parties.platform.registry import Registry

START = 1_800_000_000.0


@dataclass
class Clock:
    """Seconds that pass only when a test says so."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Space:
    """A register and the nodes enrolled in it."""

    path: Path
    name: str = "yu"
    certificates_valid: str = "90d"
    clock: Clock = field(default_factory=Clock)
    nodes: dict[str, NodeKeys] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = PlatformConfig(
            space=self.name,
            address="platform.example:7443",
            enrol_address="127.0.0.1:7444",
            certificates_valid=self.certificates_valid,
        )
        home, box = Home.create(self.path / "platform", config, environment={})
        self.keys = PlatformKeys(home.database, box, self.name, clock=self.clock)
        self.keys.create()
        self.registry = Registry(home.database, self.keys, config, clock=self.clock)
        self.enrolment = Enrolment(self.registry)
        home.finish()

    def invite(self, member: str, *, role: str = "bank", city: str = "重庆", valid: int = 3600) -> str:
        """Return the text of an invitation."""
        return self.enrolment.invite(member=member, role=role, city=city, valid=valid)

    def node(self, folder: str) -> NodeKeys:
        """Return the keys of a new node that has not enrolled."""
        home, box = Home.create(self.path / folder, NodeConfig(), environment={})
        keys = NodeKeys(home.database, box, clock=self.clock)
        keys.create()
        home.finish()
        return keys

    def join(self, member: str, text: str | None = None, folder: str = "") -> NodeKeys:
        """Return the keys of a new node, enrolled over the encoded messages."""
        node = self.node(folder or member)
        invitation = Invitation.parse(text or self.invite(member))
        request = EnrolmentRequest.from_bytes(node.enrolment_request(invitation).to_bytes())
        node.enrolled(invitation, EnrolmentReply.from_bytes(self.enrolment.enrol(request).to_bytes()))
        self.nodes[member] = node
        return node

    def spread(self) -> None:
        """Give every node the directory in force."""
        for node in self.nodes.values():
            node.directories.accept(self.registry.directory())
