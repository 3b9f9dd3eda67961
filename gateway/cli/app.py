"""`chaotian app`: the Flower apps that are installed here, by the hash under which jobs name them."""

from __future__ import annotations

from gateway.cli.common import JsonOption, make_app, print_json, print_table

app = make_app("See the Flower apps that are installed here for jobs of the kind fedavg.")


@app.callback()
def group() -> None:
    """See the Flower apps that are installed here for jobs of the kind fedavg."""


@app.command("list")
def list_apps(as_json: JsonOption = False) -> None:
    """List installed apps with the SHA-256 of their source."""
    from gateway.jobs.apps import installed

    found = installed()
    if as_json:
        print_json({"apps": [{"name": each.name, "place": each.place, "digest": each.digest} for each in found]})
        return
    print_table(
        ("app", "digest", "place"),
        [(each.name, each.digest or "its source cannot be read", each.place) for each in found],
    )
