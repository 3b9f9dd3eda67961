"""A home: the folder with everything of one node or of the platform, and its configuration file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from gateway.identity.invitation import check_address
from gateway.identity.names import check_name
from gateway.storage.base import Database
from gateway.storage.files import make_private_directory, read_limited, write_atomic
from gateway.storage.secrets import KEY_BYTES, Argon2, KeySource, SecretBox

PASSPHRASE_VARIABLE = "CHAOTIAN_PASSPHRASE_FILE"  # noqa: S105  (the name of a variable)
MAX_CONFIG = 64 * 1024
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SECONDS = 3650 * 86400


def parse_duration(text: str, *, what: str = "a duration", code: str = "USAGE") -> int:
    """Return the seconds in a text such as `90d`, `24h`, `15m` or `30s`: at least 1, at most 3,650 days.

    Raises:
        ChaotianError: `code`, naming `what`.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text) if isinstance(text, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_SECONDS:
        raise ChaotianError(code, f"{what} is a number and a unit (s, m, h, d), at most 3650d", hint="For example: 24h")
    return seconds


@dataclass(frozen=True)
class NodeConfig:
    """What `node.toml` says.

    Args:
        key_file: file with the 32-byte key that opens the secrets; a relative path starts at the home.
        passphrase_file: file with the passphrase, instead of a key file.
        database: SQLAlchemy URL; empty for SQLite in the home.
        address: HOST:PORT of the platform, where it differs from the invitation's.
    """

    FILE: ClassVar[str] = "node.toml"
    TABLE: ClassVar[str] = "node"
    key_file: str = ""
    passphrase_file: str = ""
    database: str = ""
    address: str = ""

    def check(self) -> None:
        """Refuse values that cannot be."""


@dataclass(frozen=True)
class PlatformConfig:
    """What `platform.toml` says.

    Args:
        space: name of the space; it stands in every certificate and cannot change.
        address: HOST:PORT that members connect to.
        enrol_address: HOST:PORT for enrolment.
        listen: HOST:PORT to bind for members; empty for all interfaces and the port of `address`.
        enrol_listen: HOST:PORT to bind for enrolment, likewise.
        certificates_valid: lifetime of certificates, e.g. `90d`.
        directory_valid: lifetime of a directory, at most `24h`.
        key_file, passphrase_file, database: as for a node.
    """

    FILE: ClassVar[str] = "platform.toml"
    TABLE: ClassVar[str] = "platform"
    space: str = ""
    address: str = ""
    enrol_address: str = ""
    listen: str = ""
    enrol_listen: str = ""
    certificates_valid: str = "90d"
    directory_valid: str = "24h"
    key_file: str = ""
    passphrase_file: str = ""
    database: str = ""

    @property
    def certificate_seconds(self) -> int:
        """Lifetime of certificates in seconds."""
        return parse_duration(self.certificates_valid, what="certificates_valid", code="CONFIG")

    @property
    def directory_seconds(self) -> int:
        """Lifetime of a directory in seconds."""
        return parse_duration(self.directory_valid, what="directory_valid", code="CONFIG")

    def bind(self, address: str, listen: str) -> str:
        """Return where to listen for what is reached at `address`."""
        return listen or f"[::]:{address.rpartition(':')[2]}"

    def check(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ChaotianError: CONFIG.
        """
        check_name(self.space, "space", code="CONFIG")
        for name in ("address", "enrol_address", "listen", "enrol_listen"):
            if getattr(self, name) or not name.endswith("listen"):
                check_address(getattr(self, name), code="CONFIG")
        if self.certificate_seconds < 1 or not 1 <= self.directory_seconds <= _UNITS["d"]:
            raise ChaotianError("CONFIG", "directory_valid is at most 24h")


Config = TypeVar("Config", NodeConfig, PlatformConfig)


def _load(kind: type[Config], path: Path) -> Config:
    try:
        document = tomllib.loads(read_limited(path, MAX_CONFIG).decode())
    except (ValueError, RecursionError) as error:
        raise ChaotianError("CONFIG", f"{path} is not TOML: {str(error)[:200]}") from None
    if set(document) - {kind.TABLE} or not isinstance(document.get(kind.TABLE, {}), dict):
        raise ChaotianError("CONFIG", f"{path} has one table, [{kind.TABLE}]")
    table: dict[str, Any] = document.get(kind.TABLE, {})
    known = {item.name for item in fields(kind)}
    for name, value in table.items():
        if name not in known:
            raise ChaotianError(
                "CONFIG", f"{path}: unknown key {name[:64]!r}", hint=f"Known: {', '.join(sorted(known))}."
            )
        if not isinstance(value, str):
            raise ChaotianError("CONFIG", f"{path}: {name} is not a text in quotation marks")
    config = kind(**table)
    if config.key_file and config.passphrase_file:
        raise ChaotianError("CONFIG", f"{path}: key_file and passphrase_file exclude each other")
    config.check()
    return config


def _quote(value: str) -> str:
    """Return a TOML basic string."""
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in value)
    return f'"{escaped}"'


def _render(config: NodeConfig | PlatformConfig) -> str:
    lines = [
        f"# {type(config).__name__[:-6]} of Chaotian. Read at start; a key that is not known is refused.",
        f"[{config.TABLE}]",
    ]
    for item in fields(config):
        value = getattr(config, item.name)
        lines.append(f"{'' if value else '# '}{item.name} = {_quote(value)}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Home(Generic[Config]):
    """An existing home, opened with `node`, `platform` or `either`.

    Args:
        path: the folder (mode 0700).
        config: what its configuration file says.
        environment: the process's environment variables.
    """

    path: Path
    config: Config
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False, compare=False)

    @staticmethod
    def node(path: Path) -> Home[NodeConfig]:
        """Open a node's home.

        Raises:
            ChaotianError: CONFIG where there is none, or its configuration is wrong.
        """
        return Home(path, _load(NodeConfig, _existing(path, NodeConfig.FILE, "node init")))

    @staticmethod
    def platform(path: Path) -> Home[PlatformConfig]:
        """Open the platform's home, likewise."""
        return Home(path, _load(PlatformConfig, _existing(path, PlatformConfig.FILE, "platform init")))

    @staticmethod
    def either(path: Path) -> Home[NodeConfig] | Home[PlatformConfig]:
        """Open a home of either kind."""
        return Home.platform(path) if (path / PlatformConfig.FILE).exists() else Home.node(path)

    @staticmethod
    def create(
        path: Path,
        config: Config,
        *,
        entropy: Entropy | None = None,
        argon2: Argon2 | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> tuple[Home[Config], SecretBox]:
        """Make a home: folder, key file where none was named, database, configuration (last, as the mark of success).

        A key file that is named and missing is made. With neither file named, CHAOTIAN_PASSPHRASE_FILE is used, and
        without that a key file in the home.

        Raises:
            ChaotianError: EXISTS where there is a home already; CONFIG, PASSPHRASE, STORAGE.
        """
        config.check()
        entropy = entropy or SystemEntropy()
        for name in (NodeConfig.FILE, PlatformConfig.FILE):
            if (path / name).exists():
                raise ChaotianError("EXISTS", f"{path} holds a {name} already")
        make_private_directory(path)
        if path.stat().st_mode & 0o077:
            raise ChaotianError("CONFIG", f"{path} is open to other users", hint=f"Run `chmod 700 {path}`.")
        if not (config.key_file or config.passphrase_file):
            variable = environment.get(PASSPHRASE_VARIABLE, "")
            given = {"passphrase_file": str(Path(variable).absolute())} if variable else {"key_file": "secret.key"}
            config = replace(config, **given)
        home = Home(path, config, environment)
        if home.key_source().kind == "key-file" and not home.key_source().path.exists():
            write_atomic(home.key_source().path, entropy.bytes(KEY_BYTES), replace=False)
        home.database.upgrade()
        box = _create_or_unlock(home, entropy, argon2)
        return home, box

    def finish(self) -> None:
        """Write the configuration file: from now on the home is one."""
        write_atomic(self.path / self.config.FILE, _render(self.config).encode(), replace=False)

    @property
    def kind(self) -> str:
        """`node` or `platform`."""
        return self.config.TABLE

    @property
    def socket(self) -> Path:
        """Where the local service listens."""
        return self.path / f"{self.config.TABLE}.sock"

    @cached_property
    def database(self) -> Database:
        """The home's database."""
        if self.config.database:
            return Database(self.config.database)
        return Database.at(self.path / "state.db")

    def key_source(self) -> KeySource:
        """Return where the key comes from, as the configuration says.

        The environment variable CHAOTIAN_PASSPHRASE_FILE stands in for the place of the passphrase file.
        """
        if self.config.passphrase_file:
            named = self.environment.get(PASSPHRASE_VARIABLE) or self.config.passphrase_file
            return KeySource("passphrase", self._path(named))
        return KeySource("key-file", self._path(self.config.key_file or "secret.key"))

    def unlock(self) -> SecretBox:
        """Return the box that opens this home's secrets, its database brought up to date.

        Raises:
            ChaotianError: PASSPHRASE, CONFIG, STORAGE, VERSION.
        """
        self.database.upgrade()
        return SecretBox.unlock(self.database, self.key_source())

    def _path(self, text: str) -> Path:
        return self.path / Path(text).expanduser()


def _create_or_unlock(home: Home[Any], entropy: Entropy, argon2: Argon2 | None) -> SecretBox:
    """Return the box of a new home; an `init` that was interrupted goes on with the one it had made."""
    try:
        return SecretBox.create(home.database, home.key_source(), entropy=entropy, argon2=argon2)
    except ChaotianError as error:
        if error.code != "EXISTS":
            raise
    return SecretBox.unlock(home.database, home.key_source(), entropy=entropy)


def _existing(path: Path, name: str, verb: str) -> Path:
    if not (path / name).is_file():
        raise ChaotianError(
            "CONFIG", f"{path} has no {name}", hint=f"Make a home with `chaotian {verb} --home {path}`."
        )
    return path / name
