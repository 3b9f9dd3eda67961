"""What the command line does for an operator. `gateway/cli` finds this module through the role's entry point."""

from __future__ import annotations

from pathlib import Path

from gateway.identity.home import Home, PlatformConfig
from gateway.identity.platform import PlatformKeys
from parties.platform.enrolment import Enrolment
from parties.platform.registry import Registry


def create(path: Path, config: PlatformConfig) -> Registry:
    """Make the platform's home: keys, authority, first directory, configuration.

    Raises:
        ChaotianError: EXISTS, CONFIG, PASSPHRASE, STORAGE.
    """
    home, box = Home.create(path, config)
    keys = PlatformKeys(home.database, box, config.space)
    keys.create()
    registry = Registry(home.database, keys, config)
    registry.tls()
    registry.directory()
    home.finish()
    return registry


def open_registry(path: Path) -> Registry:
    """Open the register of an existing home, whether or not its platform is running.

    Raises:
        ChaotianError: CONFIG, PASSPHRASE, STORAGE.
    """
    home = Home.platform(path)
    return Registry(home.database, PlatformKeys(home.database, home.unlock(), home.config.space), home.config)


def enrolment(registry: Registry) -> Enrolment:
    """Return what makes and honours the invitations of `registry`."""
    return Enrolment(registry)
