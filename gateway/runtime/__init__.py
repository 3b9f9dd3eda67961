"""The serving processes: `serve_node(home)` and `serve_platform(home)`, and the `Runtime` a role plugs into."""
